"""Traces from a device to its extension and back, as a collector of OpenTelemetry sees them.

Source: W3C Trace Context; OpenTelemetry semantic conventions, "Messaging spans".
"""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kaa_bench.mqtt_packets import Puback, Publish
from kaa_ext import Extension, Request, Response
from kaa_ext.sdk.tracing import Tracing
from kaa_gateway.bus.flushing import flush
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.cluster import Cluster
from tests.support.coap import CoapClient
from tests.support.collector import Collector, Span
from tests.support.esp import until
from tests.support.extensions import running
from tests.support.gateway import GatewayProcess, merged
from tests.support.mqtt import mqtt_client
from tests.support.nats import HOST, NatsServer

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-9a-f]")
TOKEN = "secret-token-of-a-device"
PAYLOAD = b"secret-payload-of-a-device"
ECHO = "kaa.v1.service.echo.esp.ClientData"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server


def settings(collector: Collector, ratio: float = 1.0) -> dict[str, Any]:
    tracing = {"enabled": True, "sample-ratio": ratio, "endpoint": collector.url}
    return {"kaa": {"kpc": {"tracing": tracing}}}


FAST = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
"""Milliseconds until a batch leaves."""


def echo(nats_url: str) -> Extension:
    extension = Extension("echo", nats_urls=[nats_url])

    @extension.handler("/failing/{why}")
    async def fail(request: Request) -> Response:
        return Response(503)

    @extension.handler("*")
    async def same(request: Request) -> bytes:
        trace.get_current_span().add_event("handled")
        return request.payload

    return extension


async def post(gateway: GatewayProcess, path: str, payload: bytes = PAYLOAD) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        url = f"http://{HOST}:{gateway.http_port}/kp1/app_v1/{path}"
        return await client.post(url, content=payload, timeout=60)


async def spans(collector: Collector, count: int) -> list[Span]:
    return await asyncio.to_thread(collector.wait, count)


async def test_a_request_is_one_trace_in_gateway_and_extension(
    nats_server: NatsServer, collector: Collector
) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "echo"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")))
    extension = echo(nats_server.url)
    Tracing(provider).watch(extension)
    environment = {
        **FAST,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=acme",
    }
    with GatewayProcess(nats_server.url, settings(collector), environment=environment) as gateway:
        async with extension:
            assert (await post(gateway, f"echo/{TOKEN}/any/thing")).content == PAYLOAD
            assert (await post(gateway, f"echo/{TOKEN}/failing/now")).status_code == 503
            found = await spans(collector, 4)
        sent = {span.span_id: span for span in found if span.kind == "producer"}
        handled = [span for span in found if span.kind == "consumer"]
        assert (len(sent), len(handled)) == (2, 2)
        for span in handled:
            parent = sent[span.parent_span_id]
            assert (span.name, parent.name) == (f"process {ECHO}", f"publish {ECHO}")
            assert span.trace_id == parent.trace_id
            assert span.attributes["kaa.status_code"] == parent.attributes["kaa.status_code"]
            assert span.failed == parent.failed == (span.attributes["kaa.status_code"] == 503)
            identifier = "messaging.message.conversation_id"
            assert span.attributes[identifier] == parent.attributes[identifier]
            assert parent.seconds >= span.seconds >= 0
            assert parent.parent_span_id == ""
            assert parent.attributes["kaa.protocol"] == "http"
            assert parent.resource["service.name"] == "kpc"
            assert parent.resource["deployment.environment.name"] == "test"
            assert span.resource["service.name"] == "echo"
        assert {span.attributes["kaa.route"] for span in handled} == {"*", "/failing/{why}"}
        assert [span.events for span in handled if not span.failed] == [["handled"]]
        assert gateway.count("spans", "exported") == 2
    assert collector.paths == {"/v1/traces"}
    assert TOKEN.encode() not in collector.raw
    assert PAYLOAD not in collector.raw


async def test_each_way_in_to_its_end(nats_server: NatsServer, collector: Collector) -> None:
    """To the confirmation by NATS without a request ID, to the answer with one, and to the failure."""
    with GatewayProcess(nats_server.url, settings(collector), environment=FAST) as gateway:
        async with Cluster(nats_server.url, "echo") as cluster, mqtt_client(gateway.mqtt_port) as device:
            await device.send(Publish(f"kp1/app_v1/echo/{TOKEN}/a", PAYLOAD, 1, 1))
            assert await device.expect(Puback) == Puback(1)
            (confirmed,) = await spans(collector, 1)
            assert (confirmed.failed, confirmed.events) == (False, ["confirmed"])
            assert "kaa.status_code" not in confirmed.attributes
            await device.send(Publish(f"kp1/app_v1/echo/{TOKEN}/a/7", PAYLOAD, 0, 0))
            (_, request) = await cluster.next_requests(2)
            await cluster.answer(request, b"answer")
            assert (await device.expect(Publish)).payload == b"answer"
            answered = (await spans(collector, 2))[1]
            assert answered.attributes["kaa.status_code"] == 200
            assert answered.attributes["kaa.protocol"] == "mqtt"
        async with CoapClient(gateway.coap_port) as client:
            await client.post(f"kp1/app_v1/dcx/{TOKEN}", PAYLOAD)
        refused = (await spans(collector, 3))[2]
        assert (refused.failed, refused.attributes["error.type"]) == (True, "no_responders")
        assert refused.attributes["kaa.protocol"] == "coap"


