"""The connections and endpoints of an application version or a tenant, and how many there may be.

Each is counted when a session begins to speak for an endpoint, whether they are limited or not, so that a limit which
comes later finds them counted.
"""

cdef enum:
    TOO_MANY_REQUESTS = 429

cdef Refusal VERSION_CONNECTIONS = Refusal(
    TOO_MANY_REQUESTS, "app_version_connections", "The application version has too many connections"
)
cdef Refusal VERSION_ENDPOINTS = Refusal(
    TOO_MANY_REQUESTS, "app_version_endpoints", "The application version has too many endpoints"
)
cdef Refusal TENANT_CONNECTIONS = Refusal(
    TOO_MANY_REQUESTS, "tenant_connections", "The tenant has too many connections"
)
cdef Refusal TENANT_ENDPOINTS = Refusal(TOO_MANY_REQUESTS, "tenant_endpoints", "The tenant has too many endpoints")


cdef class Population:
    """The connections and endpoints of one application version or tenant."""

    def set_limits(self, Py_ssize_t connections_max, Py_ssize_t endpoints_max):
        """Set other limits, for what comes from now on; 0 is any."""
        self.connections_max = connections_max
        self.endpoints_max = endpoints_max

    def set_elsewhere(self, Py_ssize_t connections, Py_ssize_t endpoints):
        """Set what the other workers and replicas have."""
        self.connections_elsewhere = connections
        self.endpoints_elsewhere = endpoints

    cdef Refusal refusal(self, bint new_connection, bint new_endpoint):
        """Return why there may be no further connection or endpoint, or None."""
        cdef Population each = self
        while each is not None:
            if new_connection and each.connections_max \
                    and each.connections + each.connections_elsewhere >= each.connections_max:
                return each.too_many_connections
            if new_endpoint and each.endpoints_max and each.endpoints + each.endpoints_elsewhere >= each.endpoints_max:
                return each.too_many_endpoints
            each = each.wider
        return None

    cdef int add_connections(self, int count) noexcept:
        """Count connections that have come, or gone if the number is negative."""
        cdef Population each = self
        while each is not None:
            each.connections += count
            each = each.wider
        return 0

    cdef int add_endpoints(self, int count) noexcept:
        """Count endpoints that have come, or gone if the number is negative."""
        cdef Population each = self
        while each is not None:
            each.endpoints += count
            each = each.wider
        return 0


cdef Population of_app_version(bytes app_version, Population tenant):
    """Return a population of an application version, which counts for its tenant's as well; that may be None."""
    cdef Population population = Population()
    population.app_version = app_version
    population.wider = tenant
    population.too_many_connections = VERSION_CONNECTIONS
    population.too_many_endpoints = VERSION_ENDPOINTS
    return population


cdef Population of_tenant():
    """Return a population of a tenant."""
    cdef Population population = Population()
    population.too_many_connections = TENANT_CONNECTIONS
    population.too_many_endpoints = TENANT_ENDPOINTS
    return population
