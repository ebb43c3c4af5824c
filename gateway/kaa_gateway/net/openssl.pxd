from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef enum ReadResult:
    READ_DATA
    READ_NOTHING       # the next record is not whole
    READ_END           # close_notify
    READ_FAILED        # the connection is broken; `failure` says why


cdef class Records:
    # state
    cdef void* incoming   # BIO: encrypted bytes that were received
    cdef void* outgoing   # BIO: encrypted bytes to send
    cdef Buffer taken     # those that are being sent

    cdef void* adopt(self, tls) noexcept
    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef ReadResult read(self, void* tls, uint8_t* plain, Py_ssize_t room, Py_ssize_t* size) noexcept
    cdef bint has_more(self, void* tls) noexcept
    cdef int forget_received(self) noexcept
    cdef int write(self, void* tls, const uint8_t* data, Py_ssize_t size) noexcept
    cdef int write_end(self, void* tls) noexcept
    cdef Slice take_written(self) except *
    cdef str failure(self)
