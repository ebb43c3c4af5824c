"""MQTT packets as Python objects. See mqtt_packets.pyx."""

from typing import NamedTuple

LEVEL_3_1: int
LEVEL_3_1_1: int
LEVEL_5: int

class Will(NamedTuple):
    topic: str
    message: bytes
    qos: int = 0
    retain: bool = False

class Connect(NamedTuple):
    client_id: str
    clean_session: bool = True
    keep_alive: int = 60
    will: Will | None = None
    user_name: str | None = None
    password: bytes | None = None
    level: int = 4

class Connack(NamedTuple):
    session_present: bool
    return_code: int
    topic_alias_maximum: int = 0

class Publish(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False
    topic_alias: int = 0
    response_topic: str | None = None
    correlation_data: bytes | None = None
    status_code: int = 0

class Puback(NamedTuple):
    packet_id: int
    reason_code: int = 0

class Pubrec(NamedTuple):
    packet_id: int

class Pubrel(NamedTuple):
    packet_id: int

class Pubcomp(NamedTuple):
    packet_id: int

class Subscribe(NamedTuple):
    packet_id: int
    topic_filters: tuple[tuple[str, int], ...]

class Suback(NamedTuple):
    packet_id: int
    return_codes: tuple[int, ...]

class Unsubscribe(NamedTuple):
    packet_id: int
    topic_filters: tuple[str, ...]

class Unsuback(NamedTuple):
    packet_id: int

class Pingreq(NamedTuple): ...
class Pingresp(NamedTuple): ...

class Disconnect(NamedTuple):
    reason_code: int = 0

Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
)

def decode(
    data: bytes | bytearray | memoryview, level: int = 4, size_max: int = 268435455
) -> tuple[Packet | None, int]: ...
def encode(packet: Packet, level: int = 4) -> bytes: ...
