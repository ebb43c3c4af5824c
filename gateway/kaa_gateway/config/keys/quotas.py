"""The quotas of `kaa.tenants` and `kaa.applications`: what may be sent, over all workers and replicas together."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.units import MANY, GiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Integer, Size


class Quota(Section, frozen=True, kw_only=True):
    """What an application version, a tenant or an endpoint may send."""

    messages_per_second: Annotated[
        Integer, Meta(ge=0, le=MANY, description="Messages a second; more are refused with 429; 0 is any.")
    ] = 0
    bytes_per_second: Annotated[
        Size,
        Meta(
            ge=0, le=64 * GiB, description="Bytes of payload a second; more are refused with 429; 0 is any."
        ),
    ] = 0


class Tenant(Section, frozen=True, kw_only=True):
    """A tenant, whose ID `kaa.applications.<application>.tenant` names."""

    quota: Quota = Quota()
