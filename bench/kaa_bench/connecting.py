"""Connects simulated devices to a server, and the sink to NATS, and passes the sockets to native code.

The bytes are in packets.py; the loads and the sink that get the sockets are in load/.
"""

import json
import random
import resource
import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from kaa_gateway.bus import subjects
from kaa_gateway.wire import kpudp

from kaa_bench import packets, websocket
from kaa_bench.certificate import NAME, client_context
from kaa_bench.client_tls import ClientTls
from kaa_bench.errors import BenchError
from kaa_bench.load.coap_stream import CoapStreamLoad
from kaa_bench.load.datagram import CoapLoad, KpUdpLoad, MqttSnLoad, SealedKpUdpLoad
from kaa_bench.load.http import HttpLoad
from kaa_bench.load.loop import Load
from kaa_bench.load.mqtt import MqttLoad, MqttRequestLoad
from kaa_bench.load.nats import NatsRequestLoad, NatsSink
from kaa_bench.load.websocket import WebSocketLoad
from kaa_bench.peers import kpudp_sealing as sealing

Address = tuple[str, int]
Protocol = Literal["mqtt", "http", "coap", "kpudp", "mqtt-sn"]
LoadProtocol = Literal["mqtt", "http", "coap", "coap-tcp", "kpudp", "mqtt-sn", "nats"]
"""`coap-tcp` is CoAP over TCP.

`nats` is not a protocol of devices: its requests go to the extension without a gateway.
"""
DATAGRAM_PROTOCOLS = ("coap", "kpudp", "mqtt-sn")
Carrier = Literal["tcp", "tls", "websocket", "websocket-tls", "sealed"]
CARRIERS: dict[LoadProtocol, tuple[Carrier, ...]] = {
    "mqtt": ("tcp", "tls", "websocket", "websocket-tls"),
    "http": ("tcp", "tls"),
    "kpudp": ("tcp", "sealed"),
}
"""What carries a protocol that has more than one carrier. `tcp` stands for plain UDP too.

`sealed` is encrypted KP/UDP.
"""

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 1.0
"""How long we wait for the answer to a datagram of the registration before we send it again."""
SOCKET_BUFFER = 1 << 20
"""Bytes of a UDP socket's buffer in each direction."""
NATS_LINE_MAX = 65536
"""The longest line from NATS while connecting, in bytes."""
FILES_BESIDE_SOCKETS = 64
MQTT_REFUSED = 0x80
"""The first reason code of MQTT 5 that refuses."""
KPUDP_HEADER_SIZE = 2
SEALED_ROOM = 28
"""Bytes that encryption adds to a datagram of KP/UDP."""
NATS_CONNECT = {
    "verbose": False,
    "pedantic": False,
    "headers": False,
    "name": "bench",
    "lang": "cython",
    "version": "1",
}


@dataclass(frozen=True)
class LoadSpec:
    """The work of a load generator.

    `window` is the greatest number of unacknowledged messages of a connection; with QoS 0 of MQTT it is the number of
    messages that are passed to the socket at once. With `answered` (MQTT only) a message carries a request ID and is
    outstanding until the extension has answered. With `aliased` (MQTT 5 only) connecting sets a topic alias, which the
    messages have instead of the topic.
    """

    protocol: LoadProtocol
    connections: int
    qos: int = 0
    window: int = 1
    answered: bool = False
    profile: packets.Profile = packets.BENCH
    mqtt_version: packets.MqttVersion = "3.1.1"
    aliased: bool = False
    sources: tuple[str, ...] = ()
    """The local addresses of the connections, in turn; any by default, an unused one for datagrams on this machine."""
    carrier: Carrier = "tcp"
    tls: ClientTls | None = None
    """What the clients trust and present. Without it they do not verify the server, which is one of the bench."""

    def __post_init__(self) -> None:
        if self.aliased and (self.mqtt_version != "5" or self.answered):
            raise BenchError("a topic alias needs MQTT 5, and messages without a request ID")
        if self.carrier not in CARRIERS.get(self.protocol, ("tcp",)):
            raise BenchError(f"loads of {self.protocol} are not carried by {self.carrier}")
        if self.websocket and (self.aliased or self.answered):
            raise BenchError("loads over WebSocket have neither topic aliases nor answers")

    @property
    def encrypted(self) -> bool:
        """Return whether the connections are over TLS."""
        return self.carrier.endswith("tls")

    @property
    def websocket(self) -> bool:
        """Return whether MQTT is in WebSocket frames."""
        return self.carrier.startswith("websocket")

    @property
    def unacknowledged(self) -> bool:
        """Return whether messages are never acknowledged."""
        return self.protocol == "mqtt" and self.qos == 0 and not self.answered

    @property
    def registrations(self) -> int:
        """Return how many messages connecting sends to the extension, in addition to those of the runs."""
        return self.connections if self.protocol == "kpudp" or self.aliased else 0


