"""Measures the gain of a second worker: messages a second that the busiest worker's CPU allows.

On a machine with fewer cores than processes, the rate does not show it. Several workers are limited by how evenly the
kernel distributes connections, and by the cost of each message.
"""

import os
from functools import partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import LoadSpec
from kaa_bench.processes import Gateway, NatsServer

CONNECTIONS = 1000
WARM_UP_S = 0.5


def _capacity(gateway: Gateway, nats: NatsServer, connections: int, seconds: float) -> Figure:
    """Return the messages per second of CPU of the busiest process."""
    spec = LoadSpec("mqtt", connections, qos=1, window=1)
    with (
        Sink(nats.address, answers=False),
        LoadGenerator(spec, gateway.address_of("mqtt")) as generator,
    ):
        generator.run(seconds=WARM_UP_S)
        before = gateway.cpu_by_process()
        result = generator.run(seconds=seconds)
        used = {pid: cpu - before.get(pid, 0) for pid, cpu in gateway.cpu_by_process().items()}
    busiest, total = max(used.values()), sum(used.values())
    remarks = [f"{count} x {kind}" for kind, count in result.errors.items()]
    details = {
        "rate": result.sent / result.seconds,
        "us": total / result.sent * 1e6,
        "busiest_share": busiest / total,
    }
    return Figure(result.sent / busiest, details, tuple(remarks))


def _subjects(servers: Servers, scale: Scale) -> list[Subject]:
    connections = min(CONNECTIONS, scale.connections)
    return [
        Subject(
            f"{workers} worker{'s' if workers > 1 else ''}",
            partial(_capacity, *servers.gateway_of(workers), connections, scale.seconds),
        )
        for workers in (1, 2)
    ]


WORKERS = Probe("workers", f"MQTT QoS 1, {os.cpu_count()} cores", "messages/s", _subjects)
