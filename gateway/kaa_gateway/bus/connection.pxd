from kaa_gateway.bus.link cimport Link


cdef class Connection:
    # wiring
    cdef Link link
    # state
    cdef bint ended
    cdef bint expects_pong         # CONNECT is sent, or about to be
    cdef dict info                 # the newest INFO, or None
    cdef str last_server_error
    # state of the handshake
    cdef object waiter             # Future of the step under way, or None
    cdef object failure            # BusError that ended it, or None

    cdef bint is_current(self)
    cdef int on_bytes(self, Py_ssize_t size) except -1
    cdef int receive_info(self, dict info) except -1
    cdef int receive_pong(self) except -1
    cdef int resolve(self, value) except -1
    cdef int fail(self, error) except -1
    cdef object expect(self)
    cdef int fail_step(self, error) except -1