def raise_file_limit(sockets: int) -> None:
    """Raise the limit of open files for `count` sockets. Raise BenchError if the hard limit is too low."""
    wanted = sockets + FILES_BESIDE_SOCKETS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{sockets} connections need `ulimit -n {wanted}`; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connect_load(spec: LoadSpec, address: Address) -> Load:
    """Connect the devices. Those of MQTT are past CONNACK. Aliases of KP/UDP and MQTT 5 are set."""
    raise_file_limit(spec.connections)
    devices = range(spec.connections)
    sockets: list[socket.socket] = []
    sessions: list[tuple[bytes, int, bytes]] = []
    datagrams = spec.protocol in DATAGRAM_PROTOCOLS
    topic_ids: list[int] = []
    sources = spec.sources or ((unused_source(address) if datagrams else ""),)
    unverified = client_context() if spec.encrypted and spec.tls is None else None
    try:
        for device in devices:
            source = sources[device % len(sources)]
            if datagrams:
                sockets.append(_connect_datagrams(source, address))
            elif spec.encrypted and spec.tls is not None:
                sockets.append(_connect(address, source, spec.tls.context(device), address[0]))
            else:
                sockets.append(_connect(address, source, unverified))
            if spec.websocket:
                websocket.upgrade(sockets[-1])
            if spec.protocol == "mqtt":
                _mqtt_handshake(sockets[-1], device, spec.profile, spec.mqtt_version, framed=spec.websocket)
                if spec.aliased:
                    _mqtt_registration(sockets[-1], device, spec.profile)
            elif spec.carrier == "sealed":
                sessions.append(_sealed_registration(sockets[-1], device, spec.profile))
            elif spec.protocol == "coap-tcp":
                sockets[-1].sendall(packets.COAP_CSM)
            elif spec.protocol == "kpudp":
                _kpudp_registration(sockets[-1], device, spec.profile)
            elif spec.protocol == "mqtt-sn":
                topic_ids.append(_mqtt_sn_registration(sockets[-1], device, spec.profile))
            elif spec.protocol == "nats":
                _nats_handshake(sockets[-1], f"SUB {packets.nats_inbox(device)} 1\r\n")
    except BaseException:
        for connected in sockets:
            connected.close()
        raise
    match spec.protocol:
        case "mqtt":
            return _mqtt_load(spec, sockets)
        case "http":
            host = f"{address[0]}:{address[1]}"
            return HttpLoad(sockets, [packets.post(device, host, spec.profile) for device in devices])
        case "coap":
            return CoapLoad(
                sockets, [packets.coap_post(device, spec.profile) for device in devices], spec.window
            )
        case "coap-tcp":
            return CoapStreamLoad(
                sockets, [packets.coap_stream_post(device, spec.profile) for device in devices]
            )
        case "kpudp" if spec.carrier == "sealed":
            message = packets.kpudp_data(spec.profile) + bytes(SEALED_ROOM)
            return SealedKpUdpLoad(sockets, [message] * spec.connections, spec.window, sessions=sessions)
        case "kpudp":
            return KpUdpLoad(sockets, [packets.kpudp_data(spec.profile)] * spec.connections, spec.window)
        case "mqtt-sn":
            messages = [packets.mqtt_sn_publish(topic_id, spec.profile) for topic_id in topic_ids]
            return MqttSnLoad(sockets, messages, spec.window)
        case "nats":
            return NatsRequestLoad(sockets, [packets.nats_request(device) for device in devices], spec.window)


def _mqtt_load(spec: LoadSpec, sockets: list[socket.socket]) -> Load:
    devices = range(spec.connections)
    profile, version, aliased = spec.profile, spec.mqtt_version, spec.aliased
    if spec.answered:
        messages = [packets.request(device, profile, version) for device in devices]
        offset = packets.request_id_offset(messages[0], profile, version)
        counter = packets.counter_offset(messages[0], profile)
        return MqttRequestLoad(
            sockets, messages, spec.window, request_id_offset=offset, counter_offset=counter
        )
    messages = [packets.publish(device, spec.qos, profile, version, aliased=aliased) for device in devices]
    fence, kind = packets.PINGREQ, MqttLoad
    if spec.websocket:
        fence, kind = websocket.frame(fence), WebSocketLoad
        messages = list(map(websocket.frame, messages))
    if spec.qos == 0:
        return kind(sockets, messages, spec.window, fence=fence)
    offset = packets.identifier_offset(messages[0], profile, version, aliased=aliased)
    return kind(sockets, messages, spec.window, identifier_offset=offset, reason_codes=version == "5")


