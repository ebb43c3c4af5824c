from libc.stdint cimport int64_t

from kaa_gateway.kp.quota cimport Quota


cdef class EndpointMonths:
    # settings
    cdef readonly int64_t month_max   # messages a month of each endpoint, over all workers
    # state
    cdef list shards                  # dicts of endpoint ID -> Quota

    cdef Quota join(self, bytes endpoint_id, Quota quota)
