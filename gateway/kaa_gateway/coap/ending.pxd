from kaa_gateway.coap.context cimport CoapContext


cdef bint end_observations(CoapContext context) except -1
cdef int end_unserved(CoapContext context) except -1
cdef bint end_waits(CoapContext context) except -1
cdef bint expire_waits(CoapContext context, double now) except -1