def connect_mqtt(
    address: Address,
    device: int,
    profile: packets.Profile,
    context: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
    *,
    source: str = "",
    keep_alive: int = 0,
) -> socket.socket:
    """Make an MQTT connection that is past CONNACK: over TLS with a `context`, resuming a `session` if there is one."""
    connected = _connect(address, source, context, session=session)
    try:
        _mqtt_handshake(connected, device, profile, "3.1.1", keep_alive=keep_alive)
    except BaseException:
        connected.close()
        raise
    return connected


def connect_nats(nats: Address, subscription: str = "") -> socket.socket:
    """Make a NATS connection with its one subscription, if any."""
    connected = _connect(nats)
    try:
        _nats_handshake(connected, subscription)
    except BaseException:
        connected.close()
        raise
    return connected


def connect_sink(nats: Address, *, answers: bool) -> tuple[NatsSink, socket.socket]:
    """Connect to NATS and subscribe to the extension's ClientData. Return when the server has confirmed it."""
    subject = subjects.service(packets.EXTENSION, "esp", subjects.CLIENT_DATA)
    connected = connect_nats(nats, f"SUB {subject} {packets.EXTENSION} 1\r\n")
    return NatsSink(connected, packets.EXTENSION.encode() if answers else None), connected


def _connect(
    address: Address,
    source: str = "",
    context: ssl.SSLContext | None = None,
    name: str = NAME,
    session: ssl.SSLSession | None = None,
) -> socket.socket:
    """Connect, over TLS with a `context`, to a server whose certificate is for `name`."""
    try:
        connected = socket.create_connection(
            address, CONNECT_TIMEOUT_S, source_address=(source, 0) if source else None
        )
    except OSError as error:
        by = f" from {source}" if source else ""
        raise BenchError(f"cannot connect{by} to {address[0]}:{address[1]}: {error}") from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return connected
    try:
        return context.wrap_socket(connected, server_hostname=name, session=session)
    except OSError as error:
        connected.close()
        raise BenchError(f"no TLS with {address[0]}:{address[1]}: {error}") from error


def unused_source(address: Address) -> str:
    """Return an unused loopback address: a server remembers message IDs by source address for minutes.

    For a server that is not on this machine, return "", which stands for any address.
    """
    try:
        local = ip_address(socket.gethostbyname(address[0])).is_loopback
    except OSError as error:
        raise BenchError(f"{address[0]} is not known: {error}") from error
    if not local:
        return ""
    return f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


def _connect_datagrams(source: str, address: Address) -> socket.socket:
    connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            connected.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        connected.bind((source, 0))
        connected.connect(address)
    except OSError as error:
        connected.close()
        raise BenchError(f"cannot send from {source} to {address[0]}:{address[1]}: {error}") from error
    return connected


def _kpudp_registration(connected: socket.socket, device: int, profile: packets.Profile) -> None:
    """Register the alias, and answer the server's PING, which proves our address."""
    connected.settimeout(ANSWER_TIMEOUT_S)
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            connected.send(packets.kpudp_registration(device, profile))
            while not _kpudp_registered(connected, device):
                pass
        except TimeoutError:
            continue
        except OSError as error:
            raise BenchError(f"no ACK for device {device}: {error}") from error
        return
    raise BenchError(f"no ACK for device {device} in {CONNECT_TIMEOUT_S:g} s")


def _sealed_registration(
    connected: socket.socket, device: int, profile: packets.Profile
) -> tuple[bytes, int, bytes]:
    """Open a session and register the alias in it. Return connection ID, next counter and keys of the session."""
    connected.settimeout(ANSWER_TIMEOUT_S)
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    frames = packets.kpudp_registration(device, profile)[KPUDP_HEADER_SIZE:]
    while time.monotonic() < deadline:
        try:
            connected.send(sealing.hello(secrets.token_bytes(sealing.RANDOM_SIZE)))
            challenge = sealing.read_challenge(connected.recv(65536))
            if challenge is None:
                continue
            session = sealing.Sealing.open(challenge, packets.identity(device), packets.shared_key(device))
            connected.send(session.seal(frames))
            while not session.confirmed:
                session.unseal(connected.recv(65536))
        except TimeoutError:
            continue
        except OSError as error:
            raise BenchError(f"no session for device {device}: {error}") from error
        keys = session.generation
        directions = (keys.device, keys.server)
        return session.connection_id, session.sent, b"".join(each.key + each.iv for each in directions)
    raise BenchError(f"no session for device {device} in {CONNECT_TIMEOUT_S:g} s")


