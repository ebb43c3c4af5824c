"""The quotas of a worker, by what they are of, and the quota that a route holds.

A route holds the narrowest quota of its messages, so that a message needs no look-up; None if there is none at all.
Numbers change in place. Routes are made again only if a quota comes or goes.
"""

from kaa_gateway.clock cimport monotonic
from kaa_gateway.kp.quota cimport APP_VERSION, ENDPOINT, TENANT, Quota, Rates


cdef class Quotas:
    """The quotas of tenants, application versions and endpoints."""

    def __init__(self):
        self.tenants = {}
        self.app_versions = {}
        self.narrowest = {}
        self.endpoint_rates = {}

    def configure(self, tenants not None, app_versions not None, endpoints not None, owners not None):
        """Apply other quotas. Return the application versions whose routes have to be made again.

        `tenants`, `app_versions` and `endpoints` map tenants and application versions to their limits, or those of
        each endpoint. `owners` has the tenants of application versions.
        """
        cdef Quota quota
        cdef Rates rates
        cdef dict narrowest = {}, endpoint_rates = {}
        cdef dict versions = {name.encode(): limits for name, limits in app_versions.items()}
        cdef dict tenant_of = {name.encode(): tenant for name, tenant in owners.items()}
        self.tenants = configured(TENANT, self.tenants, tenants)
        self.app_versions = configured(APP_VERSION, self.app_versions, versions)
        for name in {*versions, *tenant_of}:
            quota = self.app_versions.get(name)
            wider = self.tenants.get(tenant_of.get(name))
            if quota is not None:
                quota.wider = wider
            narrowest[name] = wider if quota is None else quota
        for name, limits in endpoints.items():
            if has_rates(limits):
                rates = endpoint_rates[name.encode()] = self.endpoint_rates.get(name.encode(), Rates())
                set_rates(rates, limits)
        changed = frozenset(
            name for name in {*narrowest, *self.narrowest, *endpoint_rates, *self.endpoint_rates}
            if narrowest.get(name) is not self.narrowest.get(name)
            or endpoint_rates.get(name) is not self.endpoint_rates.get(name)
        )
        self.narrowest = narrowest
        self.endpoint_rates = endpoint_rates
        return changed

    cdef Quota quota_of(self, bytes app_version, Endpoint endpoint):
        """Return the quota that a route to an endpoint holds, or to an extension without endpoints; None for none."""
        cdef Quota narrowest = self.narrowest.get(app_version), quota
        cdef Rates rates = self.endpoint_rates.get(app_version)
        if endpoint is None or rates is None:
            return narrowest
        if endpoint.quotas is None:
            endpoint.quotas = {}
        quota = endpoint.quotas.get(app_version)
        if quota is None or quota.rates is not rates:
            quota = endpoint.quotas[app_version] = Quota(ENDPOINT, rates, narrowest, monotonic())
        quota.wider = narrowest
        return quota

    def all(self):
        """Return (scope, name, Quota) of each tenant and application version that has one."""
        return [("tenant", name, quota) for name, quota in self.tenants.items()] \
            + [("appVersion", name.decode(), quota) for name, quota in self.app_versions.items()]


cdef bint has_rates(limits) except -1:
    return limits.messages_per_second > 0 or limits.bytes_per_second > 0


cdef int set_rates(Rates rates, limits) except -1:
    rates.messages = limits.messages_per_second
    rates.bytes = limits.bytes_per_second
    return 0


cdef dict configured(scope, dict before, limits_by_name):
    """Return the quotas of those that have limits. What had a quota before keeps its state."""
    cdef Quota quota
    quotas = {}
    for name, limits in limits_by_name.items():
        if has_rates(limits):
            quota = before.get(name)
            if quota is None:
                rates = Rates()
                set_rates(rates, limits)
                quota = Quota(scope, rates, None, monotonic())
            set_rates(quota.rates, limits)
            quotas[name] = quota
    return quotas
