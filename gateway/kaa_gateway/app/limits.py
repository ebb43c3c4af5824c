"""The limits of the configuration, in the form that connections, sources and MQTT sessions need."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from kaa_gateway.mqtt.limits import MqttLimits

if TYPE_CHECKING:
    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import Limits


class AdmissionLimits(TypedDict):
    """The limits of an Admission."""

    half_open_max: int
    message_rate: float
    byte_rate: float
    source_connections: int
    source_message_rate: float
    source_byte_rate: float


def admission_limits_of(limits: Limits) -> AdmissionLimits:
    """Return the limits of connections and sources."""
    return AdmissionLimits(
        half_open_max=limits.half_open_connections,
        message_rate=limits.messages_per_second,
        byte_rate=limits.bytes_per_second,
        source_connections=limits.connections_per_source,
        source_message_rate=limits.messages_per_second_of_source,
        source_byte_rate=limits.bytes_per_second_of_source,
    )


def mqtt_limits_of(config: Config) -> MqttLimits:
    """Return the limits of MQTT sessions."""
    mqtt, limits = config.transports.mqtt, config.limits
    return MqttLimits(
        mqtt.in_flight_window,
        mqtt.queued_messages_per_session,
        limits.output_buffer,
        mqtt.subscriptions_per_client,
        limits.topic_length,
        mqtt.persistent_sessions,
        mqtt.session_expiry,
        mqtt.persistent_session_memory,
    )
