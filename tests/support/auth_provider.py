"""An authentication service as a test wants it: 16/ECAP and 22/CAP over nats-py, with the schemas of the RFCs.

Every request must be a datum of its RFC's schema, and every answer and event is one.
"""

import asyncio
import io
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import fastavro
from kaa_gateway.bus.flushing import flush
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.schemas import rfc_schema
from tests.unit.bus.test_messages import TYPES

INSTANCE = "auth"

EXCHANGES = {
    "ecap.ep-token": "0016-endpoint-token-validation",
    "ecap.ep-token-status-transition": "0016-endpoint-token-status-transition",
    "ecap.client-username-password": "0016-client-username-password-validation",
    "ecap.client-certificate": "0016-client-certificate-validation",
    "cap.basic": "0022-basic-authentication",
    "cap.certificate": "0022-certificate-authentication",
}
"""What stands in subjects, and the files of the RFCs without `-request` and `-response`."""

EVENTS = {
    "endpoint.token.revoked": "0016-endpoint-token-revoked",
    "client.credential.revoked": "0016-client-credential-revoked",
    "client-credentials.basic.revoked": "0022-credentials-revoked",
    "client-credentials.certificate.revoked": "0022-credentials-revoked",
    "tenant.lifecycle.unregistered": "0021-tenant-unregistered",
    "tenant.lifecycle.updated": "0021-tenant-updated",
    "endpoint.lifecycle.unregistered": "0009-ep-unregistered",
    "endpoint.lifecycle.appversion-updated": "0009-ep-appversion-updated",
}

_SCHEMAS: dict[str, Any] = {
    name: fastavro.parse_schema(rfc_schema(name, TYPES[name].schema)) for name in TYPES
}


def _datum(name: str, fields: dict[str, Any]) -> bytes:
    head = {"correlationId": str(uuid4()), "timestamp": time.time_ns() // 1_000_000, "timeout": 0}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _SCHEMAS[name], head | fields)
    return out.getvalue()


class AuthProvider:
    """Knows `tokens` by (application, token), as (endpoint ID, token ID), and `clients` by what is asked of them.

    A client is asked for by (user name, password) in 16/ECAP, (tenant, user name, password) in 22/CAP, and (issuer,
    serial number) by certificate; it is a mapping of fields of the answer. `asked` counts requests by what stands in
    their subjects, `requests` holds them. It answers nothing while `silent`, and every request with `status` if that is
    set. `most_at_once` is how many requests waited for their answers at one time.
    """

    def __init__(self, url: str) -> None:
        self.tokens: dict[tuple[str, str], tuple[str, str]] = {}
        self.clients: dict[tuple[str, ...], dict[str, str]] = {}
        self.asked: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.silent = False
        self._held: list[tuple[str, dict[str, Any], Msg]] = []
        self.status: int | None = None
        self.delay = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._url = url
        self._nats = Client()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._nats.connect(self._url, allow_reconnect=False)
        for kind in EXCHANGES:
            await self._nats.subscribe(f"kaa.v1.service.{INSTANCE}.{kind}-request", INSTANCE, self._receive)
        await flush(self._nats)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._nats.close()

    async def tell(self, event: str, **fields: Any) -> None:
        """Publish an event, and return when NATS has it."""
        datum = _datum(EVENTS[event], {"originatorReplicaId": "auth-1", **fields})
        await self._nats.publish(f"kaa.v1.events.{INSTANCE}.{event}", datum)
        await flush(self._nats)

    async def answer_held(self) -> None:
        """Answer what came while it was silent."""
        held, self._held = self._held, []
        for request in held:
            self._at_once += 1
            await self._answer(*request)

    async def _receive(self, message: Msg) -> None:
        kind = ".".join(message.subject.split(".")[4:]).removesuffix("-request")
        source = io.BytesIO(message.data)
        fields = fastavro.schemaless_reader(source, _SCHEMAS[f"{EXCHANGES[kind]}-request"], None)
        assert isinstance(fields, dict)
        assert not source.read()
        assert message.reply.startswith("kaa.v1.replica.")
        assert message.reply.endswith(f".{kind}-response")
        self.asked[kind] += 1
        self.requests.append((kind, fields))
        if self.silent:
            self._held.append((kind, fields, message))
            return
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        if self.delay:
            task = asyncio.create_task(self._answer_later(kind, fields, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            await self._answer(kind, fields, message)

    async def _answer_later(self, kind: str, fields: dict[str, Any], message: Msg) -> None:
        await asyncio.sleep(self.delay)
        await self._answer(kind, fields, message)

    async def _answer(self, kind: str, fields: dict[str, Any], message: Msg) -> None:
        self._at_once -= 1
        answer = self._answer_to(kind, fields)
        if self.status is not None:
            answer["statusCode"] = self.status
        name = f"{EXCHANGES[kind]}-response"
        nothing = {field["name"]: None for field in _SCHEMAS[name]["fields"]}
        answer = nothing | {"correlationId": fields["correlationId"], "timestamp": 1, "timeout": 0} | answer
        await message.respond(_datum(name, answer))

    def _answer_to(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        if kind == "ecap.ep-token-status-transition":
            return {"statusCode": 200}
        if kind == "ecap.ep-token":
            found = self.tokens.get((fields["appName"], fields["token"]))
            if found is None:
                return {"statusCode": 404, "reasonPhrase": "No such token"}
            return {"statusCode": 200, "endpointId": found[0], "tokenId": found[1]}
        names = ("tenantId", "username", "password", "issuer", "serialNumber")
        client = self.clients.get(tuple(fields[name] for name in names if name in fields))
        return {"statusCode": 401} if client is None else {"statusCode": 200, **client}