async def test_only_messages_drawn_by_lot_have_a_header(
    nats_server: NatsServer, collector: Collector
) -> None:
    with GatewayProcess(nats_server.url, settings(collector, 0.5), environment=FAST) as gateway:
        async with Cluster(nats_server.url) as cluster:
            headers: list[dict[str, str] | None] = []

            async def collect(message: Any) -> None:
                headers.append(message.headers)

            await cluster.nats.subscribe(ECHO, cb=collect)
            await flush(cluster.nats)
            async with mqtt_client(gateway.mqtt_port) as device:
                await device.send(*(Publish(f"kp1/app_v1/echo/{TOKEN}/a", b"x", 1, n) for n in range(1, 201)))
                for _ in range(200):
                    await device.expect(Puback)
            await until(lambda: len(headers) == 200, "the messages")
        gateway.stop()
    drawn = [TRACEPARENT.fullmatch(each["traceparent"]) for each in headers if each]
    assert 0 < len(drawn) < 200
    assert sorted(each.groups() for each in drawn if each) == sorted(
        (span.trace_id, span.span_id) for span in collector.spans
    )


async def test_a_stream_keeps_the_context_for_its_consumers(collector: Collector) -> None:
    with NatsServer(jetstream=True) as nats_server:
        durable = {"kaa": {"extension-instances": {"echo": {"endpoint-aware": True, "durable": True}}}}
        changes = merged(settings(collector), durable)
        extension = Extension("echo", nats_urls=[nats_server.url], durable=True)
        parents: list[str | None] = []

        @extension.handler("*")
        async def note(request: Request) -> None:
            parents.append(request.trace_parent)

        with GatewayProcess(nats_server.url, changes, environment=FAST) as gateway:
            async with extension, mqtt_client(gateway.mqtt_port) as device:
                await device.send(Publish(f"kp1/app_v1/echo/{TOKEN}/a", PAYLOAD, 1, 1))
                assert await device.expect(Puback) == Puback(1)
                (span,) = await spans(collector, 1)
                await until(lambda: bool(parents), "the message")
        assert parents[0] is not None
        matched = TRACEPARENT.fullmatch(parents[0])
        assert matched is not None
        assert matched.groups() == (span.trace_id, span.span_id)
        assert (span.failed, span.events) == (False, ["confirmed"])


async def test_a_nats_server_without_headers(collector: Collector) -> None:
    with (
        NatsServer(config="no_header_support: true") as nats_server,
        GatewayProcess(nats_server.url, settings(collector), environment=FAST) as gateway,
    ):
        async with echo(nats_server.url):
            assert (await post(gateway, f"echo/{TOKEN}/any")).content == PAYLOAD
        (span,) = await spans(collector, 1)
        assert span.attributes["kaa.status_code"] == 200


async def test_without_a_collector_messages_flow_and_spans_are_counted(
    nats_server: NatsServer, collector: Collector
) -> None:
    collector.stop()
    environment = {
        **FAST,
        "OTEL_BSP_MAX_QUEUE_SIZE": "8",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with GatewayProcess(nats_server.url, settings(collector), environment=environment) as gateway:
        async with Cluster(nats_server.url, "echo"), mqtt_client(gateway.mqtt_port) as device:
            for first in range(1, 200, 50):
                numbers = range(first, first + 50)
                await device.send(*(Publish(f"kp1/app_v1/echo/{TOKEN}/a", b"", 1, n) for n in numbers))
                assert [await device.expect(Puback) for _ in numbers] == [Puback(n) for n in numbers]
            assert gateway.count("spans", "dropped") >= 200 - 8 * 4
            assert gateway.count("queue_depth", "spans") <= gateway.count("queue_bound", "spans") == 8
            await until(lambda: gateway.count("spans", "failed") > 0, "a batch that fails")
            collector.start()
            await device.send(Publish(f"kp1/app_v1/echo/{TOKEN}/a", b"", 1, 1))
            await device.expect(Puback)
            await until(lambda: bool(collector.spans), "the collector to be found again")
        assert gateway.log.count("spans cannot be exported") >= 1
        assert TOKEN not in gateway.log


async def test_the_reference_services_continue_a_trace(
    nats_server: NatsServer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", FAST["OTEL_BSP_SCHEDULE_DELAY"])
    with GatewayProcess(nats_server.url, settings(collector), environment=FAST) as gateway:
        async with running("tsx", "--tracing", nats_url=nats_server.url):
            assert (await post(gateway, f"tsx/{TOKEN}/time", b"")).status_code == 200
            found = await spans(collector, 2)
    assert {(span.kind, span.resource["service.name"]) for span in found} == {
        ("producer", "kpc"),
        ("consumer", "kaa-ext"),
    }
    assert len({span.trace_id for span in found}) == 1
