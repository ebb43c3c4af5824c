"""A worker with all its transports that a byte string plays: what devices send, and what happens around them.

An input is a sequence of steps. A byte below 0x80 says how many bytes (less one) of what follows the current device
sends in one read, or one datagram; one from 0xC0 on says it in units of 32 bytes; those between are events, `EVENTS`.
Whatever was played, at the end all devices go and time passes, and then nothing may be left of them. That holds for
every input, so a Simulation is used again and again, and its memory must not grow.
"""

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

from kaa_gateway.bus import subjects
from kaa_gateway.coap.server import CoapServer
from kaa_gateway.coap.stream_server import CoapStreamServer
from kaa_gateway.config.keys import Http
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kpudp.server import KpudpServer
from kaa_gateway.mqtt_sn.server import MqttSnServer
from kaa_gateway.mqtt_sn.settings import MqttSnSettings
from kaa_gateway.mqtt_sn.topics import TopicMemory
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.transport import ProtocolServer
from kaa_gateway.net.udp import UdpSocket
from kaa_gateway.net.websocket import WebSocketServer
from kaa_gateway.plugins.datagrams import DatagramPeers
from kaa_gateway.plugins.server import PluginServer
from kaa_gateway.wire.esp import ClientData, ExtensionData, encode_extension_data

from tests.support.http_server import http_server
from tests.support.line_protocol import Lines
from tests.support.nats import HOST
from tests.unit.kp.device_double import DEVICE_HOST, Peer
from tests.unit.kp.worker_double import APP, Published, WorkerDouble

RECEIVED_KEPT = 4096
STRANGER = "stranger"
"""A user name whose password is always wrong."""
EVENT, LONG, UNIT = 0x80, 0xC0, 32
DEVICES_MAX = 4
BOUNDS: dict[str, Any] = {
    "endpoints_per_session": 4,
    "route_cache": 8,
    "waiting": 4,
    "pending_max": 16 * 1024,
    "keep_alive_max": 3600.0,
}
ADMISSION = {"half_open_max": 3, "source_connections": 4, "message_rate": 500, "source_byte_rate": 100_000}
SUBJECTS = {subjects.service(name, "esp", subjects.CLIENT_DATA) for name in ("dcx", "cmx", "tsx")}
MQTT_EXPIRY_S = 3600.0
UDP_EXPIRY_S = 600.0
OBSERVER_EXPIRY_S = 90_000.0
COAP: dict[str, Any] = {
    "piggyback_delay": 0.1, "response_timeout": 10.0, "ack_timeout": 2.0, "pending_requests": 8, "max_body_size": 2048,
    "block_memory": 8192, "transfers_per_peer": 2, "peers": 3, "exchanges": 16, "exchanges_per_peer": 8,
    "outstanding_per_peer": 4,
    "observers": 4, "observers_per_peer": 2, "max_wait": 20.0, "requests_per_second": 0.0, "require_echo": False,
}  # fmt: skip
PLUGIN: dict[str, Any] = {
    "app_version": APP, "max_message_size": 256, "login_timeout": 10.0, "idle_timeout": 50.0
}  # fmt: skip
MQTT_SN: dict[str, Any] = {
    "gateway_id": 1, "retry_timeout": 1.0, "retries": 2, "connect_timeout": 10.0, "peers": 3, "topics": 4,
    "buffered_messages": 2, "buffered_bytes": 100, "message_size": 200,
    "predefined": {1: "kp1/app_v1/dcx/t/json", 2: "kp1/app_v1/dcx/{client-id}/json"},
}  # fmt: skip
COAP_STREAM: dict[str, Any] = {
    "authenticate": None, "alternative_address": None, "csm_timeout": 10.0, "ping_after": 30.0,
    "response_timeout": 10.0, "pending_requests": 8, "max_body_size": 2048, "block_memory": 8192,
    "transfers_per_peer": 2, "outstanding_per_peer": 4, "observers": 4, "observers_per_peer": 2,
    "max_wait": 20.0, "requests_per_second": 0.0,
}  # fmt: skip
KPUDP = {"peers": 8, "peer_timeout": 300.0, "ack_timeout": 0.5, "unacknowledged": 12}


