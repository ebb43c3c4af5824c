"""A growable byte buffer that native code appends to, and the borrowed slice that decoders hand out.

What lives here is memory only: no protocol, no socket.
"""

from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

cdef enum:
    SMALLEST = 256  # bytes; the first allocation


cdef class Buffer:
    """A buffer that owns the bytes `data[0:size]`, in an allocation of `capacity` bytes.

    Pointers into it are valid until the next call that may grow or clear it.
    """

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.size

    cdef int grow(self, Py_ssize_t count) except -1:
        """Make room for `count` more bytes."""
        cdef Py_ssize_t capacity = max(self.capacity * 2, SMALLEST)
        cdef uint8_t* data
        if count > PY_SSIZE_T_MAX // 4 - self.size:
            raise MemoryError
        while capacity - self.size < count:
            capacity *= 2
        if self.size == 0:
            self.clear(0)  # what is not there need not be copied
        data = <uint8_t*>realloc(self.data, <size_t>capacity)
        if data == NULL:
            raise MemoryError
        self.data = data
        self.capacity = capacity
        return 0

    cdef void consume(self, Py_ssize_t count) noexcept:
        """Drop the first `count` bytes; `count` is at most `size`."""
        assert 0 <= count <= self.size
        self.size -= count
        if self.size and count:
            memmove(self.data, self.data + count, <size_t>self.size)

    cdef void clear(self, Py_ssize_t keep) noexcept:
        """Forget the contents, and give the memory back if it is more than `keep` bytes."""
        self.size = 0
        if self.capacity > keep:
            free(self.data)
            self.data = NULL
            self.capacity = 0

    cdef bytes copy(self):
        """Return the contents as a bytes object."""
        return self.data[:self.size] if self.size else b""
