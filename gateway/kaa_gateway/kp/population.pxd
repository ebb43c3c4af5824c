from kaa_gateway.kp.refusal cimport Refusal


cdef class Population:
    # wiring
    cdef readonly Population wider      # its tenant's, or None
    # identity
    cdef bytes app_version              # None for a tenant
    cdef Refusal too_many_connections
    cdef Refusal too_many_endpoints
    # settings: over all workers and replicas; 0 is any
    cdef readonly Py_ssize_t connections_max
    cdef readonly Py_ssize_t endpoints_max
    # state
    cdef readonly Py_ssize_t connections            # of this worker
    cdef readonly Py_ssize_t endpoints
    cdef readonly Py_ssize_t connections_elsewhere  # of the others, as they have told
    cdef readonly Py_ssize_t endpoints_elsewhere

    cdef Refusal refusal(self, bint new_connection, bint new_endpoint)
    cdef int add_connections(self, int count) noexcept
    cdef int add_endpoints(self, int count) noexcept


cdef Population of_app_version(bytes app_version, Population tenant)
cdef Population of_tenant()
