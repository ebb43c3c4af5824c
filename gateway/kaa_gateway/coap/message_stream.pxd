from libc.stdint cimport uint8_t

from kaa_gateway.net.transport cimport ProtocolCore


cdef class MessageStream(ProtocolCore):
    cdef int send_message(self, const uint8_t* datagram, Py_ssize_t size) except -1
