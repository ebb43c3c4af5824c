"""The quotas of a worker, by what they are of, and the quota that a route holds.

A route holds the narrowest quota of its messages, so that a message needs no look-up; None if there is none at all.
Numbers change in place. Routes are made again only if a quota comes or goes.
"""

from typing import NamedTuple

from kaa_gateway.kp.population cimport of_app_version, of_tenant
from kaa_gateway.kp.quota cimport APP_VERSION, ENDPOINT, TENANT, Rates


class Usage(NamedTuple):
    """A tenant or an application version that has some limit, and what it uses here.

    `quota` is None if only its connections or endpoints are limited.
    """

    scope: str
    name: str
    quota: object
    population: object


cdef class Quotas:
    """The quotas of tenants, application versions and endpoints."""

    def __init__(self):
        self.tenants = {}
        self.app_versions = {}
        self.narrowest = {}
        self.endpoint_rates = {}
        self.endpoint_months = {}
        self.endpoint_connections = {}
        self.owners = {}
        self.tenant_populations = {}
        self.populations = {}

    def configure(self, tenants not None, app_versions not None, endpoints not None, owners not None):
        """Apply other quotas. Return the application versions whose routes have to be made again.

        `tenants`, `app_versions` and `endpoints` map tenants and application versions to their limits, or those of
        each endpoint. `owners` has the tenants of application versions.
        """
        cdef Quota quota
        cdef dict narrowest = {}, rates_before = self.endpoint_rates
        cdef dict versions = {name.encode(): limits for name, limits in app_versions.items()}
        self.set_owners({name.encode(): tenant for name, tenant in owners.items()})
        self.limit_populations(tenants, versions)
        self.tenants = configured(TENANT, self.tenants, tenants)
        self.app_versions = configured(APP_VERSION, self.app_versions, versions)
        for name in {*versions, *self.owners}:
            quota = self.app_versions.get(name)
            wider = self.tenants.get(self.owners.get(name))
            if quota is not None:
                quota.wider = wider
            narrowest[name] = wider if quota is None else quota
        self.limit_endpoints(endpoints)
        changed = frozenset(
            name for name in {*narrowest, *self.narrowest, *rates_before, *self.endpoint_rates}
            if narrowest.get(name) is not self.narrowest.get(name)
            or rates_before.get(name) is not self.endpoint_rates.get(name)
        )
        self.narrowest = narrowest
        return changed

    cdef int limit_endpoints(self, endpoints) except -1:
        """Apply the limits of each endpoint. Where its month comes or goes, each gets a new quota."""
        cdef EndpointMonths months
        cdef Rates rates
        cdef dict rates_before = self.endpoint_rates, months_before = self.endpoint_months
        self.endpoint_rates, self.endpoint_months, self.endpoint_connections = {}, {}, {}
        for text, limits in endpoints.items():
            name = text.encode()
            months = months_before.get(name)
            rates = rates_before.get(name)
            if limits.messages_per_month > 0:
                if months is None:
                    months = EndpointMonths(limits.messages_per_month)
                    rates = None
                elif months.month_max != limits.messages_per_month:
                    months.set_max(limits.messages_per_month)
                self.endpoint_months[name] = months
            elif months is not None:
                rates = None
            if limits.messages_per_second > 0 or limits.bytes_per_second > 0 or limits.messages_per_month > 0:
                self.endpoint_rates[name] = rates = Rates() if rates is None else rates
                rates.set_limits(limits.messages_per_second, limits.bytes_per_second)
            if limits.connections > 0:
                self.endpoint_connections[name] = limits.connections
        return 0

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
            quota = endpoint.quotas[app_version] = self.new_quota(app_version, endpoint, narrowest)
        quota.wider = narrowest
        return quota

    cdef Quota new_quota(self, bytes app_version, Endpoint endpoint, Quota narrowest):
        """Return the quota of an endpoint that has none here, or whose limits have come or gone."""
        cdef Quota quota = Quota(ENDPOINT, self.endpoint_rates[app_version], narrowest)
        cdef EndpointMonths months = self.endpoint_months.get(app_version)
        return quota if months is None else months.join(endpoint.endpoint_id, quota)

    # ------------------------------------------------------------ connections and endpoints

    def set_owners(self, dict owners):
        """Set the tenants of application versions. The population of one that has another tenant begins anew."""
        for name in list(self.populations):
            if owners.get(name) != self.owners.get(name):
                del self.populations[name]
        self.owners = owners

    def limit_populations(self, tenants, app_versions):
        """Set the limits of connections and endpoints. What is not in the configuration any more has none."""
        for name, limits in tenants.items():
            self.tenant_population(name).set_limits(limits.connections, limits.endpoints)
        for name, limits in app_versions.items():
            self.population_of(name).set_limits(limits.connections, limits.endpoints)
        for name in self.tenant_populations.keys() - tenants.keys():
            self.tenant_population(name).set_limits(0, 0)

    cdef Population population_of(self, bytes app_version):
        """Return the population of a configured application version."""
        cdef Population population = self.populations.get(app_version)
        if population is None:
            tenant = self.owners.get(app_version)
            wider = None if tenant is None else self.tenant_population(tenant)
            population = self.populations[app_version] = of_app_version(app_version, wider)
        return population

    cdef Population tenant_population(self, str tenant):
        """Return the population of a tenant."""
        cdef Population population = self.tenant_populations.get(tenant)
        if population is None:
            population = self.tenant_populations[tenant] = of_tenant()
        return population

    # ------------------------------------------------------------ what others see

    def limited(self):
        """Return a Usage for each tenant and application version that has some limit."""
        cdef Population population
        usages = []
        for name, population in self.tenant_populations.items():
            if name in self.tenants or population.connections_max or population.endpoints_max:
                usages.append(Usage("tenant", name, self.tenants.get(name), population))
        for name, population in self.populations.items():
            if name in self.app_versions or population.connections_max or population.endpoints_max:
                usages.append(Usage("appVersion", name.decode(), self.app_versions.get(name), population))
        return usages

    def months_of_endpoints(self):
        """Return the EndpointMonths of each application version whose endpoints have a limited month."""
        return {name.decode(): months for name, months in self.endpoint_months.items()}


cdef dict configured(scope, dict before, limits_by_name):
    """Return the quotas of those that have limits. What had a quota before keeps its state."""
    cdef Quota quota
    cdef Rates rates
    quotas = {}
    for name, limits in limits_by_name.items():
        if limits.messages_per_second > 0 or limits.bytes_per_second > 0 or limits.messages_per_month > 0:
            quota = before.get(name)
            rates = Rates() if quota is None else quota.rates
            rates.set_limits(limits.messages_per_second, limits.bytes_per_second)
            if quota is None:
                quota = Quota(scope, rates, None)
            quota.set_month_max(limits.messages_per_month)
            quotas[name] = quota
    return quotas
