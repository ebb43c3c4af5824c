"""The Prometheus metrics of a worker, read from its counters at each scrape."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from kaa_gateway import __version__, logs, stdio
from kaa_gateway.counters import Histogram, bucket_bounds

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.durable import DurableLanes
    from kaa_gateway.bus.link import Link
    from kaa_gateway.counters import Counters
    from kaa_gateway.fleet.directory import SessionDirectory
    from kaa_gateway.fleet.session_storage import SessionStorage
    from kaa_gateway.identity.service import IdentityService
    from kaa_gateway.kp.downlink import Downlink
    from kaa_gateway.kp.pending import PendingRequests
    from kaa_gateway.kp.router import Router
    from kaa_gateway.kp.sessions import Sessions
    from kaa_gateway.kp.uplink import Uplink
    from kaa_gateway.net.admission import Admission
    from kaa_gateway.net.certificates import ServerCredentials


class Queue(NamedTuple):
    """A bounded store that peers can fill."""

    name: str
    depth: Callable[[], int]
    bound: Callable[[], int]


class SpanCounts(Protocol):
    """The tracing of a worker, as far as metrics show it."""

    def counts(self) -> dict[str, int]:
        """Return what became of spans, by outcome."""
        ...


class Observed(Protocol):
    """The parts of a worker that the metrics are read from."""

    admission: Admission
    control: Control
    counters: Counters
    directory: SessionDirectory
    session_storage: SessionStorage | None
    downlink: Downlink
    durable: DurableLanes
    link: Link
    router: Router
    sessions: Sessions
    identity: IdentityService
    credentials: list[ServerCredentials[Any]]
    uplink: Uplink

    @property
    def tracing(self) -> SpanCounts | None:
        """The tracing, if it is enabled."""
        ...

    pending: dict[str, PendingRequests]
    """By protocol."""
    queues: list[Queue]


BY_VERSION = {
    "messages_in": "Messages received from devices: forwarded, refused or ignored.",
    "bytes_in": "Payload bytes received from devices.",
    "messages_out": "Messages from extensions delivered to a device's session.",
    "bytes_out": "Payload bytes delivered to devices' sessions.",
}
BY_PROTOCOL = {
    "connections_opened": "Device connections accepted.",
    "connections_closed": "Device connections closed.",
}
BOUNDS = [*(str(bound) for bound in bucket_bounds()), "+Inf"]


DURABLE_COUNTERS = (
    ("stored", "Messages that a stream has confirmed.", "stored"),
    ("resent", "Messages sent to a stream again.", "resent"),
    (
        "abandoned",
        "Messages given up: no stream has confirmed them, and they are not sent again.",
        "abandoned",
    ),
    ("refusals", "Publications that a stream answered with an error, or not in time.", "refusals"),
)
"""Name, help text, and attribute of a lane."""


class WorkerCollector(Collector):
    """The metrics of one worker."""

    def __init__(self, worker: Observed) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        """Read the counters now."""
        yield from self._traffic()
        yield from self._nats()
        yield from self._requests()
        yield from _identity(self._worker.identity)
        yield from self._certificates()
        yield from self._spans()
        yield from self._state()

    def _traffic(self) -> Iterable[Metric]:
        counters = self._worker.counters
        for name, by_version in counters.by_version().items():
            family = CounterMetricFamily(
                f"kaa_gateway_{name}", BY_VERSION[name], labels=["protocol", "app_version"]
            )
            for labels, value in by_version.items():
                family.add_metric(labels, value)
            yield family
        by_protocol = counters.by_protocol()
        for name, text in BY_PROTOCOL.items():
            family = CounterMetricFamily(f"kaa_gateway_{name}", text, labels=["protocol"])
            for protocol, value in by_protocol[name].items():
                family.add_metric([protocol], value)
            yield family
        connections = GaugeMetricFamily(
            "kaa_gateway_connections",
            "Device connections now; for CoAP and KP/UDP, the remembered addresses.",
            labels=["protocol"],
        )
        for protocol, opened in by_protocol["connections_opened"].items():
            connections.add_metric([protocol], opened - by_protocol["connections_closed"][protocol])
        yield connections
        events = CounterMetricFamily(
            "kaa_gateway_events",
            "Messages and connections refused, dropped, closed or ignored, by reason.",
            labels=["event", "reason"],
        )
        for labels, count in list(counters.by_reason().items()):
            events.add_metric(labels, count)
        yield events
        yield from self._extensions()

    def _extensions(self) -> Iterable[Metric]:
        sent = CounterMetricFamily(
            "kaa_gateway_extension_messages", "Messages sent to an extension.", labels=["extension"]
        )
        unserved = CounterMetricFamily(
            "kaa_gateway_extension_unserved",
            "Messages to an extension that nobody took: no replica of it runs, or NATS forbids its subject.",
            labels=["extension"],
        )
        counts = self._worker.counters.by_extension()
        for name in self._worker.router.extensions():
            messages, dropped = counts[name]
            sent.add_metric([name], messages)
            unserved.add_metric([name], dropped)
        yield from (sent, unserved)

    def _nats(self) -> Iterable[Metric]:
        link = self._worker.link
        for name, text, value in (
            ("nats_blocks_sent", "Blocks of messages written to NATS.", link.blocks_sent),
            ("nats_blocks_confirmed", "Blocks that NATS has confirmed.", link.blocks_confirmed),
            ("nats_bytes_sent", "Bytes written to NATS.", link.bytes_sent),
            ("nats_messages_received", "Messages received from NATS.", link.messages_received),
            ("nats_publications_resent", "Messages sent again after a reconnect.", link.publications_resent),
            (
                "nats_publications_abandoned",
                "QoS 0 messages in unconfirmed blocks when the NATS connection was lost; not sent again.",
                link.publications_abandoned,
            ),
            (
                "nats_unattributed_no_responders",
                "No-responders reports of NATS that match no message sent.",
                link.unattributed_no_responders,
            ),
            ("nats_connects", "Connections made to NATS.", link.connects),
            (
                "events_dropped",
                "Connectivity events lost: NATS was away for too long, or refused them.",
                self._worker.control.dropped,
            ),
        ):
            yield CounterMetricFamily(f"kaa_gateway_{name}", text, value=value)
        yield self._clock_skew()
        yield _gauge("nats_up", "Whether NATS is connected.", int(link.ready))
        yield _gauge(
            "nats_control_up",
            "Whether the control connection to NATS is there.",
            int(self._worker.control.connected),
        )
        yield _gauge("nats_backlog_bytes", "Bytes not yet confirmed by NATS.", link.backlog)
        yield _gauge("nats_blocks_unconfirmed", "Blocks not yet confirmed by NATS.", link.unconfirmed_count())
        confirmation = HistogramMetricFamily(
            "kaa_gateway_nats_confirmation_seconds",
            "From the first message of a block, as read from its device, to the confirmation of the block by NATS.",
        )
        _add_histogram(confirmation, [], link.confirmation)
        yield confirmation
        yield from self._durable()

    def _clock_skew(self) -> Metric:
        family = CounterMetricFamily(
            "kaa_gateway_clock_skew",
            "Messages whose timestamps the clock of this machine contradicts, by the instance that has sent them.",
            labels=["instance"],
        )
        counts = Counter(self._worker.control.clock_skew.counts)
        counts.update(self._worker.downlink.clock_skew.counts)
        for instance, count in counts.items():
            family.add_metric([instance], count)
        return family

    def _durable(self) -> Iterable[Metric]:
        for name, text, attribute in DURABLE_COUNTERS:
            family = CounterMetricFamily(f"kaa_gateway_durable_{name}", text, labels=["extension"])
            for lane in self._worker.durable.lanes:
                family.add_metric([lane.instance], getattr(lane, attribute))
            yield family
        backlog = GaugeMetricFamily(
            "kaa_gateway_durable_backlog_bytes", "Bytes not yet stored by a stream.", labels=["extension"]
        )
        up = GaugeMetricFamily("kaa_gateway_durable_up", "Whether a stream stores.", labels=["extension"])
        for lane in self._worker.durable.lanes:
            backlog.add_metric([lane.instance], lane.backlog())
            up.add_metric([lane.instance], int(not lane.stalled))
        yield backlog
        yield up

    def _certificates(self) -> Iterable[Metric]:
        expiry = GaugeMetricFamily(
            "kaa_gateway_certificate_not_after_seconds",
            "When the certificate of a listener expires, as Unix time.",
            labels=["key"],
        )
        for credentials in self._worker.credentials:
            if credentials.certificate is not None:
                expiry.add_metric([credentials.key], credentials.certificate.not_valid_after_utc.timestamp())
        yield expiry

    def _spans(self) -> Iterable[Metric]:
        if self._worker.tracing is not None:
            family = CounterMetricFamily(
                "kaa_gateway_spans", "Spans of traced messages, by outcome.", labels=["outcome"]
            )
            for outcome, count in self._worker.tracing.counts().items():
                family.add_metric([outcome], count)
            yield family

    def _requests(self) -> Iterable[Metric]:
        expired = CounterMetricFamily(
            "kaa_gateway_requests_expired",
            "Requests that no extension answered in time.",
            labels=["protocol"],
        )
        pending = GaugeMetricFamily(
            "kaa_gateway_requests_pending", "Requests waiting for an extension.", labels=["protocol"]
        )
        latency = HistogramMetricFamily(
            "kaa_gateway_request_seconds",
            "From a request of a device to the answer of its extension. MQTT has none: it keeps no table of requests.",
            labels=["protocol"],
        )
        for protocol, table in self._worker.pending.items():
            expired.add_metric([protocol], table.expired)
            pending.add_metric([protocol], table.count())
            _add_histogram(latency, [protocol], table.latency)
        yield from (expired, pending, latency)

    def _directory(self) -> Iterable[Metric]:
        directory = self._worker.directory
        claims = CounterMetricFamily(
            "kaa_gateway_session_claims",
            "CONNECTs that looked for a session on other workers, by what came of it.",
            labels=["result"],
        )
        for result, count in directory.claims.results.items():
            claims.add_metric([result], count)
        moved = CounterMetricFamily(
            "kaa_gateway_sessions_moved",
            "MQTT sessions that came from another worker, or went to one.",
            labels=["direction"],
        )
        for direction, count in directory.transfers.sessions.items():
            moved.add_metric([direction], count)
        forwarded = CounterMetricFamily(
            "kaa_gateway_session_messages_forwarded",
            "Answers and pushes that were sent after a session which had moved to another worker.",
            labels=["direction"],
        )
        for direction, count in directory.transfers.messages.items():
            forwarded.add_metric([direction], count)
        latency = HistogramMetricFamily(
            "kaa_gateway_session_claim_seconds",
            "From a CONNECT that looks for a session on other workers to their answer.",
        )
        _add_histogram(latency, [], directory.claims.time)
        yield from (claims, moved, forwarded, latency)
        yield _gauge("session_claims_pending", "CONNECTs that wait for other workers.", len(directory.claims))
        yield _gauge(
            "directory_sessions", "Sessions that other workers can ask for.", directory.entry_count()
        )
        yield _gauge(
            "alone", "Whether no other worker of the instance is there.", int(directory.others.alone)
        )

    def _stored_sessions(self) -> Iterable[Metric]:
        storage = self._worker.session_storage
        if storage is None:
            return
        loads = CounterMetricFamily(
            "kaa_gateway_session_loads",
            "CONNECTs that looked for a session in the stream of sessions, by what came of it.",
            labels=["result"],
        )
        for result, count in storage.loads.items():
            loads.add_metric([result], count)
        yield loads
        yield CounterMetricFamily(
            "kaa_gateway_session_writes",
            "Messages that the stream of sessions has stored.",
            value=storage.written,
        )
        yield _gauge(
            "session_writes_pending", "Sessions whose last change is not stored yet.", storage.waiting()
        )

    def _state(self) -> Iterable[Metric]:
        worker = self._worker
        yield _gauge("sessions", "Sessions, those of absent clients included.", worker.sessions.count)
        yield from self._directory()
        yield from self._stored_sessions()
        yield _gauge("endpoints", "Endpoints that sessions or routes name.", len(worker.sessions.endpoints))
        yield _gauge("routes", "Cached routes.", worker.router.route_count())
        yield _gauge(
            "sources", "Source addresses with a rate or connection count.", worker.admission.source_count()
        )
        yield _gauge(
            "messages_waiting",
            "Messages that wait for an identity.",
            worker.uplink.identification.waiting_messages,
        )
        yield CounterMetricFamily(
            "kaa_gateway_log_lines_dropped",
            "Log lines dropped: too many of the same kind, or standard error cannot be written.",
            value=logs.limiter.dropped + stdio.lost(),
        )
        depth = GaugeMetricFamily(
            "kaa_gateway_queue_depth", "Entries or bytes in a bounded queue.", labels=["queue"]
        )
        bound = GaugeMetricFamily("kaa_gateway_queue_bound", "Bound of the queue.", labels=["queue"])
        for queue in worker.queues:
            depth.add_metric([queue.name], queue.depth())
            bound.add_metric([queue.name], queue.bound())
        yield from (depth, bound)
        build = GaugeMetricFamily(
            "kaa_gateway_build_info",
            "Always 1; the versions are in the labels.",
            labels=["version", "python"],
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"kaa_gateway_{name}", text, value=value)


def _add_histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    counts, total = histogram.snapshot()
    family.add_metric(labels, list(zip(BOUNDS, accumulate(counts), strict=True)), total)


def _identity(identity: IdentityService) -> Iterator[Metric]:
    """Yield the metrics of requests to identity providers, about endpoints and about clients."""
    families: dict[str, Metric] = {}
    for asked in identity.statistics():
        for kind, name, text, value in (
            (
                GaugeMetricFamily,
                "in_flight",
                "Questions to the provider that wait for an answer.",
                asked.in_flight,
            ),
            (GaugeMetricFamily, "remembered", "Answers in the cache.", asked.remembered),
            (CounterMetricFamily, "cache_hits", "Questions answered from the cache.", asked.hits),
            (CounterMetricFamily, "cache_misses", "Questions not answered from the cache.", asked.misses),
            (
                CounterMetricFamily,
                "cache_evictions",
                "Answers evicted because the cache was full.",
                asked.evicted,
            ),
            (
                CounterMetricFamily,
                "requests",
                "Messages sent to the provider.",
                sum(each.attempts for each in asked.requests),
            ),
            (
                CounterMetricFamily,
                "unanswered",
                "Messages to the provider that it did not answer in time.",
                sum(each.unanswered for each in asked.requests),
            ),
            (
                CounterMetricFamily,
                "malformed_answers",
                "Answers of the provider that were malformed, or came too late.",
                sum(each.malformed for each in asked.requests),
            ),
        ):
            family = families.get(name)
            if family is None:
                family = families[name] = kind(f"kaa_gateway_identity_{name}", text, labels=["about"])
            assert isinstance(family, kind)
            family.add_metric([asked.name], value)
    yield from families.values()


def registry_of(worker: Observed) -> CollectorRegistry:
    """Return a registry with the metrics of one worker and of its process."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(worker))
    ProcessCollector(registry=registry)
    return registry
