"""The quotas of `kaa.tenants` and `kaa.applications`: how much there may be, over all workers and replicas together."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.units import MANY, GiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Integer, Size

MESSAGES_A_MONTH_MAX = 1_000_000_000_000


class EndpointQuota(Section, frozen=True, kw_only=True):
    """What an endpoint may send."""

    messages_per_second: Annotated[
        Integer, Meta(ge=0, le=MANY, description="Messages a second; more are refused with 429; 0 is any.")
    ] = 0
    bytes_per_second: Annotated[
        Size,
        Meta(
            ge=0, le=64 * GiB, description="Bytes of payload a second; more are refused with 429; 0 is any."
        ),
    ] = 0
    messages_per_month: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MESSAGES_A_MONTH_MAX,
            description="Messages in a calendar month (UTC); more are refused with 429; 0 is any.",
        ),
    ] = 0
    connections: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Connections to each worker, and addresses over UDP, that use it at a time; messages of more "
            "are refused with 429; 0 is any.",
        ),
    ] = 0


class Quota(EndpointQuota, frozen=True, kw_only=True):
    """What the endpoints of an application version or a tenant may send together, and how many there may be."""

    connections: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Connections, and addresses over UDP, with an endpoint at a time; messages of more are "
            "refused with 429; 0 is any.",
        ),
    ] = 0
    endpoints: Annotated[
        Integer,
        Meta(
            ge=0,
            le=MANY,
            description="Endpoints with a session at a time; messages of more are refused with 429; 0 is any.",
        ),
    ] = 0


class QuotaStore(Section, frozen=True, kw_only=True):
    """Where what has been used of quotas is kept."""

    copies: Annotated[
        Integer,
        Meta(
            ge=1,
            le=5,
            description="NATS servers that keep the month's counts, in the bucket `<instance>-quotas`.",
        ),
    ] = 1
