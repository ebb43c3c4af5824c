"""Requests over HTTP that wait for a push, and pushes for them."""

import uuid

from kaa_gateway.bus import subjects
from kaa_gateway.bus.flushing import flush
from kaa_gateway.wire.esp import encode_extension_data

from tests.support.esp import until
from tests.support.http_gateway import HttpGateway, RawClient, post

PATH = "/kp1/app-v1/dcx/token/command"


async def push(
    gateway: HttpGateway,
    path: str = "/command",
    payload: bytes = b"[1]",
    *,
    endpoint_id: str = "token",
    extension: str | None = "dcx",
    status: int = 200,
    phrase: str | None = None,
    push_id: str | None = None,
) -> None:
    datum = encode_extension_data(
        push_id or str(uuid.uuid4()), 0, 0, None, extension, endpoint_id, path, None, payload, status, phrase
    )
    nats = gateway.extension.nats
    await nats.publish(subjects.service("kpc", "esp", subjects.EXTENSION_DATA), datum)
    await flush(nats)


async def dropped(gateway: HttpGateway, count: int) -> None:
    await until(lambda: gateway.counted("dropped", "no_session") == count, "the push to be dropped")


def present(gateway: HttpGateway) -> int:
    """How many requests and watches make the endpoint count as connected."""
    found = gateway.worker.sessions.endpoints.get(b"token")
    return 0 if found is None else found.present_count


async def wait_for_push(
    gateway: HttpGateway, client: RawClient, query: str = "wait=20", body: bytes = b""
) -> None:
    """Send a request, and return when it waits."""
    await send_and_wait(gateway, client, post(f"{PATH}?{query}", body))


async def send_and_wait(gateway: HttpGateway, client: RawClient, request: bytes) -> None:
    """Send the bytes of a request, and return when it waits."""
    before = present(gateway)
    await client.send(request)
    await gateway.extension.request()
    await until(lambda: present(gateway) > max(before, 1), "the endpoint to count as connected")
