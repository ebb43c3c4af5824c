"""The native parts of a worker without an event loop, NATS or time: a test moves each byte and each answer itself.

Uplink, downlink, router and sessions are spoken to by C pointers only, so a test reaches them where they meet Python:
MQTT bytes at one end, the bytes of the NATS link at the other, futures of identity in between.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Self, TypeVar

from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.bus import subjects
from kaa_gateway.bus.link import Link
from kaa_gateway.counters import Counters
from kaa_gateway.errors import IdentityError
from kaa_gateway.fleet.directory import SessionDirectory
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.identity.provider import Identity
from kaa_gateway.kp.correlation import Correlator
from kaa_gateway.kp.downlink import Downlink
from kaa_gateway.kp.revocation import Revocation
from kaa_gateway.kp.router import Router
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.mqtt.limits import MqttLimits
from kaa_gateway.mqtt.server import MqttServer
from kaa_gateway.mqtt.session_store import MqttSessionStore
from kaa_gateway.net.admission import Admission
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.transport import ProtocolServer
from kaa_gateway.slices import Slices
from kaa_gateway.wire import esp

from tests.support.nats import HOST
from tests.unit.kp.device_double import DEVICE_HOST, Device
from tests.unit.kp.loop_double import Loop

APP = "app_v1"
OTHER_APP = "app_v2"
NAMED = frozenset({"cmx"})
"""The extension instances that get the names of configurations."""
TENANT = "acme"
"""Whose application APP is; OTHER_APP is nobody's."""
ANONYMOUS_CLIENT = Client()
UNLIMITED: dict[str, Any] = {
    "half_open_max": 1000,
    "message_rate": 0,
    "byte_rate": 0,
    "source_connections": 0,
    "source_message_rate": 0,
    "source_byte_rate": 0,
}
REPLICA = "replica-1"
REPLY_TO = subjects.replica(REPLICA, "esp", subjects.EXTENSION_DATA)
PUBLICATION = re.compile(rb"H?PUB ([^ ]+) ([^ ]+) (?:([0-9]+) )?([0-9]+)\r\n")
PING = b"PING\r\n"

Result = TypeVar("Result")


class Published(NamedTuple):
    subject: str
    data: esp.ClientData


class Transport:
    """What the link wants of a transport."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Bytes as the loop brings them."""
    while data:
        buffer = memoryview(protocol.get_buffer(-1))
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


class Presence:
    """The endpoints that the sessions say can be reached."""

    def __init__(self) -> None:
        self.endpoints: set[str] = set()

    def appeared(self, endpoint_id: str, app_version_name: str) -> None:
        assert endpoint_id not in self.endpoints
        self.endpoints.add(endpoint_id)

    def disappeared(self, endpoint_id: str, app_version_name: str) -> None:
        self.endpoints.remove(endpoint_id)


