"""Measures the cost of a message that a bridge takes from Mosquitto to NATS, beside a minimal forwarder.

Devices publish at QoS 1 to the broker, which keeps what the bridge has not taken yet. The measurement ends when NATS
has everything.
"""

from functools import partial

from kaa_bench.compare.bridging import Bridge, BridgeServer, Forwarder
from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.measure import MICROSECONDS, WARM_UP_S, settled
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import LoadSpec
from kaa_bench.errors import BenchError
from kaa_bench.peers.servers import Mosquitto

LOAD = LoadSpec("mqtt", connections=8, qos=1, window=8)
MESSAGES_PER_SECOND = 4000
"""Messages of a measurement, for each second that it is to take: about what a bridge can forward."""


def _forward(kind: type[BridgeServer], servers: Servers, seconds: float) -> Figure:
    """Return the CPU microseconds of the bridge's process per message.

    The broker is a new one: it would keep the messages of other rows for a bridge that it has seen before.
    """
    messages = max(LOAD.connections, int(seconds * MESSAGES_PER_SECOND))
    with (
        Mosquitto() as broker,
        Sink(servers.other_nats.address, answers=False) as sink,
        kind(servers.other_nats, broker.address) as bridge,
        LoadGenerator(LOAD, broker.address) as generator,
    ):
        warm_up = generator.run(messages=int(MESSAGES_PER_SECOND * WARM_UP_S))
        before = settled(sink, 0, warm_up.sent)
        used = bridge.cpu_seconds()
        result = generator.run(messages=messages)
        received = settled(sink, before, result.sent) - before
        used = bridge.cpu_seconds() - used
    if not received:
        raise BenchError(f"{kind.title} forwarded nothing")
    remarks = [f"{count} x {error}" for error, count in result.errors.items()]
    if received != result.sent:
        remarks.append(f"{received} of {result.sent} messages reached NATS")
    return Figure(used / received * MICROSECONDS, {}, tuple(remarks))


def _subjects(servers: Servers, scale: Scale) -> list[Subject]:
    if servers.peer(Mosquitto) is None:
        return []
    return [
        Subject(kind.title, partial(_forward, kind, servers, scale.seconds)) for kind in (Bridge, Forwarder)
    ]


BRIDGE = Probe("bridge", "MQTT QoS 1 from a broker to NATS", "us CPU", _subjects)
