"""Measures the cost of an MQTT connection: memory of an idle one, CPU of making and ending one; the same over TLS."""

from dataclasses import replace
from functools import partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.idle import IdleDevices
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import Address, Carrier
from kaa_bench.packets import BENCH, Profile
from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import Amqtt, Mosquitto, NatsMqtt, NatsMqttTls, Peer, TlsFloor
from kaa_bench.processes import CLIENT, Gateway, NatsServer, Server

FIRST_SHARE = 4
"""One in this many connections is made before the first reading, because a server allocates some memory once."""
MICROSECONDS = 1e6
AUTHENTICATED = replace(BENCH, user=CLIENT[0], password=CLIENT[1])
BROKERS: tuple[type[Peer], ...] = (NatsMqtt, Mosquitto, Amqtt)
ENCRYPTED: tuple[type[Peer], ...] = (NatsMqttTls, Mosquitto)


def _memory(server: Server, address: Address, count: int, *, encrypted: bool) -> Figure:
    """Return the bytes of a connection. The server is a new one, because servers keep memory that was used."""
    first = max(1, count // FIRST_SHARE)
    with server, IdleDevices(address, encrypted=encrypted) as devices:
        devices.connect(first)
        before = server.memory()
        devices.connect(count)
        figure = Figure((server.memory() - before) / count, {"connections": count})
        devices.disconnect()
    return figure


def _memories(servers: Servers, scale: Scale, *, encrypted: bool) -> list[Subject]:
    carrier: Carrier = "tls" if encrypted else "tcp"

    def gateway() -> Figure:
        with NatsServer() as nats:
            fresh = Gateway(nats)
            return _memory(fresh, fresh.carriers[carrier], scale.connections, encrypted=encrypted)

    def broker(kind: type[Peer]) -> Figure:
        fresh = kind()
        return _memory(fresh, fresh.carriers[carrier], scale.connections, encrypted=encrypted)

    kinds: tuple[type[Peer], ...] = (*ENCRYPTED, TlsFloor) if encrypted else BROKERS
    peers = servers.peers(*kinds)
    return [
        Subject("gateway", gateway),
        *(Subject(peer.title, partial(broker, type(peer))) for peer in peers),
    ]


def _connect(
    server: Server, address: Address, count: int, *, ending: bool, profile: Profile = BENCH
) -> Figure:
    """Return the CPU microseconds from accept to CONNACK, or from there to the end of a connection."""
    with IdleDevices(address, profile=profile) as devices:
        devices.connect(max(1, count // FIRST_SHARE))
        devices.disconnect()
        before = server.cpu_seconds()
        devices.connect(count)
        connected = server.cpu_seconds()
        devices.disconnect()
        ended = server.cpu_seconds()
    used = ended - connected if ending else connected - before
    return Figure(used / count * MICROSECONDS)


def _connects(servers: Servers, scale: Scale, *, ending: bool) -> list[Subject]:
    gateway = servers.gateway
    found: list[tuple[str, Server, Address]] = [("gateway", gateway, gateway.address_of("mqtt"))]
    found += [(peer.title, peer, peer.address) for peer in servers.peers(*BROKERS, MqttFloor)]
    return [
        Subject(title, partial(_connect, server, address, scale.connections, ending=ending))
        for title, server, address in found
    ]


def _authenticated_connects(servers: Servers, scale: Scale) -> list[Subject]:
    """Return the gateway, whose clients show one user name and password; its floor looks at neither."""

    def gateway() -> Figure:
        with NatsServer() as nats, Gateway(nats, authenticates=True) as fresh:
            return _connect(
                fresh, fresh.address_of("mqtt"), scale.connections, ending=False, profile=AUTHENTICATED
            )

    found = [Subject("gateway", gateway)]
    for floor in servers.peers(MqttFloor):
        measure = partial(
            _connect, floor, floor.address, scale.connections, ending=False, profile=AUTHENTICATED
        )
        found.append(Subject(floor.title, measure))
    return found


def _shake_hands(server: Server, address: Address, count: int, *, resuming: bool) -> Figure:
    """Return the CPU microseconds from accept to CONNACK, with a full handshake or a resumed one."""
    with IdleDevices(address, encrypted=True) as devices:
        devices.connect(max(1, count // FIRST_SHARE), resuming=resuming)
        devices.disconnect()
        before = server.cpu_seconds()
        resumed = devices.connect(count, resuming=resuming)
        used = server.cpu_seconds() - before
        devices.disconnect()
    remarks = (f"{resumed} of {count} handshakes were resumed",) if resuming and resumed < count - 1 else ()
    return Figure(used / count * MICROSECONDS, remarks=remarks)


def _handshakes(servers: Servers, scale: Scale, *, resuming: bool) -> list[Subject]:
    gateway = servers.gateway
    found: list[tuple[str, Server, Address]] = [("gateway", gateway, gateway.carriers["tls"])]
    found += [(peer.title, peer, peer.carriers["tls"]) for peer in servers.peers(*ENCRYPTED, TlsFloor)]
    return [
        Subject(title, partial(_shake_hands, server, address, scale.connections, resuming=resuming))
        for title, server, address in found
    ]


MEMORY = Probe("memory", "MQTT connection, idle", "bytes", partial(_memories, encrypted=False))
MEMORY_TLS = Probe("memory-tls", "MQTT over TLS, idle", "bytes", partial(_memories, encrypted=True))
CONNECT_AUTHENTICATED = Probe(
    "connect-authenticated", "MQTT connect with a password", "us CPU", _authenticated_connects
)
CONNECT_TLS = Probe("connect-tls", "MQTT over TLS, connect", "us CPU", partial(_handshakes, resuming=False))
RESUME_TLS = Probe(
    "resume-tls", "MQTT over TLS, connect with a session", "us CPU", partial(_handshakes, resuming=True)
)
CONNECT = Probe("connect", "MQTT connect", "us CPU", partial(_connects, ending=False))
DISCONNECT = Probe("disconnect", "MQTT disconnect", "us CPU", partial(_connects, ending=True))
