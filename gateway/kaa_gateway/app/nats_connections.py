"""The connections of one worker to NATS, and the streams behind its durable extension instances."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from kaa_gateway.bus import subjects
from kaa_gateway.bus.connector import Connector, TlsOptions
from kaa_gateway.bus.control import Control
from kaa_gateway.bus.credentials import Credentials
from kaa_gateway.bus.durable import DurableLanes
from kaa_gateway.bus.link import Link
from kaa_gateway.bus.streams import Streams, StreamSettings

if TYPE_CHECKING:
    import asyncio

    from kaa_gateway.config import Config
    from kaa_gateway.kp.downlink import Downlink


class NatsConnections:
    """The link, which carries messages of devices, the control connection, and what keeps them connected.

    Answers and pushes for this replica come to the subject `reply_to`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, replica_id: str, reply_to: str
    ) -> None:
        self._config = config
        self._reply_to = reply_to
        self._durable_instances = sorted(
            each.name for each in config.extension_instances.values() if each.durable
        )
        nats, name = config.nats, config.service.instance.name
        tls = TlsOptions(
            nats.tls.ca_file, nats.tls.cert_file, nats.tls.key_file, handshake_first=nats.tls.handshake_first
        )
        credentials = Credentials(nats.credentials_file) if nats.credentials_file else None
        self.link = Link(
            loop,
            (reply_to, subjects.service(name, "esp", subjects.EXTENSION_DATA)),
            nats.max_pending_bytes,
            nats.ping_timeout,
            self._on_link_lost,
        )
        self.connector = Connector(
            self.link, nats.urls, name=f"{name} {replica_id} link", tls=tls, credentials=credentials
        )
        self.control = Control(
            nats.urls,
            name=f"{name} {replica_id} control",
            tls=tls,
            credentials=credentials,
            jetstream_domain=nats.jetstream_domain,
        )
        durable = config.durable
        self.streams = Streams(
            self.control.request,
            self._durable_instances,
            StreamSettings(
                storage=durable.storage,
                replicas=durable.replicas,
                max_bytes=durable.max_bytes,
                max_age=durable.max_age,
                discard=durable.discard,
                duplicate_window=durable.duplicate_window,
            ),
            nats.jetstream_domain,
        )

    def make_lanes(self, downlink: Downlink) -> DurableLanes:
        """Return what publishes to the streams of durable extension instances."""
        return DurableLanes(
            self.link,
            downlink,
            [
                (instance, subjects.stream(instance), subjects.service(instance, "esp", subjects.CLIENT_DATA))
                for instance in self._durable_instances
            ],
            self._reply_to,
            self._config.durable.max_pending_bytes,
            self._config.durable.ack_timeout,
            secrets.randbits(32),
        )

    def _on_link_lost(self, sentence: str) -> None:
        self.connector.on_lost(sentence)
