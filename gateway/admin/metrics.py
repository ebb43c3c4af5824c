"""Prometheus metrics: read from the worker's counters when somebody scrapes, and at no other time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from gateway.bus.control import Control
    from gateway.bus.durable import DurableLanes
    from gateway.bus.link import Link
    from gateway.identity.service import IdentityService
    from gateway.kp.counters import Counters
    from gateway.kp.pending import PendingRequests
    from gateway.kp.router import Router
    from gateway.kp.sessions import Sessions
    from gateway.transports.admission import Admission
    from gateway.transports.certificates import ServerCredentials


class Observed(Protocol):
    """What a worker shows."""

    admission: Admission
    control: Control
    counters: Counters
    durable: DurableLanes
    link: Link
    router: Router
    sessions: Sessions
    pending: list[PendingRequests]
    identity: IdentityService
    credentials: list[ServerCredentials[Any]]


BY_PROTOCOL = {
    "messages_in": "Messages received from devices.",
    "bytes_in": "Payload bytes received from devices.",
    "messages_out": "Messages sent to devices.",
    "bytes_out": "Payload bytes sent to devices.",
    "connections_opened": "Device connections accepted.",
    "connections_closed": "Device connections that have ended.",
}


DURABLE_COUNTERS = (
    ("stored", "Messages that a stream has confirmed.", "stored"),
    ("resent", "Messages sent to a stream again.", "resent"),
    ("abandoned", "Messages that no stream has confirmed and that are not sent again.", "abandoned"),
    ("refusals", "Answers of a stream that did not store a message, and silences.", "refusals"),
)
"""Name, text, and attribute of a lane."""


class WorkerCollector(Collector):
    """The metrics of one worker."""

    def __init__(self, worker: Observed) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        """Read the counters now."""
        worker = self._worker
        for name, values in worker.counters.by_protocol().items():
            family = CounterMetricFamily(f"kaa_gateway_{name}", BY_PROTOCOL[name], labels=["protocol"])
            for protocol, value in values.items():
                family.add_metric([protocol], value)
            yield family
        events = CounterMetricFamily(
            "kaa_gateway_events",
            "What was refused, dropped, closed or ignored, and why.",
            labels=["event", "reason"],
        )
        for (event, reason), count in list(worker.counters.by_reason().items()):
            events.add_metric([event, reason], count)
        yield events
        yield from _identity(worker.identity)
        link = worker.link
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
                "Reports of a missing extension that name no message of ours.",
                link.unattributed_no_responders,
            ),
            ("nats_connects", "Connections made to NATS.", link.connects),
            (
                "events_dropped",
                "Connectivity events lost because NATS was away for too long, or refused them.",
                worker.control.dropped,
            ),
            (
                "requests_expired",
                "Requests that no extension answered in time.",
                sum(table.expired for table in worker.pending),
            ),
        ):
            yield CounterMetricFamily(f"kaa_gateway_{name}", text, value=value)
        for name, text, attribute in DURABLE_COUNTERS:
            family = CounterMetricFamily(f"kaa_gateway_durable_{name}", text, labels=["instance"])
            for lane in worker.durable.lanes:
                family.add_metric([lane.instance], getattr(lane, attribute))
            yield family
        backlog = GaugeMetricFamily(
            "kaa_gateway_durable_backlog_bytes", "Bytes not yet stored by a stream.", labels=["instance"]
        )
        up = GaugeMetricFamily("kaa_gateway_durable_up", "Whether a stream stores.", labels=["instance"])
        for lane in worker.durable.lanes:
            backlog.add_metric([lane.instance], lane.backlog())
            up.add_metric([lane.instance], int(not lane.stalled))
        yield backlog
        yield up
        expiry = GaugeMetricFamily(
            "kaa_gateway_certificate_not_after_seconds",
            "When the certificate that a listener shows expires, as Unix time.",
            labels=["key"],
        )
        for credentials in worker.credentials:
            if credentials.certificate is not None:
                expiry.add_metric([credentials.key], credentials.certificate.not_valid_after_utc.timestamp())
        yield expiry
        for name, text, gauge in (
            ("nats_up", "Whether NATS is connected.", int(link.ready)),
            ("nats_backlog_bytes", "Bytes not yet confirmed by NATS.", link.backlog),
            ("sessions", "Sessions, those of absent clients included.", worker.sessions.count),
            ("endpoints", "Endpoints that sessions or routes name.", worker.sessions.endpoint_count()),
            ("routes", "Cached routes.", worker.router.route_count()),
            ("sources", "Sources that rates or connections are counted of.", worker.admission.source_count()),
            (
                "requests_pending",
                "Requests waiting for an extension.",
                sum(table.count() for table in worker.pending),
            ),
        ):
            yield GaugeMetricFamily(f"kaa_gateway_{name}", text, value=gauge)


def _identity(identity: IdentityService) -> Iterator[Metric]:
    """How identity providers that are services have been asked, about endpoints and about clients."""
    families: dict[str, Metric] = {}
    for asked in identity.asked():
        for kind, name, text, value in (
            (GaugeMetricFamily, "in_flight", "Questions that wait for an answer.", asked.in_flight),
            (GaugeMetricFamily, "remembered", "Answers remembered.", asked.remembered),
            (CounterMetricFamily, "cache_hits", "Questions answered from memory.", asked.hits),
            (CounterMetricFamily, "cache_misses", "Questions not answered from memory.", asked.misses),
            (CounterMetricFamily, "cache_evictions", "Answers forgotten for want of room.", asked.evicted),
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
                "Answers of the provider that were none, or came too late.",
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
    """A registry that holds one worker's metrics and nothing else."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(worker))
    return registry
