from libc.stdint cimport uint32_t, uint64_t

from kaa_gateway.bus.block cimport Acknowledgement
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.nats cimport Publication, ServerMessage


cdef class Receiver:
    cdef int on_message(self, const ServerMessage* message) except -1
    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1
    cdef int on_connected(self) except -1


cdef class Listener(Receiver):
    cdef int on_confirmed(self, const Acknowledgement* acknowledgements, Py_ssize_t count) except -1
    cdef int on_no_responders(self, const Publication* publication) except -1
    cdef int on_denied(self, const Publication* publication) except -1
    cdef int on_abandoned(self, const Publication* publication) except -1
    cdef int on_too_large(self, const Publication* publication) except -1
    cdef int on_payload_max(self) except -1
    cdef Py_ssize_t largest_in_flight(self) except -1
    cdef bint may_send_again(self, const Publication* publication) noexcept
    cdef int on_backlog(self, bint full) except -1
    cdef int on_stored(self, uint64_t session, uint32_t token) except -1
    cdef int on_not_stored(
        self, str instance, Slice datum, uint64_t session, uint32_t token, bint permanent
    ) except -1
