"""The rest of a Kaa cluster, played by a nats-py client: sees what the gateway publishes, and sends ExtensionData.

It reads ClientData and writes ExtensionData with fastavro (tests/support/schemas.py), so that it owes nothing to our
own codec. Extension services that answer by themselves are those of `ext`.

Source: 4/ESP; 9/ELCE, connectivity events.
"""

import asyncio
import io
import time
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

import fastavro
from kaa_gateway.bus import subjects
from kaa_gateway.bus.flushing import flush
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support import schemas
from tests.support.esp import until
from tests.support.gateway import INSTANCE, REPLICA

ELCE_NAMESPACE = "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity"


def _connectivity_schema(name: str) -> dict[str, Any]:
    return {
        "type": "record",
        "name": f"{ELCE_NAMESPACE}.{name}",
        "fields": [
            {"name": "correlationId", "type": "string"},
            {"name": "timestamp", "type": "long"},
            {"name": "timeout", "type": "long", "default": 0},
            {"name": "endpoints", "type": {"type": "map", "values": "string"}},
            {"name": "originatorReplicaId", "type": "string"},
        ],
    }


STATISTICS = (
    "totalReceivedPayload",
    "totalSentPayload",
    "totalReceivedMessageCount",
    "totalSentMessageCount",
)


def _map(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "map", "values": values}


TRAFFIC_SCHEMA = {
    "type": "record",
    "name": "org.kaaproject.ipc.event.gen.v1.endpoint.traffic.reporting.TrafficReportEvent",
    "fields": [
        {
            "name": "tenantTrafficStats",
            "type": _map(
                _map(
                    _map(
                        {
                            "name": "trafficStat",
                            "type": "record",
                            "fields": [{"name": name, "type": "long", "default": 0} for name in STATISTICS],
                        }
                    )
                )
            ),
        },
        {"name": "timeFrom", "type": "long"},
        {"name": "timeTo", "type": "long"},
        {"name": "correlationId", "type": "string"},
        {"name": "originatorReplicaId", "type": "string"},
        {"name": "timestamp", "type": "long"},
        {"name": "timeout", "type": "long", "default": 0},
    ],
}

OUR_EVENT_SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "connected": ("0009-ep-connected", _connectivity_schema("ConnectedEvent")),
    "disconnected": ("0009-ep-disconnected", _connectivity_schema("DisconnectedEvent")),
    "payload": ("0009-ep-traffic-stats", TRAFFIC_SCHEMA),
}
"""9/ELCE, restated: by the last token of the subject, with the name of the RFC's schema."""

EVENT_SCHEMAS = {kind: schemas.rfc_schema(name, ours) for kind, (name, ours) in OUR_EVENT_SCHEMAS.items()}
"""The schemas of the RFC where they are at hand, else our restatements."""


def read_event(kind: str, datum: bytes) -> dict[str, Any]:
    """Return the fields of an event, which must be all that is in the datum."""
    source = io.BytesIO(datum)
    fields = fastavro.schemaless_reader(source, EVENT_SCHEMAS[kind], None)
    assert isinstance(fields, dict)
    assert not source.read()
    return fields


TO_INSTANCE = subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA)
TO_REPLICA = subjects.replica(REPLICA, "esp", subjects.EXTENSION_DATA)


class Request(NamedTuple):
    """A ClientData as it came: its fields by their names in 4/ESP, and where it went."""

    fields: dict[str, Any]
    subject: str
    reply: str


class Cluster:
    """A NATS client that stands for the extension instances `extensions`, without answering.

    `requests` holds their ClientData, `events` the connectivity events as (type, fields), `reports` the traffic
    reports, in order.
    """

    def __init__(self, url: str, *extensions: str) -> None:
        self.nats = Client()
        self.requests: list[Request] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.reports: list[dict[str, Any]] = []
        self._url = url
        self._extensions = extensions

    async def __aenter__(self) -> Self:
        await self.nats.connect(self._url, allow_reconnect=False)
        for name in self._extensions:
            await self.subscribe(subjects.service(name, "esp", subjects.CLIENT_DATA), queue=name)
        await self.nats.subscribe(
            subjects.event(INSTANCE, "endpoint", "connectivity", "*"), cb=self._collect_event
        )
        await self.nats.subscribe(
            subjects.event(INSTANCE, "endpoint", "traffic-reporting", "payload"), cb=self._collect_event
        )
        await flush(self.nats)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.nats.close()

    async def subscribe(self, subject: str, queue: str = "") -> None:
        """Collect the ClientData on one more subject."""
        await self.nats.subscribe(subject, queue=queue, cb=self._collect)
        await flush(self.nats)

    async def next_requests(self, count: int, *, after: int = 0) -> list[Request]:
        """Return the `count` requests that follow the first `after`, as soon as they are there."""
        await until(
            lambda: len(self.requests) >= after + count,
            f"{after + count} requests, got {len(self.requests)}",
        )
        return self.requests[after : after + count]

    async def request(self) -> Request:
        """Return the only request so far, as soon as it is there."""
        (request,) = await self.next_requests(1)
        return request

    async def connectivity(self, kind: str, endpoint_id: str) -> dict[str, Any]:
        """Return the first event of a kind ("connected", "disconnected") that names the endpoint."""
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            found.extend(
                fields for name, fields in self.events if name == kind and endpoint_id in fields["endpoints"]
            )
            return bool(found)

        await until(seen, f"a {kind} event of {endpoint_id}")
        return found[0]

    async def answer(self, request: Request, payload: bytes | None = b"", **changes: Any) -> None:
        """Answer a request at its reply-to, as its extension; `changes` are fields of ExtensionData."""
        fields = request.fields
        echoed = ("correlationId", "appVersionName", "endpointId", "resourcePath", "requestId")
        await self.send(
            request.reply,
            extensionInstanceName=request.subject.split(".")[3],
            payload=payload,
            **{**{name: fields[name] for name in echoed}, **changes},
        )

    async def push(
        self,
        endpoint_id: str | None,
        payload: bytes | None = b"",
        *,
        subject: str = TO_INSTANCE,
        **changes: Any,
    ) -> None:
        """Send an endpoint an ExtensionData that it did not ask for."""
        await self.send(subject, endpointId=endpoint_id, payload=payload, **changes)

    async def send(self, subject: str, *, reply: str = "", **changes: Any) -> None:
        """Publish an ExtensionData and return when NATS has it; fields that are not given have usual values."""
        fields: dict[str, Any] = {
            "correlationId": str(uuid4()),
            "timestamp": time.time_ns() // 1_000_000,
            "timeout": 0,
            "appVersionName": "app_v1",
            "extensionInstanceName": "dcx",
            "endpointId": None,
            "resourcePath": "/json",
            "requestId": None,
            "payload": b"",
            "statusCode": 200,
            "reasonPhrase": None,
        }
        assert changes.keys() <= fields.keys()
        datum = schemas.encode("0004-extension-data", fields | changes)
        await self.nats.publish(subject, datum, reply)
        await asyncio.wait_for(flush(self.nats), 10)

    async def _collect(self, message: Msg) -> None:
        fields = schemas.decode("0004-client-data", message.data)
        self.requests.append(Request(fields, message.subject, message.reply))

    async def _collect_event(self, message: Msg) -> None:
        kind = message.subject.rpartition(".")[2]
        fields = read_event(kind, message.data)
        if kind == "payload":
            self.reports.append(fields)
        else:
            self.events.append((kind, fields))
