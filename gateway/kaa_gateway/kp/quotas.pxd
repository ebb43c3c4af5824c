from kaa_gateway.kp.endpoint_months cimport EndpointMonths
from kaa_gateway.kp.population cimport Population
from kaa_gateway.kp.quota cimport Quota
from kaa_gateway.kp.session cimport Endpoint


cdef class Quotas:
    # state
    cdef dict tenants              # tenant ID -> its Quota; those without one are not here
    cdef dict app_versions         # application version -> its Quota, likewise
    cdef dict narrowest            # application version -> the first Quota that all its messages count for, or None
    cdef dict endpoint_rates       # application version -> Rates of each of its endpoints
    cdef dict endpoint_months      # application version -> EndpointMonths, if the month of each endpoint is limited
    cdef dict endpoint_connections  # application version -> connections that each of its endpoints may have
    cdef dict owners               # application version -> ID of its tenant, where it has one
    cdef dict tenant_populations   # tenant ID -> Population
    cdef dict populations          # application version -> Population

    cdef int limit_endpoints(self, endpoints) except -1
    cdef Quota quota_of(self, bytes app_version, Endpoint endpoint)
    cdef Quota new_quota(self, bytes app_version, Endpoint endpoint, Quota narrowest)
    cdef Population population_of(self, bytes app_version)
    cdef Population tenant_population(self, str tenant)
