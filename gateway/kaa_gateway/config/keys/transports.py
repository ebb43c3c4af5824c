"""The keys of `kaa.kpc.transports`."""

from typing import Annotated

from msgspec import Meta, field

from kaa_gateway.config.keys.coap import Coap
from kaa_gateway.config.keys.http import Http
from kaa_gateway.config.keys.mqtt import Mqtt
from kaa_gateway.config.keys.mqtt_sn import MqttSn
from kaa_gateway.config.keys.protocols import PluginProtocol
from kaa_gateway.config.keys.proxy import Proxy
from kaa_gateway.config.keys.udp import Udp
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Address, Name


class Transports(Section, frozen=True, kw_only=True):
    """The listeners for devices."""

    bind_address: Annotated[
        Address,
        Meta(
            description="Address that all listeners bind to; `::` is all of IPv6, `*` all of IPv4 and IPv6."
        ),
    ] = "0.0.0.0"
    proxy_protocol: Proxy = Proxy()
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    coap: Coap = Coap()
    udp: Udp = Udp()
    mqtt_sn: MqttSn = MqttSn()
    protocols: dict[Name, PluginProtocol] = field(default_factory=dict)
