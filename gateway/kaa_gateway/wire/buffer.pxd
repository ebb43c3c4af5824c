cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy


cdef struct Slice:
    # Borrowed bytes: never owned, valid only for the call that handed it over. `data` is NULL where a value is absent.
    const uint8_t* data
    Py_ssize_t size


cdef inline Slice slice_of(bytes text) noexcept:
    # Borrow the bytes of an object, which the caller holds; None gives an absent value.
    if text is None:
        return Slice(NULL, 0)
    return Slice(<const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline bytes to_bytes(Slice borrowed):
    # Copy borrowed bytes; an absent value gives None.
    return None if borrowed.data == NULL else borrowed.data[:borrowed.size]


cdef class Buffer:
    # state
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    @cython.final
    cdef inline uint8_t* reserve(self, Py_ssize_t count) except NULL:
        # Make room for `count` more bytes and return where they go; the caller adds to `size` what it wrote.
        if count > self.capacity - self.size or self.data == NULL:  # room for nothing has an address too
            self.grow(count)
        return self.data + self.size

    @cython.final
    cdef inline int append(self, const void* source, Py_ssize_t count) except -1:
        # Copy `count` bytes to the end.
        cdef uint8_t* at = self.reserve(count)
        if count:  # or `source` may be NULL, which memcpy is not to be given
            memcpy(at, source, <size_t>count)
            self.size += count
        return 0

    cdef int grow(self, Py_ssize_t count) except -1
    cdef void consume(self, Py_ssize_t count) noexcept
    cdef void clear(self, Py_ssize_t keep) noexcept
    cdef bytes copy(self)
