"""Measures the cost of a push to an MQTT device, beside brokers that forward a message."""

from functools import partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.pushing import Pusher, PushSpec
from kaa_bench.compare.servers import Servers
from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import Amqtt, Mosquitto, NatsMqtt, Peer
from kaa_bench.processes import INSTANCE, Server

DEVICES = 64
MICROSECONDS = 1e6


def _push(server: Server, spec: PushSpec, seconds: float) -> Figure:
    """Return the CPU microseconds of the server per message."""
    with Pusher(spec, DEVICES) as pusher:
        before = server.cpu_seconds()
        result = pusher.run(seconds)
        used = server.cpu_seconds() - before
    return Figure(used / result.messages * MICROSECONDS, {"rate": result.messages / result.seconds})


def _subjects(servers: Servers, scale: Scale) -> list[Subject]:
    gateway = servers.gateway
    found: list[tuple[str, Server, PushSpec]] = [
        ("gateway", gateway, PushSpec(gateway.address_of("mqtt"), servers.nats.address, "esp", INSTANCE))
    ]
    nats = servers.peer(NatsMqtt)
    if nats is not None:
        found.append((nats.title, nats, PushSpec(nats.address, nats.nats_address, "nats")))
    floor = servers.peer(MqttFloor)
    if floor is not None:
        found.append((floor.title, floor, PushSpec(floor.address, floor.nats_address, "nats")))
    brokers: list[Peer] = [
        peer for peer in (servers.peer(Mosquitto), servers.peer(Amqtt)) if peer is not None
    ]
    found += [
        (broker.title, broker, PushSpec(broker.address, broker.address, "client")) for broker in brokers
    ]
    return [Subject(title, partial(_push, server, spec, scale.seconds)) for title, server, spec in found]


PUSH = Probe("push", "push to MQTT, QoS 0", "us CPU", _subjects)
