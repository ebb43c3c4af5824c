"""What the processes of a fleet soak must agree on: names, topics, and the form of records."""

import struct

INSTANCE = "kpc-fleet"
APPLICATION, APP_VERSION = "fleet", "fleet_v1"
EXTENSION = "fleet"
GATEWAYS, WORKERS = 3, 2
RECORD = struct.Struct(">II")
"""The numbers of a client and of its message."""
PUSH_PATHS = ("qos2", "qos1")
"""The resource path, and so the QoS, of a push: by its number modulo two."""
ANSWER = "answer"
PUSH = "push"


def token_of(client: int) -> str:
    """Return the client identifier of a client, which is also its token and its endpoint ID."""
    return f"fleet-{client}"


def client_of(token: str) -> int:
    """Return the number of a client."""
    return int(token.removeprefix("fleet-"))


def source_of(client: int) -> str:
    """Return the address of a client, in 127.0.0.0/8."""
    return f"127.{1 + client // 62_500}.{client // 250 % 250}.{client % 250 + 1}"


def replica_of(gateway: int) -> str:
    """Return the replica ID of a gateway. Its workers have the same with their numbers."""
    return f"gateway-{gateway}"
