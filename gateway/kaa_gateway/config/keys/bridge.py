"""The keys of `kaa.kpc.bridge`: devices that are on another MQTT broker."""

from typing import Annotated

from msgspec import Meta, field

from kaa_gateway.config.keys.mqtt import MQTT_MAX_PACKET_SIZE
from kaa_gateway.config.keys.units import DAY, MANY, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    Boolean,
    BrokerUrl,
    Integer,
    Name,
    OptionalPath,
    Seconds,
    Size,
    TopicFilters,
    TopicTemplate,
)


class BridgeMapping(Section, frozen=True, kw_only=True):
    """Topics of one shape that stand for topics of another."""

    source: Annotated[
        TopicTemplate,
        Meta(description="Template of the topics: levels may be `{name}`, and the last one `#`."),
    ] = ""
    target: Annotated[
        TopicTemplate, Meta(description="Template of what they become, with the same names.")
    ] = ""


class Bridge(Section, frozen=True, kw_only=True):
    """Devices on an existing MQTT broker."""

    enabled: Annotated[Boolean, Meta(description="Whether to take over devices that are on a broker.")] = (
        False
    )
    url: Annotated[
        BrokerUrl,
        Meta(description="The broker: `mqtt://[user:password@]host[:port]`, or `mqtts://` with TLS."),
    ] = "mqtt://localhost:1883"
    ca_file: Annotated[
        OptionalPath, Meta(description="Certificate authorities of the broker, PEM; nothing: the system's.")
    ] = None
    cert_file: Annotated[
        OptionalPath, Meta(description="Certificate that the bridge shows to the broker, PEM.")
    ] = None
    key_file: Annotated[OptionalPath, Meta(description="Private key of that certificate, PEM.")] = None
    share: Annotated[
        Name, Meta(description="Name of the shared subscription. Bridges with the same name share the load.")
    ] = "kaa"
    topics: Annotated[
        TopicFilters, Meta(description="Topic filters that the bridge subscribes to, beside those of `up`.")
    ] = ("kp1/#",)
    up: dict[Name, BridgeMapping] = field(default_factory=dict)
    down: dict[Name, BridgeMapping] = field(default_factory=dict)
    receive_maximum: Annotated[
        Integer,
        Meta(
            ge=1,
            le=65_535,
            description="Messages of QoS 1 that NATS does not have yet; the broker keeps others.",
        ),
    ] = 1000
    session_expiry: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=30 * DAY,
            description="Seconds for which the broker keeps messages for a bridge that is away.",
        ),
    ] = 3600.0
    keep_alive: Annotated[
        Seconds, Meta(ge=1, le=3600, description="Seconds between pings to the broker.")
    ] = 30.0
    endpoints: Annotated[
        Integer, Meta(ge=1, le=MANY, description="Endpoints that one worker remembers; the idlest goes.")
    ] = 100_000
    queued_messages: Annotated[
        Integer,
        Meta(
            ge=1,
            le=MANY,
            description="Answers and pushes that the broker has not acknowledged; more are dropped.",
        ),
    ] = 10_000
    queued_bytes: Annotated[Size, Meta(ge=KiB, description="Bytes of the payloads of these.")] = 64 * MiB
    max_packet_size: Annotated[
        Size,
        Meta(
            ge=KiB,
            le=MQTT_MAX_PACKET_SIZE,
            description="Largest packet that the broker may send; it drops larger ones.",
        ),
    ] = 256 * KiB
