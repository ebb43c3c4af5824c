"""The KV bucket `<instance>-presence`: which replica has which endpoint, over which protocol, and since when.

Names of keys and values are written here for those who write the bucket and those who watch it. An entry counts while
the replica that wrote it has a lease, and if it is of that replica's present life.
"""

from __future__ import annotations

import base64
import re

import msgspec
from msgspec import Struct

PLAIN = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
"""Endpoint IDs that stand in a key as they are."""
ENCODED = "="
"""Before the base64 of others."""
OPERATION = "KV-Operation"
"""The header of a message that removes a key."""


class Entry(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An endpoint that a replica has."""

    replica: str
    life: str
    """Of the replica's process: another process with the same name is another life."""
    app_version: str
    protocol: str
    """`mqtt`, `http`, `coap` or `udp`."""
    family: str | None = None
    """`ipv4` or `ipv6`, of the address of its device; None if it is not known."""
    since: str
    """When its session began, as RFC 3339 has it."""
    last_seen: str
    """When it was last heard of, to the period of the traffic reports."""


class Lease(Struct, frozen=True, kw_only=True, rename="camel"):
    """A replica that is there. It renews its lease three times in `seconds`."""

    life: str
    seconds: float


def bucket_of(instance: str) -> str:
    """Return the name of a gateway instance's bucket."""
    return f"{instance}-presence"


def entry_key(endpoint_id: str, replica_id: str) -> str:
    """Return the key of an endpoint at a replica."""
    if not PLAIN.match(endpoint_id):
        endpoint_id = ENCODED + base64.urlsafe_b64encode(endpoint_id.encode()).decode()
    return f"endpoint.{endpoint_id}.{replica_id}"


def endpoint_of(key: str) -> str:
    """Return the endpoint ID in the key of an entry."""
    name = key.split(".")[1]
    if name.startswith(ENCODED):
        return base64.urlsafe_b64decode(name[1:]).decode()
    return name


def lease_key(replica_id: str) -> str:
    """Return the key of a replica's lease."""
    return f"replica.{replica_id}"


def encode(value: Struct) -> bytes:
    """Encode an entry or a lease."""
    return msgspec.json.encode(value)
