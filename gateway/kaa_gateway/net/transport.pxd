from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer


cdef class Transport:
    cdef readonly object certificate   # ClientCertificate that the peer has proved to own, or None
    cdef readonly object client        # Client of a session below that has been admitted already, or None
    cdef readonly object proxied       # Proxied: what a trusted proxy has told of the connection, or None

    cdef bint keeps_messages           # the core is told where each message ends, and sends each by itself

    cdef int wake(self) except -1
    cdef int send_message(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int close(self) except -1
    cdef int close_now(self) except -1
    cdef bytes peer_address(self)
    cdef object tls_version(self)
    cdef dict describe(self)


cdef class ProtocolCore  # before its server, which makes it


cdef class ProtocolServer:
    cpdef ProtocolCore connect(self, Transport transport)


cdef class ProtocolCore:
    # wiring
    cdef Transport transport
    # state
    cdef Buffer output             # bytes to write at the end of the tick
    cdef Py_ssize_t input_counted  # bytes of incomplete input that InputMemory counts for this core
    cdef uint64_t taken            # whole packets or requests received so far
    cdef bint admitted             # the peer has been authenticated, or has made a request that needs no credentials
    cdef bint input_ended          # the peer has closed its sending side
    cdef double unread_time        # seconds that time-outs leave out, since take_unread_time

    cdef uint64_t packets(self) noexcept
    cdef bint is_admitted(self) noexcept
    cdef int add_unread_time(self, double seconds) except -1
    cdef double take_unread_time(self) noexcept
    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int end_of_message(self) except -1
    cdef int end_of_input(self) except -1
    cdef int finish_output(self, bint closing) except -1
    cdef int resume(self) except -1
    cdef int lost(self) except -1
    cdef int end(self, str reason) except -1
    cdef int explain(self, str reason) except -1
    cdef int explain_stop(self) except -1
    cdef bint redirect(self, bint permanent) except -1
    cdef int check(self, double now) except -1
