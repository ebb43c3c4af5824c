from libc.stdint cimport uint8_t


cdef struct Slice:
    # Borrowed bytes: never owned, valid only for the call that handed it over. `data` is NULL where a value is absent.
    const uint8_t* data
    Py_ssize_t size


cdef class Buffer:
    # state
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    cdef uint8_t* reserve(self, Py_ssize_t count) except NULL
    cdef int append(self, const void* source, Py_ssize_t count) except -1
    cdef void consume(self, Py_ssize_t count) noexcept
    cdef void clear(self, Py_ssize_t keep) noexcept
    cdef bytes copy(self)