class WorkerDouble:
    """One worker. Extensions `dcx` and `cmx` have endpoints, `tsx` has none; `app_v2` may use `dcx` only."""

    def __init__(
        self,
        *,
        endpoints_per_session: int = 100,
        route_cache: int = 100,
        waiting: int = 100,
        pending_max: int = 2**20,
        admission: Mapping[str, Any] | None = None,
        packet_size: int = 65_536,
        session_bytes: int = 1 << 20,
        stored_bytes: int = 1 << 24,
        keep_alive_max: float = 0,
        server_reference: str | None = None,
        client_authentication: str = "required",
        make_directory: Callable[[Link, Slices, Counters], SessionDirectory] | None = None,
    ) -> None:
        self.loop = Loop()
        self.presence = Presence()
        self.counters = Counters(endings_kept=0)
        loop: Any = self.loop
        self.slices = Slices(loop)
        self.sessions = Sessions(
            self.counters,
            self.slices,
            self.presence,
            endpoints_per_session,
            idle_timeout=0,
            watched_max=1,
        )
        versions = {APP: frozenset({"dcx", "cmx", "tsx"}), OTHER_APP: frozenset({"dcx"})}
        aware = {"dcx": True, "cmx": True, "tsx": False}
        self.revocation = Revocation(self.sessions)
        self.router = Router(self.sessions, versions, aware, {APP: TENANT}, NAMED, REPLICA, route_cache, 1024)
        self.correlator = Correlator(0xABCDEF, 0)
        self.losses: list[str] = []
        self.link = Link(loop, (REPLY_TO,), pending_max, 5.0, self.losses.append)
        self.asked: list[tuple[str, Future[Identity]]] = []
        self.uplink = Uplink(
            self.link,
            self.router,
            self.sessions,
            self.correlator,
            self.counters,
            self._resolve,
            waiting,
            65_536,
        )
        self.downlink = Downlink(self.uplink, self.router, self.sessions, self.correlator, self.counters)
        self.link.set_listener(self.downlink)
        limits = MqttLimits(20, 100, session_bytes, 100, 1024, 100, 3600.0, stored_bytes)
        self.directory = (
            None if make_directory is None else make_directory(self.link, self.slices, self.counters)
        )
        self.stored = MqttSessionStore(self.sessions, limits, self.directory)
        self.mqtt = MqttServer(
            loop, self.uplink, self.sessions, self.stored, self.counters, self, limits,
            packet_size_max=packet_size, connect_timeout=10.0, keep_alive_max=keep_alive_max,
            receive_maximum=10, topic_alias_maximum=8, server_reference=server_reference,
            client_authentication=client_authentication,
        )  # fmt: skip
        if admission is not None:
            self.admission = Admission(self.counters, **{**UNLIMITED, **admission})
        self._limited = admission is not None
        self.listener: TcpListener | None = None
        self.listen(self.mqtt, "mqtt")
        self._admissions: list[Future[Client]] = []
        self._devices: list[Device] = []
        self.connect_nats()

    def listen(
        self,
        server: ProtocolServer,
        protocol: str,
        make_listener: Callable[..., TcpListener] = TcpListener,
    ) -> None:
        """Serve devices by this server, and no others."""
        self.close()
        loop: Any = self.loop
        self.listener = make_listener(
            loop,
            server,
            self.counters,
            protocol=protocol,
            output_max=2**20,
            connections_max=1000,
            admission=self.admission if self._limited else None,
        )
        self.listener.start(HOST, 0, reuse_port=False)

    def connect_nats(self, *, headers: bool = True, payload_max: int = 2**20) -> None:
        """A new connection to NATS, whose handshake is done."""
        self._nats = self.link.begin()
        self._nats_transport = Transport()
        self._nats.connection_made(self._nats_transport)  # type: ignore[arg-type]
        self.link.resume(payload_max, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for device in self._devices:
            device.close_sockets()
        self.close()

    def close(self) -> None:
        """End every connection; those that are left have no time for it."""
        if self.listener is not None:
            with contextlib.suppress(StopIteration):
                self.listener.stop(0.0).send(None)

    def in_slices(self, steps: Generator[int, None, Result]) -> Result:
        """Do some work in slices, and return its result."""
        results: list[Result] = []
        self.slices.run(steps, results.append)
        self.loop.run()
        return results[0]

    def _resolve(self, app_version_name: str, token: str) -> Any:
        future: Future[Identity] = Future()
        self.asked.append((token, future))
        return future

    def authenticate(self, presentation: Presentation) -> Any:
        """What the transport asks of an authenticator."""
        future: Future[Client] = Future()
        self._admissions.append(future)
        return future

    # ------------------------------------------------------------ devices

    def device(
        self,
        client_id: str = "",
        *,
        clean: bool = True,
        client: Client = ANONYMOUS_CLIENT,
        will: mqtt.Will | None = None,
        keep_alive: int = 0,
        host: str = DEVICE_HOST,
    ) -> Device:
        """A client that is connected, and was admitted as `client`."""
        device = self.unconnected(host)
        device.send(mqtt.Connect(client_id, clean, keep_alive, will))
        self.admit(client)
        assert isinstance(device.received()[0], mqtt.Connack)
        return device

    def unconnected(self, host: str = DEVICE_HOST) -> Device:
        """A connection over which nothing was sent yet."""
        assert self.listener is not None
        device = Device(self.loop, self.listener, host)
        self._devices.append(device)
        return device

    def admit(self, client: Client = ANONYMOUS_CLIENT) -> None:
        """Admit the client whose CONNECT came last."""
        self._admissions.pop().set_result(client)

    def refuse_client(self, error: IdentityError) -> None:
        """Refuse the client whose CONNECT came last."""
        self._admissions.pop().set_exception(error)

    def check(self) -> None:
        """What happens about once a second."""
        assert self.listener is not None
        self.listener.check()
        self.loop.run()

    def identify(self, endpoint_of: Callable[[str], str] = "endpoint-{}".format) -> None:
        """Answer every open question for a token; `endpoint_of` gives the endpoint ID, or "" to refuse it."""
        asked, self.asked = self.asked, []
        for token, future in asked:
            if endpoint_id := endpoint_of(token):
                future.set_result(Identity(endpoint_id))
            else:
                future.set_exception(IdentityError(401, "token_rejected", "Unknown token"))

    def answer(self, identity_of: Callable[[str], Identity | int | None]) -> None:
        """Answer every open question for a token, None being 401, and a number the status of a refusal."""
        asked, self.asked = self.asked, []
        for token, future in asked:
            identity = identity_of(token)
            if isinstance(identity, Identity):
                future.set_result(identity)
            else:
                future.set_exception(IdentityError(identity or 401, "token_rejected"))
        self.loop.run()

    # ------------------------------------------------------------ NATS

    def published(self) -> list[Published]:
        """What has gone to NATS since the last call, of which nothing has a header."""
        found = self.published_with_headers()
        assert not any(header for header, _ in found)
        return [publication for _, publication in found]

    def published_with_headers(self) -> list[tuple[bytes, Published]]:
        """What has gone to NATS since the last call, each with its header, which is empty of a PUB."""
        self.loop.run()
        data, self._nats_transport.written = self._nats_transport.written, b""
        publications = []
        while data:
            if data.startswith(PING):
                data = data[len(PING) :]
                continue
            line = PUBLICATION.match(data)
            assert line is not None, data[:80]
            assert line[2].decode() == REPLY_TO
            end = line.end() + int(line[4])
            assert data[end : end + 2] == b"\r\n"
            header_end = line.end() + int(line[3] or 0)
            publication = Published(line[1].decode(), esp.decode_client_data(data[header_end:end]))
            publications.append((data[line.end() : header_end], publication))
            data = data[end + 2 :]
        return publications

    def confirm(self) -> None:
        """NATS answers the PING behind every block that it was sent."""
        self.loop.run()
        while self.link.backlog:
            feed(self._nats, b"PONG\r\n")
            self.loop.run()

    def deliver(self, datum: bytes, reply: str | None = None) -> None:
        """An ExtensionData, or something else, arrives from NATS."""
        to = f" {reply}" if reply else ""
        feed(self._nats, f"MSG {REPLY_TO} 1{to} {len(datum)}\r\n".encode() + datum + b"\r\n")
        self.loop.run()

    def answer_to(self, data: esp.ClientData, payload: bytes = b"") -> None:
        """The extension has done what a device asked for."""
        version, path, request_id = data.app_version_name, data.resource_path, data.request_id
        datum = esp.ExtensionData(
            data.correlation_id, 0, 0, version, "dcx", data.endpoint_id, path, request_id, payload, 200, None
        )
        self.deliver(esp.encode_extension_data(*datum))

    def from_nats(self, data: bytes) -> None:
        """Any bytes arrive from NATS."""
        feed(self._nats, data)
        self.loop.run()

    def no_responders(self, subject: str) -> None:
        """NATS reports that nobody listens to a subject."""
        header = f"NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n".encode()
        feed(self._nats, b"HMSG %b 1 %d %d\r\n%b\r\n" % (REPLY_TO.encode(), len(header), len(header), header))
        self.loop.run()

    def reason(self, event: str, reason: str) -> int:
        return self.counters.by_reason().get((event, reason), 0)
