"""The keys of `kaa.kpc.transports.mqtt-sn`."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.identity import ClientAuthentication
from kaa_gateway.config.keys.tls import DatagramTls
from kaa_gateway.config.keys.units import MANY, GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    Boolean,
    Integer,
    MulticastGroup,
    Port,
    PredefinedTopicList,
    Seconds,
    Size,
)


class MqttSnDtls(DatagramTls, frozen=True, kw_only=True):
    """MQTT-SN over DTLS 1.2."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT-SN over DTLS 1.2.")] = False
    port: Annotated[Port, Meta(description="UDP port of MQTT-SN over DTLS.")] = 8884
    client_authentication: ClientAuthentication = "off"


class MqttSn(Section, frozen=True, kw_only=True):
    """The MQTT-SN server. Sessions and queues have the bounds of `mqtt`."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for MQTT-SN over UDP.")] = False
    port: Annotated[Port, Meta(description="UDP port of MQTT-SN.")] = 1884
    dtls: MqttSnDtls = MqttSnDtls()
    predefined_topics: Annotated[
        PredefinedTopicList,
        Meta(
            description="Topic IDs that devices know without REGISTER, each as `ID=topic`. "
            "`{client-id}` in a topic stands for the client ID of the device."
        ),
    ] = ()
    gateway_id: Annotated[
        Integer, Meta(ge=0, le=255, description="ID of the gateway in ADVERTISE and GWINFO.")
    ] = 1
    multicast_group: Annotated[
        MulticastGroup,
        Meta(
            description="IPv4 group in which SEARCHGW is heard and ADVERTISE is sent, at the listener's port. "
            "Nothing is none."
        ),
    ] = None
    advertise_interval: Annotated[
        Seconds, Meta(ge=1, le=65_535, description="Seconds between two ADVERTISE.")
    ] = 900.0
    max_keep_alive: Annotated[
        Seconds,
        Meta(
            ge=0, le=65_535, description="Longest keep-alive, also for clients that ask for none; 0 is any."
        ),
    ] = 3600.0
    connect_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=3600, description="Seconds that CONNECT may take, with its will.")
    ] = 30.0
    retry_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=3600, description="Seconds until a message is sent again (Tretry).")
    ] = 10.0
    retries: Annotated[
        Integer, Meta(ge=0, le=100, description="How often a message is sent again; then its client is lost.")
    ] = 3
    peers: Annotated[
        Integer,
        Meta(ge=8, le=MANY, description="Clients of one worker; one more is told that there is congestion."),
    ] = 100_000
    registered_topics: Annotated[
        Integer,
        Meta(ge=1, le=65_534, description="Topic IDs that one client may have beside predefined ones."),
    ] = 256
    topic_memory: Annotated[
        Size,
        Meta(
            ge=4 * KiB,
            le=GiB,
            description="Memory of a worker for the registered topics of its clients, 256 bytes and the topic each.",
        ),
    ] = 64 * MiB
    buffered_messages: Annotated[
        Integer,
        Meta(ge=0, le=MANY, description="QoS 0 messages that wait for one client, such as one that sleeps."),
    ] = 100
    buffered_bytes: Annotated[Size, Meta(ge=0, le=GiB, description="Bytes of the payloads of these.")] = (
        64 * KiB
    )
    max_message_size: Annotated[
        Size,
        Meta(
            ge=60,
            le=65_507,
            description="Largest message to a client, in bytes, and from one if it is no PUBLISH; "
            "a larger one is dropped.",
        ),
    ] = 1400
