"""Runs a row on a server: warm up, sample CPU, send, wait until all messages have arrived, sample CPU again."""

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
"""How long the sink's count must not change before missing messages count as lost."""
POLL_S = 0.05
SATURATED = 0.9
"""CPU cores; a process with one busy thread that uses this much may limit the rate."""
MICROSECONDS = 1e6
ANSWERED = ("http", "coap", "coap-tcp")
"""The protocols whose messages are requests, which the sink answers."""


@dataclass(frozen=True)
class Work:
    """The length of a run, in messages or in seconds."""

    messages: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """The results of a run.

    CPU is in seconds of the whole run. `received` is the count of the sink, None without a sink.
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
        """Return the messages a second."""
        return self.messages / self.seconds

    @property
    def server_us(self) -> float:
        """Return the CPU of the server per message, in microseconds."""
        return self.server_cpu / self.messages * MICROSECONDS

    @property
    def generator_us(self) -> float:
        """Return the CPU of the load generator per message, in microseconds."""
        return self.generator_cpu / self.messages * MICROSECONDS

    @property
    def nats_us(self) -> float | None:
        """Return the CPU of nats-server per message, in microseconds."""
        return None if self.nats_cpu is None else self.nats_cpu / self.messages * MICROSECONDS

    @property
    def lost_of_acknowledged(self) -> int:
        """Return the number of acknowledged messages that did not reach the extension."""
        return 0 if self.received is None else max(0, self.acknowledged - self.received)

    @property
    def remarks(self) -> list[str]:
        """Return remarks on the reliability of this run's figures."""
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


def address_for(row: Row, gateway: Gateway) -> Address:
    """Return the address of the gateway at which a row is measured."""
    if row.plugin:
        return gateway.plugin_address
    if row.load.protocol == "mqtt" or row.load.carrier != "tcp":
        return gateway.carriers[row.load.carrier]
    return gateway.address_of(row.load.protocol)


def measure_gateway(row: Row, gateway: Gateway, nats: NatsServer, work: Work) -> Run:
    """Run a row on the gateway, with the sink as the extension service; it answers requests."""
    return _measure_forwarding(row, gateway, address_for(row, gateway), nats, work)


def measure_peer(row: Row, peer: Peer, work: Work, nats: NatsServer) -> Run:
    """Run a row on another server. It forwards messages only if it does all of the gateway's work."""
    if peer.forwards:
        return _measure_forwarding(row, peer, peer.carriers[row.load.carrier], nats, work)
    if row.load.unacknowledged and peer.flood is not None:
        work = Work(messages=peer.flood)
    with LoadGenerator(row.load, peer.carriers[row.load.carrier]) as generator:
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
    """Run a row with the sink as the extension, which answers requests."""
    with (
        Sink(nats.address, answers=row.load.protocol in ANSWERED) as sink,
        LoadGenerator(row.load, address) as generator,
    ):
        warm_up = generator.run(seconds=WARM_UP_S)
        before = settled(sink, 0, row.load.registrations + warm_up.sent)
        server_cpu, nats_cpu = server.cpu_seconds(), nats.cpu_seconds()
        result = generator.run(messages=work.messages, seconds=work.seconds)
        received = settled(sink, before, result.sent) - before
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


def settled(sink: Sink, before: int, sent: int) -> int:
    """Return the sink's count when it has all messages, or when it has not changed for `SETTLE_S`."""
    count, moved_at = sink.received(), time.monotonic()
    while count - before < sent and time.monotonic() - moved_at < SETTLE_S:
        time.sleep(POLL_S)
        now_received = sink.received()
        if now_received != count:
            count, moved_at = now_received, time.monotonic()
    return count
