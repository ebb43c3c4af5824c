"""The reason codes of MQTT 5 that the gateway sends, by what has happened.

Source: MQTT Version 5.0 (OASIS Standard) sections 2.4 and 4.13; 1/KP, status codes.
"""

from __future__ import annotations

from typing import Final

NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
PROTOCOL_ERROR: Final = 0x82
SERVER_SHUTTING_DOWN: Final = 0x8B
USE_ANOTHER_SERVER: Final = 0x9C
SERVER_MOVED: Final = 0x9D

DISCONNECT_CODES: Final = {
    "mqtt_packet_of_the_server": PROTOCOL_ERROR,
    "mqtt_second_connect": PROTOCOL_ERROR,
    "mqtt_auth": PROTOCOL_ERROR,
    "mqtt_empty_topic": PROTOCOL_ERROR,
    "mqtt_duplicate_property": PROTOCOL_ERROR,
    "mqtt_property_value": PROTOCOL_ERROR,
    "mqtt_wildcard_in_response_topic": PROTOCOL_ERROR,
    "mqtt_subscription_identifier_of_client": PROTOCOL_ERROR,
    "mqtt_retain_handling": PROTOCOL_ERROR,
    "mqtt_malformed_requested_qos": PROTOCOL_ERROR,
    "mqtt_shared_no_local": PROTOCOL_ERROR,
    "mqtt_session_expiry_after_0": PROTOCOL_ERROR,
    "mqtt_no_topic_filter": PROTOCOL_ERROR,
    "mqtt_authentication_data": PROTOCOL_ERROR,
    "mqtt_identifier_rejected": 0x85,
    "mqtt_authentication_method": 0x8C,
    "mqtt_keep_alive_timeout": 0x8D,
    "mqtt_taken_over": 0x8E,
    "mqtt_receive_maximum": 0x93,
    "mqtt_topic_alias": 0x94,
    "mqtt_topic_alias_unknown": PROTOCOL_ERROR,
    "mqtt_packet_too_large": 0x95,
    "mqtt_packet_size_of_client": 0x95,
    "input_memory_full": 0x97,
    "mqtt_input_memory_full": 0x97,
    "mqtt_too_many_user_properties": 0x97,
    "disconnected_by_operator": 0x98,
    "mqtt_payload_format": 0x99,
    "mqtt_retain": 0x9A,
}
"""Codes of CONNACK and DISCONNECT by the reason that metrics count; MALFORMED_PACKET for any other violation."""

MALFORMED_PACKET: Final = 0x81

STATUS_CODES: Final = {
    401: NOT_AUTHORIZED,
    403: NOT_AUTHORIZED,
    404: 0x90,
    413: 0x97,
    429: 0x97,
    503: 0x80,
}
"""Codes of PUBACK and PUBREC by the HTTP status of a refusal.

Packet too large (0x95) is no code of these packets (MQTT 5, tables 3-4 and 3-5); clients close the connection for it.
"""

OTHER_STATUS: Final = 0x83
"""The code of any other status: implementation specific error."""


def code_of_violation(reason: str) -> int:
    """Return the code with which a connection ends for a violation."""
    return DISCONNECT_CODES.get(reason, MALFORMED_PACKET)


def code_of_end(reason: str) -> int:
    """Return the code with which the gateway ends a connection for a reason of its own: by default, a revocation."""
    return DISCONNECT_CODES.get(reason, NOT_AUTHORIZED)


def code_of_status(status: int) -> int:
    """Return the code of an acknowledgement that refuses a message with this status."""
    return STATUS_CODES.get(status, OTHER_STATUS)
