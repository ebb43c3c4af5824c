"""Measures the cost of an MQTT connection: memory of an idle one, CPU of making and ending one."""

from functools import partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.idle import IdleDevices
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import Address
from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import Amqtt, Mosquitto, NatsMqtt, Peer
from kaa_bench.processes import Gateway, Server

FIRST_SHARE = 4
"""One in this many connections is made before the first reading, because a server allocates some memory once."""
MICROSECONDS = 1e6
BROKERS: tuple[type[Peer], ...] = (NatsMqtt, Mosquitto, Amqtt)


def _memory(server: Server, address: Address, count: int) -> Figure:
    """Return the bytes of a connection. The server is a new one, because servers keep memory that was used."""
    first = max(1, count // FIRST_SHARE)
    with server, IdleDevices(address) as devices:
        devices.connect(first)
        before = server.memory()
        devices.connect(count)
        figure = Figure((server.memory() - before) / count, {"connections": count})
        devices.disconnect()
    return figure


def _memories(servers: Servers, scale: Scale) -> list[Subject]:
    def gateway() -> Figure:
        fresh = Gateway(servers.nats)
        return _memory(fresh, fresh.address_of("mqtt"), scale.connections)

    def broker(kind: type[Peer]) -> Figure:
        fresh = kind()
        return _memory(fresh, fresh.address, scale.connections)

    return [
        Subject("gateway", gateway),
        *(Subject(peer.title, partial(broker, type(peer))) for peer in servers.peers(*BROKERS)),
    ]


def _connect(server: Server, address: Address, count: int, *, ending: bool) -> Figure:
    """Return the CPU microseconds from accept to CONNACK, or from there to the end of a connection."""
    with IdleDevices(address) as devices:
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


MEMORY = Probe("memory", "MQTT connection, idle", "bytes", _memories)
CONNECT = Probe("connect", "MQTT connect", "us CPU", partial(_connects, ending=False))
DISCONNECT = Probe("disconnect", "MQTT disconnect", "us CPU", partial(_connects, ending=True))