class StreamDevice:
    """A device at the other end of a connection."""

    def __init__(self, listener: TcpListener) -> None:
        self._peer = Peer(listener, DEVICE_HOST)
        self._gone = False
        self.received = b""

    def send(self, data: bytes) -> None:
        if not self._gone:
            self._peer.send(data)

    def look(self) -> None:
        """Take what has come, and go if the gateway has closed the connection."""
        if self._gone:
            return
        self.received = (self.received + self._peer.look())[-RECEIVED_KEPT:]
        if self._peer.closed:
            self.go()

    def go(self) -> None:
        self._gone = True
        self._peer.go()


class DatagramDevice:
    """A device that sends datagrams from an address of its own."""

    def __init__(self, server: UdpSocket) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect((HOST, server.port))
        self.received = 0

    def send(self, data: bytes) -> None:
        self._socket.send(data)
        self._server.on_readable()

    def look(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(65_536):
                self.take(data)

    def take(self, data: bytes) -> None:
        """A datagram has come."""
        self.received += len(data)

    def go(self) -> None:
        self._socket.close()


class Simulation(WorkerDouble):
    """Devices of one transport. Those of `http clients` must show credentials, about which IDENTIFY tells."""

    def __init__(self, protocol: str) -> None:
        super().__init__(**BOUNDS, admission=ADMISSION)
        self._protocol = protocol
        self._events: Sequence[Callable[[Any], object]] = EVENTS
        loop: Any = self.loop
        self._players: list[StreamDevice | DatagramDevice] = []
        self._current = 0
        self._latest: ClientData | None = None
        self.forwarded: list[Published] = []
        self._timeouts: list[PendingRequests] = []
        self._datagrams: UdpSocket | None = None
        self._core: Any = None
        self._coap_streams: CoapStreamServer | None = None
        self._make: Callable[[], StreamDevice | DatagramDevice]
        versions = {APP: frozenset({"dcx", "cmx", "tsx"})}
        self._strangers: set[Any] = set()
        if protocol in ("http", "http clients"):
            pending = PendingRequests(6, 10.0)
            settings = Http(
                max_body_size=2048,
                max_header_size=1024,
                max_url_length=256,
                pipelined_requests=4,
                client_authentication="required" if protocol == "http clients" else "off",
            )
            transport = http_server(self, pending, settings)
            self.listen(transport, "http")
            self._timeouts.append(pending)
        elif protocol == "websocket":
            carrier = WebSocketServer(
                loop, self.mqtt, self.counters, frame_size_max=4096, handshake_timeout=10.0
            )
            self.listen(carrier, "mqtt")
        elif protocol == "coap":
            self._core = CoapServer(
                self.uplink,
                self.sessions,
                self.counters,
                versions,
                **COAP,
                now=loop.time(),
            )
            self._timeouts.append(self._core.pending)
        elif protocol in ("coap stream", "coap websocket"):
            self._coap_streams = CoapStreamServer(
                loop, self.uplink, self.sessions, self.counters, versions, **COAP_STREAM
            )
            streams: ProtocolServer = self._coap_streams
            if protocol == "coap websocket":
                streams = WebSocketServer(
                    loop,
                    streams,
                    self.counters,
                    paths=["/.well-known/coap"],
                    subprotocols=(b"coap",),
                    keeps_messages=True,
                    frame_size_max=4096,
                    handshake_timeout=10.0,
                )
            self.listen(streams, "coap")
            self._timeouts.append(self._coap_streams.pending)
        elif protocol == "kpudp":
            pending = PendingRequests(10, 10.0)
            self._core = KpudpServer(
                loop,
                self.uplink,
                self.sessions,
                pending,
                self.counters,
                **KPUDP,  # type: ignore[arg-type]
            )
            self._timeouts.append(pending)
        elif protocol in ("plug-in", "plug-in datagrams"):
            pending = PendingRequests(6, 10.0)
            plugin = PluginServer(loop, "lines", Lines, self.uplink, self.sessions, pending, self.counters)
            plugin.configure(dict(Lines.options_with_defaults), **PLUGIN)
            self._timeouts.append(pending)
            if protocol == "plug-in":
                self.listen(plugin, "lines")
            else:
                self._core = DatagramPeers(plugin, 8)
        elif protocol == "mqtt-sn":
            self._core = MqttSnServer(
                loop,
                self.mqtt,
                self.uplink,
                self.counters,
                MqttSnSettings(**MQTT_SN),
                TopicMemory(100_000),
                encrypted=False,
            )
        if self._core is None:
            self._make = lambda: StreamDevice(self.tcp)
        else:
            self._datagrams = server = UdpSocket(loop, self._core, self.counters)
            server.limit(self.admission)
            server.start(HOST, 0, reuse_port=False)
            self._make = lambda: DatagramDevice(server)

    def send(self, data: bytes) -> None:
        """A new device sends this, and its tokens are identified."""
        self._open()
        self._players[self._current].send(data)
        self._settle()
        self.identify()
        self._settle()

    def response_to(self, data: bytes) -> bytes:
        """What a new device is sent back over its connection, the last of it."""
        self.send(data)
        device = self._players[self._current]
        assert isinstance(device, StreamDevice)
        return device.received

    def bytes_for(self, datagram: bytes) -> int:
        """How much a new device is sent for a datagram of it."""
        self.send(datagram)
        device = self._players[self._current]
        assert isinstance(device, DatagramDevice)
        return device.received

    def end(self) -> None:
        """All devices go, and nothing of them may be left."""
        self._end()

    # ------------------------------------------------------------ playing

    def play(self, data: bytes) -> None:
        """Play an input; AssertionError if something is left of it."""
        self._open()
        at = 0
        while at < len(data):
            step = data[at]
            at += 1
            if EVENT <= step < LONG:
                self._events[(step - EVENT) % len(self._events)](self)
            else:
                size = step + 1 if step < EVENT else (step - LONG + 1) * UNIT
                if self._players:
                    self._players[self._current].send(data[at : at + size])
                at += size
            self._settle()
        self._end()

    def _settle(self) -> None:
        """What happens by itself after a step."""
        self.loop.run()
        if self._protocol != "http clients":
            self._admit()
        for published in self.published():
            assert published.subject in SUBJECTS, published.subject
            self._latest = published.data
            self.forwarded.append(published)
        for player in self._players:
            player.look()
        self.loop.run()
        if not self.link.ready:
            self.connect_nats()

    def authenticate(self, presentation: Presentation) -> Any:
        """What the transport asks of an authenticator."""
        future = super().authenticate(presentation)
        if presentation.user_name == STRANGER:
            self._strangers.add(future)
        return future

    def identify(self, endpoint_of: Callable[[str], str] = "endpoint-{}".format) -> None:
        """Answer what is asked about endpoints, and about clients."""
        super().identify(endpoint_of)
        self._admit()

    def _admit(self) -> None:
        while self._admissions:
            future = self._admissions.pop(0)
            if future in self._strangers:
                future.set_exception(IdentityError(401, "credentials_rejected"))
            else:
                future.set_result(Client())
            self._strangers.discard(future)
            self.loop.run()

    def _open(self) -> None:
        if len(self._players) < DEVICES_MAX:
            self._current = len(self._players)
            self._players.append(self._make())

    def _lose(self) -> None:
        if self._players:
            self._players.pop(self._current).go()
            self._current = 0
            self.loop.run()

    def _turn(self) -> None:
        if self._players:
            self._current = (self._current + 1) % len(self._players)

    def _refuse(self) -> None:
        self.identify(lambda _: "")

    def _answer(self, **fields: Any) -> None:
        asked = self._latest
        if asked is not None:
            answer = ExtensionData(
                asked.correlation_id, 0, 0, asked.app_version_name, "dcx", asked.endpoint_id, asked.resource_path,
                asked.request_id, b"answer", 200, None,
            )  # fmt: skip
            self.deliver(encode_extension_data(*answer._replace(**fields)))

    def _nobody_serves(self) -> None:
        self.no_responders(subjects.service("dcx", "esp", subjects.CLIENT_DATA))

    def _restart_nats(self) -> None:
        self.link.abort()
        self.loop.run()
        self.connect_nats()

    @property
    def tcp(self) -> TcpListener:
        """The listener, which there is from the start."""
        assert self.listener is not None
        return self.listener

    def _pass(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        for table in self._timeouts:
            table.expire(self.loop.time())
        if self._datagrams is not None:
            self._datagrams.check()
        self.tcp.check()
        self.stored.expire(self.loop.time())
        self.loop.run()

    def _end(self) -> None:
        """All go, and everything is waited for."""
        while self._players:
            self._lose()
        self.identify()
        self.confirm()
        self._settle()
        self.confirm()
        if self._protocol in ("mqtt", "websocket"):
            self._pass(MQTT_EXPIRY_S + 1.0)  # however the sums are rounded
        elif self._protocol in ("http", "http clients", "plug-in"):
            self._pass(60.0)
        elif self._coap_streams is not None:
            self._pass(60.0)
            self._coap_streams.check()
            assert not any(self._coap_streams.table_sizes().values()), self._coap_streams.table_sizes()
        else:
            for _ in range(3):
                self._pass(UDP_EXPIRY_S if self._protocol == "kpudp" else OBSERVER_EXPIRY_S)
            self._core_is_empty()
        self.confirm()  # a pipelined request goes out when the one before it has had its time
        # A will is published when the time for the last acknowledgements is over.
        self.identify()
        self._settle()
        self.confirm()
        self._latest = None
        self.forwarded.clear()
        assert not self._strangers
        assert self.sessions.count == 0
        assert self.tcp.connection_count() == self.tcp.half_open_count() == 0
        assert not any(table.count() for table in self._timeouts)
        assert self.stored.offline_count() == 0
        assert self.link.backlog == 0
        assert not self.presence.endpoints
        assert len(self.sessions.endpoints) <= 2 * BOUNDS["route_cache"] + 2
        self.losses.clear()
        Lines.made.clear()

    def _core_is_empty(self) -> None:
        if isinstance(self._core, CoapServer):
            assert not any(self._core.table_sizes().values()), self._core.table_sizes()
        elif isinstance(self._core, DatagramPeers):
            assert self._core.count() == 0
        elif isinstance(self._core, MqttSnServer):
            assert self._core.count() == self._core.sleeping() == 0
        else:
            assert self._core.unacknowledged() == 0
            assert self._core.peers.counts() == (0, 0)


EVENTS: list[Callable[[Simulation], object]] = [
    Simulation._open,
    Simulation._lose,
    Simulation._turn,
    Simulation.confirm,
    Simulation.identify,
    Simulation._refuse,
    Simulation._answer,
    lambda simulation: simulation._answer(status_code=404, payload=None),
    lambda simulation: simulation._answer(payload=bytes(3000)),
    lambda simulation: simulation._answer(correlation_id="", request_id=None),
    Simulation._nobody_serves,
    lambda simulation: simulation._pass(0.2),
    lambda simulation: simulation._pass(2.0),
    lambda simulation: simulation._pass(100.0),
    Simulation._restart_nats,
]
"""What a step from EVENT on makes happen."""


class NatsSimulation(WorkerDouble):
    """Any bytes as what a NATS server says, while a device waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._device = self.device()
        self._device.publish(f"kp1/{APP}/dcx/t/json/1", b"", 1, 1)
        self.identify()

    def play(self, data: bytes) -> None:
        """Play an input; the link goes on, or parts with that server."""
        self._device.publish(f"kp1/{APP}/dcx/t/json/1", b"", 1, 1)
        self.loop.run()
        self.from_nats(data)
        self.link.abort()
        self.loop.run()
        self.connect_nats()
        self.confirm()
        self.published()
        self._device.received()
        assert self.link.backlog == 0
        assert self.sessions.count == 1
        assert not self._device.closed
        self.losses.clear()


def steps(*pieces: bytes | int) -> bytes:
    """An input: bytes are sent in one read or datagram, a number is the event of that place."""
    data = b""
    for piece in pieces:
        if isinstance(piece, int):
            data += bytes([EVENT + piece])
        else:
            for at in range(0, len(piece), EVENT):
                part = piece[at : at + EVENT]
                data += bytes([len(part) - 1]) + part
    return data
