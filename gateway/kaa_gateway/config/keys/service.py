"""The keys of `service` and `server`: the service as a member of the cluster, and its management API."""

import secrets
from functools import cache
from typing import Annotated

from msgspec import Meta, field

from kaa_gateway.config.keys.units import DAY
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Name, OptionalPath, Port, Seconds


@cache
def random_replica_id() -> str:
    """Return a replica ID that no other replica of the cluster has; this process keeps it over a reload."""
    return f"kpc-{secrets.token_hex(8)}"


class Replica(Section, frozen=True, kw_only=True):
    """One running copy of the service."""

    id: Annotated[
        Name,
        Meta(
            description="Replica ID, unique in the cluster; it is part of the reply subjects.",
            extra={"default": "random, kpc-<16 hex digits>"},
        ),
    ] = field(default_factory=random_replica_id)


class Instance(Section, frozen=True, kw_only=True):
    """The service instance that this gateway is, in 3/ISM's sense."""

    name: Annotated[Name, Meta(description="Service instance name, unique in the cluster.")] = "kpc"
    replica: Replica = field(default_factory=Replica)


class Service(Section, frozen=True, kw_only=True):
    """The service as a member of the cluster."""

    instance: Instance = field(default_factory=Instance)
    graceful_shutdown: Annotated[
        Seconds,
        Meta(ge=0, le=DAY, description="Seconds that SIGTERM leaves for finishing what is in flight."),
    ] = 30.0


class Server(Section, frozen=True, kw_only=True):
    """The management API."""

    port: Annotated[Port, Meta(description="TCP port of the management REST API.")] = 8008
    token_file: Annotated[
        OptionalPath,
        Meta(
            description="File with the bearer token of /api, at least 16 characters; without one, /api answers "
            "requests from its own machine only."
        ),
    ] = None