def _mqtt_sn_registration(connected: socket.socket, device: int, profile: packets.Profile) -> int:
    """Connect, and return the topic ID of the resource path."""
    connected.settimeout(CONNECT_TIMEOUT_S)
    try:
        connected.send(packets.mqtt_sn_connect(device, profile))
        answer = connected.recv(64)
        if answer != b"\x03\x05\x00":
            raise _unexpected_answer(f"CONNECT of device {device}", answer)
        connected.send(packets.mqtt_sn_register(device, profile))
        answer = connected.recv(64)
    except OSError as error:
        raise BenchError(f"no answer for device {device}: {error}") from error
    if len(answer) != 7 or answer[1] != 0x0B or answer[6]:
        raise _unexpected_answer(f"REGISTER of device {device}", answer)
    return int.from_bytes(answer[2:4], "big")


def _kpudp_registered(connected: socket.socket, device: int) -> bool:
    """Handle a datagram. Return whether the registration is acknowledged."""
    acknowledged = False
    for message in kpudp.decode(connected.recv(65536))[1]:
        match message.type:
            case kpudp.Type.PING:
                pong = kpudp.Message(kpudp.Type.PONG, message.message_id, payload=message.payload)
                connected.send(kpudp.encode(packets.EPOCH, [pong]))
            case kpudp.Type.ACK if message.message_id == packets.REGISTRATION_ID:
                acknowledged = True
            case _:
                raise BenchError(f"the registration of device {device} was answered with {message}")
    return acknowledged


def read_exactly(connected: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or fewer if the server closes the connection before."""
    data = b""
    while len(data) < size:
        part = connected.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def _mqtt_handshake(
    connected: socket.socket,
    device: int,
    profile: packets.Profile,
    version: packets.MqttVersion,
    *,
    framed: bool = False,
    keep_alive: int = 0,
) -> None:
    answer = _mqtt_exchange(
        connected,
        packets.connect(device, profile, version, keep_alive),
        f"CONNECT of device {device}",
        framed=framed,
    )
    accepted = (
        answer[:1] == b"\x20" and answer[2:4] == b"\x00\x00"
        if version == "5"
        else (answer == packets.CONNACK_ACCEPTED)
    )
    if not accepted:
        if answer[:1] == b"\x20" and len(answer) > 3:
            raise BenchError(f"CONNECT of device {device} was refused: {packets.connack(answer[3], version)}")
        raise _unexpected_answer(f"CONNECT of device {device}", answer)


def _mqtt_registration(connected: socket.socket, device: int, profile: packets.Profile) -> None:
    """Set the topic alias."""
    answer = _mqtt_exchange(
        connected, packets.alias_registration(device, profile), f"the alias of device {device}"
    )
    reason_code = answer[4] if len(answer) > 4 else 0
    if answer[:1] != b"\x40" or reason_code >= MQTT_REFUSED:
        raise _unexpected_answer(f"the alias of device {device}", answer)


def _mqtt_exchange(connected: socket.socket, message: bytes, what: str, *, framed: bool = False) -> bytes:
    """Send a packet, in a WebSocket frame if `framed`; return the next one, which is shorter than 126 bytes."""
    try:
        if framed:
            connected.sendall(websocket.frame(message))
            header = read_exactly(connected, 2)
            return read_exactly(connected, header[1] if len(header) == 2 else 0)
        connected.sendall(message)
        answer = read_exactly(connected, 2)
        return answer + read_exactly(connected, answer[1] if len(answer) == 2 else 0)
    except OSError as error:
        raise BenchError(f"no answer to {what}: {error}") from error


def _unexpected_answer(what: str, answer: bytes) -> BenchError:
    return BenchError(f"{what} was answered with {answer.hex(' ') or 'a closed connection'}")


def _nats_handshake(connected: socket.socket, subscription: str) -> None:
    """Send CONNECT and the subscription, if any. Return when the server has confirmed them."""
    host, port = connected.getpeername()
    if not _read_line(connected).startswith(b"INFO "):
        raise BenchError(f"what listens at {host}:{port} is not NATS")
    connected.sendall(f"CONNECT {json.dumps(NATS_CONNECT)}\r\n{subscription}PING\r\n".encode())
    while (line := _read_line(connected)) != b"PONG":
        if line != b"PING":
            raise BenchError(f"NATS refused the bench: {line.decode(errors='replace')}")
        connected.sendall(b"PONG\r\n")


def _read_line(connected: socket.socket) -> bytes:
    """Return a line without its line break, and read no byte beyond it."""
    line = b""
    while not line.endswith(b"\r\n"):
        try:
            part = connected.recv(1)
        except OSError as error:
            raise BenchError(f"no answer from NATS: {error}") from error
        if not part or len(line) > NATS_LINE_MAX:
            raise BenchError("NATS closed the connection")
        line += part
    return line[:-2]
