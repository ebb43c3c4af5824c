"""Measures the time of a request from device to extension and back at a fixed rate, beside a bare NATS request.

The load is an open loop: latency counts from the time at which a request should have been sent. The extension is the
bench's sink, so the lines differ only by the gateway.
"""

from functools import partial

from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.servers import Servers
from kaa_bench.connecting import Address, LoadSpec
from kaa_bench.sim.load import LATE_MAX

RATES = (100, 1000, 5000, 20_000)
CONNECTIONS = 64
WINDOW = 256
WARM_UP_S = 0.3
NANOSECONDS_PER_MICROSECOND = 1000


def measure_latency(
    spec: LoadSpec, address: Address, nats: Address, rate: float, seconds: float, *, percentile: str = "p50"
) -> Figure:
    """Return a percentile in microseconds, with others in the details."""
    with Sink(nats, answers=True), LoadGenerator(spec, address) as generator:
        generator.run(seconds=WARM_UP_S, rate=rate)
        result = generator.run(seconds=seconds, rate=rate)
    latency = result.latency
    assert latency is not None
    remarks = [f"{count} x {kind}" for kind, count in result.errors.items()]
    if result.late > LATE_MAX * result.planned:
        remarks.append(f"generator over 1 ms late with more than {LATE_MAX:.0%} of the messages")
    if result.sent < result.planned:
        remarks.append(f"{result.planned - result.sent} of {result.planned} messages could not be sent")
    details = {
        f"p{percent:g}": latency.percentile(percent) / NANOSECONDS_PER_MICROSECOND
        for percent in (50, 90, 99, 99.9, 100)
    }
    details["late_share"] = result.late / result.planned
    return Figure(details[percentile], details, tuple(remarks))


def _subjects(rate: int, servers: Servers, scale: Scale) -> list[Subject]:
    gateway, nats = servers.gateway, servers.nats.address
    lines = [
        ("bare NATS request", LoadSpec("nats", CONNECTIONS, window=WINDOW), nats),
        (
            "gateway, MQTT",
            LoadSpec("mqtt", CONNECTIONS, window=WINDOW, answered=True),
            gateway.address_of("mqtt"),
        ),
        ("gateway, HTTP", LoadSpec("http", CONNECTIONS), gateway.address_of("http")),
        ("gateway, CoAP", LoadSpec("coap", CONNECTIONS), gateway.address_of("coap")),
    ]
    return [
        Subject(title, partial(measure_latency, spec, address, nats, rate, scale.seconds))
        for title, spec, address in lines
    ]


LATENCIES = tuple(
    Probe(f"latency-{rate}", f"round trip at {rate:,}/s", "us, median", partial(_subjects, rate), rate=rate)
    for rate in RATES
)
