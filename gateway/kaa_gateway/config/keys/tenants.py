"""The keys of `kaa.tenants`."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.keys.quotas import Quota
from kaa_gateway.config.schema import Section


class TenantCertificates(Section, frozen=True, kw_only=True):
    """What a tenant demands of the certificates that its authorities have issued to clients."""

    admit: Annotated[
        Literal["known", "signed"],
        Meta(
            description="`known`: the provider of clients must know the certificate, where clients are "
            "authenticated; `signed`: the signature of the tenant's authority is enough."
        ),
    ] = "known"
    tokens: Annotated[
        Literal["any", "common-name"],
        Meta(
            description="`any`: the client may use every endpoint token of the tenant; `common-name`: only "
            "that which is the common name of its certificate."
        ),
    ] = "any"


class Tenant(Section, frozen=True, kw_only=True):
    """A tenant, whose ID `kaa.applications.<application>.tenant` names."""

    quota: Quota = Quota()
    certificates: TenantCertificates = TenantCertificates()
