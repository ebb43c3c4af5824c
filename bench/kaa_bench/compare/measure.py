"""One run of a row on one server: warm up, sample CPU, send, wait until all has arrived, sample CPU again."""

import time
from dataclasses import dataclass, field

from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.compare.rows import Row
from kaa_bench.connecting import Address
from kaa_bench.errors import BenchError
from kaa_bench.peers.servers import Peer
from kaa_bench.processes import Gateway, NatsServer, Server

WARM_UP_S = 0.5
SETTLE_S = 2.0
"""How long the sink's count must stand still before what is missing counts as lost."""
POLL_S = 0.05
SATURATED = 0.9
"""Cores; a process with one busy thread that uses this much may be what limits the rate."""
MICROSECONDS = 1e6
ANSWERED = ("http", "coap")
"""The protocols of rows whose messages are requests: the sink answers them."""


@dataclass(frozen=True)
class Work:
    """How long a run is: so many messages, or so many seconds; one of the two."""

    messages: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """What one run found.

    CPU is in seconds over the whole run. `received` is what the sink got, None where there is no sink.
    """

    messages: int
    acknowledged: int
    seconds: float
    server_cpu: float
    generator_cpu: float
    nats_cpu: float | None = None
    received: int | None = None
    errors: dict[str, int] = field(default_factory=dict)
    retransmitted: int = 0

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def server_us(self) -> float:
        """CPU of the server per message, in microseconds."""
        return self.server_cpu / self.messages * MICROSECONDS

    @property
    def generator_us(self) -> float:
        """CPU of the load generator per message, in microseconds."""
        return self.generator_cpu / self.messages * MICROSECONDS

    @property
    def nats_us(self) -> float | None:
        """CPU of nats-server per message, in microseconds."""
        return None if self.nats_cpu is None else self.nats_cpu / self.messages * MICROSECONDS

    @property
    def lost_of_acknowledged(self) -> int:
        """Acknowledged messages that never reached the extension."""
        return 0 if self.received is None else max(0, self.acknowledged - self.received)

    @property
    def remarks(self) -> list[str]:
        """What a reader must know to judge the figures of this run."""
        remarks = [f"{count} x {kind}" for kind, count in self.errors.items()]
        if self.lost_of_acknowledged:
            remarks.append(f"LOST {self.lost_of_acknowledged} acknowledged messages")
        elif self.received is not None and self.received < self.messages:
            remarks.append(f"{self.messages - self.received} of {self.messages} did not reach the extension")
        elif self.received is not None and self.received > self.messages:
            remarks.append(f"{self.received - self.messages} messages reached the extension twice")
        if self.retransmitted:
            remarks.append(f"{self.retransmitted} retransmitted")
        if self.generator_cpu / self.seconds > SATURATED:
            remarks.append("generator saturated")
        if self.nats_cpu is not None and self.nats_cpu / self.seconds > SATURATED:
            remarks.append("nats-server used a whole core")
        return remarks


def measure_gateway(row: Row, gateway: Gateway, nats: NatsServer, work: Work) -> Run:
    """The row on the gateway, with a sink in the place of the extension service; it answers requests."""
    return _measure_forwarding(row, gateway, gateway.address_of(row.load.protocol), nats, work)


def measure_peer(row: Row, peer: Peer, work: Work, nats: NatsServer) -> Run:
    """The row on another server. Unless it is made to do all of the gateway's work it forwards nothing."""
    if peer.forwards:
        return _measure_forwarding(row, peer, peer.address, nats, work)
    if row.load.unacknowledged and peer.flood is not None:
        work = Work(messages=peer.flood)
    with LoadGenerator(row.load, peer.address) as generator:
        if work.messages is None:
            generator.run(seconds=WARM_UP_S)
        cpu = peer.cpu_seconds()
        result = generator.run(messages=work.messages, seconds=work.seconds)
        return Run(
            messages=_some(result.sent),
            acknowledged=result.acknowledged,
            seconds=result.seconds,
            server_cpu=peer.cpu_seconds() - cpu,
            generator_cpu=result.cpu_seconds,
            errors=result.errors,
            retransmitted=result.retransmitted,
        )


def _measure_forwarding(row: Row, server: Server, address: Address, nats: NatsServer, work: Work) -> Run:
    """With a sink in the place of the extension, which answers requests."""
    with (
        Sink(nats.address, answers=row.load.protocol in ANSWERED) as sink,
        LoadGenerator(row.load, address) as generator,
    ):
        warm_up = generator.run(seconds=WARM_UP_S)
        before = _settled(sink, 0, row.load.registrations + warm_up.sent)
        server_cpu, nats_cpu = server.cpu_seconds(), nats.cpu_seconds()
        result = generator.run(messages=work.messages, seconds=work.seconds)
        received = _settled(sink, before, result.sent) - before
        return Run(
            messages=_some(result.sent),
            acknowledged=result.acknowledged,
            seconds=result.seconds,
            server_cpu=server.cpu_seconds() - server_cpu,
            generator_cpu=result.cpu_seconds,
            nats_cpu=nats.cpu_seconds() - nats_cpu,
            received=received,
            errors=result.errors,
            retransmitted=result.retransmitted,
        )


def _some(sent: int) -> int:
    if sent == 0:
        raise BenchError("the load generator sent nothing")
    return sent


def _settled(sink: Sink, before: int, sent: int) -> int:
    """The sink's count once it has all that was sent, or once it has stood still for `SETTLE_S`."""
    count, moved_at = sink.received(), time.monotonic()
    while count - before < sent and time.monotonic() - moved_at < SETTLE_S:
        time.sleep(POLL_S)
        now_received = sink.received()
        if now_received != count:
            count, moved_at = now_received, time.monotonic()
    return count
