"""MQTT-SN: messages of clients, and what is sent to them. See mqtt_sn.pyx."""

from typing import Any

MALFORMED_REASONS: tuple[str, ...]

def decode(datagram: bytes) -> tuple[int, dict[str, Any]]: ...
def advertise(gateway_id: int, duration: int) -> bytes: ...
