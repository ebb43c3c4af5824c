"""The keys of `kaa.kpc.transports.proxy-protocol`."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Networks, Seconds

ListenerName = Literal[
    "mqtt", "mqtts", "ws", "wss", "http", "https", "coap", "coaps", "coap+tcp", "coaps+tcp", "coap+ws", "coaps+ws",
    "udp", "udps", "mqtt-sn", "mqtt-sns",
]  # fmt: skip
"""The name of a listener, as logs and metrics have it."""


class Proxy(Section, frozen=True, kw_only=True):
    """The PROXY protocol, by which a load balancer tells the addresses of its clients."""

    trusted_sources: Annotated[
        Networks,
        Meta(
            description="Networks of proxies that send a header of the PROXY protocol; none: it is not spoken. "
            "A connection from them must begin with a header."
        ),
    ] = ()
    listeners: Annotated[
        tuple[ListenerName, ...],
        Meta(description="Listeners that speak it, and datagrams of which begin with a header."),
    ] = ("mqtt", "mqtts", "ws", "wss", "http", "https", "coap+tcp", "coaps+tcp", "coap+ws", "coaps+ws")
    other_sources: Annotated[
        Literal["plain", "refuse"],
        Meta(
            description="`plain`: other sources are devices without a proxy, and a header of theirs breaks their "
            "protocol; `refuse`: their connections are closed and their datagrams dropped."
        ),
    ] = "plain"
    header_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=3600, description="Seconds that a proxy has to send the header.")
    ] = 5.0
