from kaa_gateway.tick cimport Tick, TickOutput


cdef class LinkTransport(TickOutput):
    cdef int write(self, data) except -1
    cdef Py_ssize_t unwritten(self) except -1
    cdef int abort(self) except -1
    cdef int close(self) except -1


cdef class AsyncioTransport(LinkTransport):
    # wiring
    cdef object transport


cdef class SocketTransport(LinkTransport):
    # wiring
    cdef object loop
    cdef Tick tick
    cdef object connection         # the Connection that gets what is read
    cdef object socket
    cdef int fd                    # -1 when closed, or given away
    # state
    cdef list waiting              # bytes objects and Blocks that the socket has not taken
    cdef Py_ssize_t waiting_size   # bytes of them, without ...
    cdef Py_ssize_t taken          # ... the bytes of the first that the socket has taken
    cdef bint writer_added
    cdef bint closing              # it closes as soon as nothing waits
    cdef object failure            # OSError of a write, or None

    cdef int read(self) except -1
    cdef int flush(self) except -1
    cdef int remove_waiting(self, Py_ssize_t size) except -1
    cdef int on_write_error(self, int number) except -1
    cdef int lose(self, error) except -1
    cdef object detach(self)
