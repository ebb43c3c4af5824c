from kaa_gateway.identity.cache cimport Cache
from kaa_gateway.wire.buffer cimport Slice


cdef class KnownClients:
    # wiring
    cdef bytes key
    cdef Cache admitted   # digest of credentials -> Admitted (kaa_gateway.identity.authenticator)

    cdef object find(self, Slice user_name, Slice password, certificate)
