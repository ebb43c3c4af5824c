"""Measures what a message costs that comes alone: one at QoS 1 every 10 ms, on a server that does nothing else.

Each finds a process that sleeps, and cold caches. What the server needs without any message is subtracted.
"""

import time
from functools import partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.probes.latency import NANOSECONDS_PER_MICROSECOND
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import Address, LoadSpec
from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import Mosquitto, NatsMqtt
from kaa_bench.processes import Server

RATE = 100.0
"""Messages a second."""
WARM_UP_S = 0.3
MICROSECONDS = 1e6


def _lone(server: Server, address: Address, nats: Address, seconds: float) -> Figure:
    """Return the CPU microseconds of a message, with the median of its time to PUBACK and the idle CPU of a second."""
    with Sink(nats, answers=False), LoadGenerator(LoadSpec("mqtt", 1, qos=1), address) as generator:
        generator.run(seconds=WARM_UP_S, rate=RATE)
        before = server.cpu_seconds()
        time.sleep(seconds)
        idle = (server.cpu_seconds() - before) / seconds
        before, started = server.cpu_seconds(), time.monotonic()
        result = generator.run(seconds=seconds, rate=RATE)
        used = server.cpu_seconds() - before - idle * (time.monotonic() - started)
    assert result.latency is not None
    waited = result.latency.percentile(50) / NANOSECONDS_PER_MICROSECOND
    details = {"puback_us": waited, "idle_us": idle * MICROSECONDS}
    remark = f"PUBACK after {waited:,.0f} us; without messages {idle * MICROSECONDS:,.0f} us CPU a second"
    return Figure(used / result.acknowledged * MICROSECONDS, details, (remark,))


def _subjects(servers: Servers, scale: Scale) -> list[Subject]:
    gateway, nats = servers.gateway, servers.nats.address
    found: list[tuple[str, Server, Address]] = [("gateway", gateway, gateway.address_of("mqtt"))]
    found += [(peer.title, peer, peer.address) for peer in servers.peers(MqttFloor, Mosquitto, NatsMqtt)]
    return [
        Subject(title, partial(_lone, server, address, nats, scale.seconds))
        for title, server, address in found
    ]


LONE = Probe("lone", "MQTT QoS 1, a message alone", "us CPU", _subjects)
