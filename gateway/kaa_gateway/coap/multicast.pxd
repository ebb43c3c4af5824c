from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.net.addresses cimport Address


cdef class MulticastDiscovery:
    # wiring
    cdef CoapContext context
    # settings
    cdef double leisure          # seconds
    # state
    cdef list waiting            # heap of (loop time, number, bytes of an Address, datagram)
    cdef uint16_t last_message_id

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source, double now) except -1
    cdef bint send_due(self, double now) except -1
