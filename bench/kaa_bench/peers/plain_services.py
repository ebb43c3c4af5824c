"""The work of the reference services on nats-py and fastavro, as it is written without an SDK.

A handler takes the fields of a ClientData and returns the payload of its answer. It stores before it answers, as the
reference services do; metadata of an endpoint are changed one after the other. Reads go to NATS.
"""

import asyncio
import io
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import fastavro
import msgspec
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from kaa_bench.peers.schemas import CLIENT_DATA, EXTENSION_DATA

Kind: TypeAlias = Literal["echo", "dcx", "epmx-get", "epmx-update", "cmx", "cex"]
Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[bytes]]

SIDE_BY_SIDE = ("dcx", "epmx-update")
"""The kinds of which FastStream handles many requests at a time. The others answer in order, as the load expects."""
BUCKET = "plain"
STREAM, SUBJECTS = "plain-samples", "plain.samples.*"
CONFIGURATION = msgspec.json.encode({"configId": ""})


def fields_of(datum: bytes) -> dict[str, Any]:
    """Return the fields of a ClientData."""
    request: Any = fastavro.schemaless_reader(io.BytesIO(datum), CLIENT_DATA, None)
    return dict(request)


def answer_to(request: dict[str, Any], payload: bytes, extension: str) -> bytes:
    """Return the ExtensionData that answers a request with a payload."""
    answer = io.BytesIO()
    fastavro.schemaless_writer(
        answer,
        EXTENSION_DATA,
        {
            "correlationId": request["correlationId"],
            "timestamp": int(time.time() * 1000),
            "timeout": 0,
            "appVersionName": request["appVersionName"],
            "extensionInstanceName": extension,
            "endpointId": request["endpointId"],
            "resourcePath": request["resourcePath"],
            "requestId": request["requestId"],
            "payload": payload,
            "statusCode": 200,
            "reasonPhrase": None,
        },
    )
    return answer.getvalue()


async def handler_of(kind: Kind, jetstream: JetStreamContext) -> Handler:
    """Return the handler of a kind of service, and make what it stores to."""
    if kind == "echo":
        return echo
    if kind == "dcx":
        await jetstream.add_stream(name=STREAM, subjects=[SUBJECTS], max_bytes=1 << 30)
        return Samples(jetstream).store
    bucket = await jetstream.create_key_value(bucket=BUCKET)
    if kind == "epmx-get":
        return Metadata(bucket).get
    if kind == "epmx-update":
        return Metadata(bucket).update
    if kind == "cmx":
        return Configurations(bucket).get
    return Commands(bucket).get


async def echo(request: dict[str, Any]) -> bytes:
    """Answer with the payload."""
    payload: bytes = request["payload"]
    return payload


class Samples:
    """Stores samples in a stream."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream

    async def store(self, request: dict[str, Any]) -> bytes:
        """Check that the payload is JSON, and answer when the stream has it."""
        sample = msgspec.json.decode(request["payload"])
        batch = {
            "timestamp": int(time.time() * 1000),
            "appVersionName": request["appVersionName"],
            "endpointId": request["endpointId"],
            "samples": [sample],
        }
        await self._jetstream.publish(f"plain.samples.{request['endpointId']}", msgspec.json.encode(batch))
        return b""


class Metadata:
    """Reads and changes the metadata of endpoints."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, request: dict[str, Any]) -> bytes:
        """Answer with the metadata."""
        return await _value(self._bucket, request["endpointId"]) or b"{}"

    async def update(self, request: dict[str, Any]) -> bytes:
        """Change some keys."""
        endpoint = request["endpointId"]
        changes: dict[str, Any] = msgspec.json.decode(request["payload"])
        async with self._locks[endpoint]:
            try:
                entry = await self._bucket.get(endpoint)
            except KeyNotFoundError:
                await self._bucket.create(endpoint, msgspec.json.encode(changes))
            else:
                values = msgspec.json.decode(entry.value or b"{}") | changes
                await self._bucket.update(endpoint, msgspec.json.encode(values), last=entry.revision)
        return b""


class Configurations:
    """Answers requests for configurations."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def get(self, request: dict[str, Any]) -> bytes:
        """Answer with the configuration of the endpoint unless it has that already."""
        known = msgspec.json.decode(request["payload"])
        current = await _value(self._bucket, f"config-{request['endpointId']}") or CONFIGURATION
        return b"{}" if msgspec.json.decode(current)["configId"] == known["configId"] else current


class Commands:
    """Answers requests for outstanding commands."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def get(self, request: dict[str, Any]) -> bytes:
        """Answer with the commands."""
        return await _value(self._bucket, f"commands-{request['endpointId']}") or b"[]"


async def _value(bucket: KeyValue, key: str) -> bytes | None:
    try:
        return (await bucket.get(key)).value
    except KeyNotFoundError:
        return None
