from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.net.transport cimport ProtocolServer
from kaa_gateway.wire.buffer cimport Buffer


cdef class CoapStreamServer(ProtocolServer):
    # wiring
    cdef readonly object loop
    cdef CoapContext context
    cdef InputMemory input_memory
    cdef object authenticate         # called with the certificate of a new client; None: all are admitted
    # settings
    cdef Py_ssize_t message_size_max  # bytes of a message that is received
    cdef double csm_timeout           # seconds
    cdef double ping_after            # seconds
    cdef bytes alternative_address    # of Release, or None
    # state
    cdef set connections
    cdef Buffer scratch              # a signaling message that is being written
