"""Measures the slowest requests at half of the rate that the gateway can carry, beside bare NATS requests at that rate.

The full rate is that of 64 devices with one request outstanding on each. Half of it is offered in an open loop: latency
counts from the time at which a request should have been sent.
"""

from dataclasses import replace
from functools import cache, partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.probes.latency import CONNECTIONS, WARM_UP_S, WINDOW, measure_latency
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import Address, LoadProtocol, LoadSpec
from kaa_bench.errors import BenchError

SHARE = 0.5
"""Of the full rate."""
FULL_S = 2.0
"""Seconds in which the full rate is measured, at most."""
PERCENTILE = "p99"


def _full_rate(spec: LoadSpec, address: Address, nats: Address, seconds: float) -> float:
    with Sink(nats, answers=True), LoadGenerator(spec, address) as generator:
        generator.run(seconds=WARM_UP_S)
        result = generator.run(seconds=seconds)
    if not result.acknowledged:
        raise BenchError("nothing was answered")
    return result.acknowledged / result.seconds


def _subjects(protocol: LoadProtocol, servers: Servers, scale: Scale) -> list[Subject]:
    gateway, nats = servers.gateway.address_of(protocol), servers.nats.address
    of_one = LoadSpec(protocol, CONNECTIONS, answered=protocol == "mqtt")
    window = WINDOW if protocol == "mqtt" else 1

    @cache
    def rate() -> float:
        return SHARE * _full_rate(of_one, gateway, nats, min(scale.seconds, FULL_S))

    def measure(spec: LoadSpec, address: Address) -> Figure:
        figure = measure_latency(spec, address, nats, rate(), scale.seconds, percentile=PERCENTILE)
        figure.details["rate"] = rate()
        return figure

    bare = LoadSpec("nats", CONNECTIONS, window=WINDOW)
    return [
        Subject("bare NATS request", partial(measure, bare, nats)),
        Subject(f"gateway, {protocol.upper()}", partial(measure, replace(of_one, window=window), gateway)),
    ]


TAILS = tuple(
    Probe(
        f"tail-{protocol}",
        f"round trip at half load, {protocol.upper()}",
        "us, 99 %",
        partial(_subjects, protocol),
    )
    for protocol in ("mqtt", "http", "coap")
)
