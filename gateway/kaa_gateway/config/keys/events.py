"""The keys of `kaa.kpc.events`."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.units import DAY, MANY
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Boolean, Integer, Seconds


class Events(Section, frozen=True, kw_only=True):
    """Events about endpoints, as 9/ELCE defines them."""

    idle_timeout: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=DAY,
            description="Seconds of silence after which an endpoint that speaks over HTTP, CoAP or UDP counts as "
            "disconnected; 0: such endpoints count as neither.",
        ),
    ] = 300.0
    idle_endpoints: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="Endpoints of one worker that count as connected so; more push out the one looked at next.",
        ),
    ] = 100_000
    presence: Annotated[
        Boolean,
        Meta(
            description="Whether connected endpoints are written to the JetStream KV bucket `<instance>-presence`."
        ),
    ] = False
    presence_lease: Annotated[
        Seconds,
        Meta(
            ge=3,
            le=DAY,
            description="Seconds without a sign of life after which a replica's entries in the bucket are removed.",
        ),
    ] = 30.0
    presence_copies: Annotated[
        Integer, Meta(ge=1, le=5, description="NATS servers that keep the bucket, in memory.")
    ] = 1
    traffic_period: Annotated[
        Seconds, Meta(ge=0, le=DAY, description="Seconds between traffic reports; 0: none is made.")
    ] = 60.0
