"""CoAP requests that wait for a push: `wait` in the query.

Source: docs/coap.md, "Wait for a push".
"""

import uuid
from collections.abc import AsyncIterator

import pytest
from kaa_ext import Extension, Request
from kaa_gateway.bus import subjects
from kaa_gateway.kp.revocation import Revocation
from kaa_gateway.wire.coap import Message
from kaa_gateway.wire.esp import encode_extension_data
from nats.aio.client import Client

from tests.support.coap import (
    ACK,
    CON,
    GET,
    LOCATION_PATH,
    NO_RESPONSE,
    NON,
    OBSERVE,
    POST,
    RST,
    URI_QUERY,
    CoapClient,
    RunningCoapServer,
    coap_server,
    uint,
)
from tests.support.esp import until
from tests.support.gateway import INSTANCE, REPLICA
from tests.support.nats import NatsServer
from tests.support.slices import finished

PATH = "kp1/app_v1/dcx/token/command"
CHANGED, CONTENT, VALID = 0x44, 0x45, 0x43
BAD_REQUEST, UNAVAILABLE = 0x80, 0xA3


class Platform:
    """The extension `dcx`: notes what it is asked, and pushes."""

    def __init__(self, nats: Client, extension: Extension) -> None:
        self.requests: list[Request] = []
        self.nats = nats
        self.extension = extension
        extension.handler("*")(self.note)

    async def note(self, request: Request) -> None:
        self.requests.append(request)

    async def push(
        self,
        path: str = "/command",
        payload: bytes = b"[1]",
        *,
        endpoint_id: str = "token",
        status: int = 200,
    ) -> None:
        datum = encode_extension_data(
            str(uuid.uuid4()), 0, 0, None, "dcx", endpoint_id, path, None, payload, status, None
        )
        await self.nats.publish(subjects.service(INSTANCE, "esp", subjects.EXTENSION_DATA), datum)
        await self.nats.flush()


@pytest.fixture
async def platform(shared_nats: NatsServer) -> AsyncIterator[Platform]:
    nats = Client()
    await nats.connect(shared_nats.url)
    extension = Extension("dcx", nats_urls=(shared_nats.url,))
    found = Platform(nats, extension)
    async with extension:
        yield found
    await nats.close()


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[RunningCoapServer]:
    async with coap_server(shared_nats.url, observers_per_peer=2, observers=3) as server:
        yield server


@pytest.fixture
async def client(server: RunningCoapServer) -> AsyncIterator[CoapClient]:
    async with CoapClient(server.port) as client:
        yield client


def wait(client: CoapClient, seconds: str = "20", path: str = PATH, **changes: object) -> Message:
    """Return a request that waits."""
    options = changes.pop("options", ())
    return client.request(path, b"", (URI_QUERY, b"wait=" + seconds.encode()), *options, **changes)  # type: ignore[arg-type, misc]


async def begin(client: CoapClient, server: RunningCoapServer, request: Message | None = None) -> Message:
    """Send a request, and return it when it waits and is acknowledged."""
    request = wait(client) if request is None else request
    before = server.tables["waits"]
    client.send(request)
    await until(lambda: server.tables["waits"] > before, "the request to wait")
    if request.type == CON:
        acknowledgement = await client.receive()
        assert (acknowledgement.type, acknowledgement.code) == (ACK, 0)
        assert acknowledgement.message_id == request.message_id
    return request


def location(message: Message) -> list[bytes]:
    return [value for number, value in message.options if number == LOCATION_PATH]


@pytest.mark.parametrize(("method", "code"), [(POST, CHANGED), (GET, CONTENT)])
async def test_the_first_push_is_a_separate_response(
    server: RunningCoapServer, client: CoapClient, platform: Platform, method: int, code: int
) -> None:
    request = await begin(client, server, wait(client, method=method))
    assert server.presence.present == {"token"}
    await platform.push("/command/reboot", b'{"open": true}')
    response = await client.receive()
    assert (response.type, response.code, response.token) == (CON, code, request.token)
    assert response.payload == b'{"open": true}'
    assert location(response) == [b"command", b"reboot"]
    assert not server.presence.present
    assert server.tables["waits"] == 0
    assert server.tables["transmissions"] == 1
    client.acknowledge(response)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    await platform.push()
    await until(lambda: server.count("dropped", "no_session") == 1, "the push to be dropped")


async def test_the_extension_sees_how_long_the_device_waits(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    client.send(client.request(PATH, b"hello", (URI_QUERY, b"wait=7")))
    await until(lambda: len(platform.requests) == 1, "the message")
    [request] = platform.requests
    assert (request.payload, request.request_id, request.resource_path) == (b"hello", None, "/command")
    assert request.deadline is not None
    assert request.deadline - request.timestamp == 7000


async def test_it_is_2_03_at_the_deadline(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    """A long wait is cut to `max-wait`, which is 20 s here."""
    request = await begin(client, server, wait(client, "99999"))
    await server.put_forward(15)
    assert await client.hears_nothing()
    await server.put_forward(7)
    response = await client.receive()
    assert (response.type, response.code, response.token) == (CON, VALID, request.token)
    assert (location(response), response.payload) == ([], b"")
    client.acknowledge(response)
    await begin(client, server)
    await platform.push()
    assert (await client.receive()).code == CHANGED


async def test_a_response_is_sent_again_until_it_is_acknowledged(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server)
    await platform.push()
    first = await client.receive()
    await server.put_forward(4)
    assert await client.receive() == first
    client.acknowledge(first)
    await until(lambda: server.tables["transmissions"] == 0, "the acknowledgement")
    await server.put_forward(10)
    assert await client.hears_nothing()


async def test_a_reset_ends_the_response(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server)
    await platform.push()
    response = await client.receive()
    client.send(Message(RST, 0, response.message_id))
    await until(lambda: server.tables["transmissions"] == 0, "the reset")


async def test_a_duplicate_has_no_second_effect(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    request = await begin(client, server)
    client.send(request)
    assert (await client.receive()).type == ACK
    assert server.tables["waits"] == 1
    await platform.push()
    response = await client.receive()
    client.acknowledge(response)
    client.send(request)
    again = await client.receive()
    assert (again.type, again.code, again.message_id) == (ACK, 0, request.message_id)
    assert len(platform.requests) == 1
    assert server.count("dropped", "coap_duplicate") == 2


async def test_a_non_confirmable_request_gets_a_non_confirmable_response(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    request = await begin(client, server, wait(client, kind=NON))
    await platform.push()
    response = await client.receive()
    assert (response.type, response.token, response.payload) == (NON, request.token, b"[1]")
    assert server.tables["transmissions"] == 0


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/command/reboot", True),
        ("command", True),
        ("/commands", False),
        ("/", False),
    ],
)
async def test_a_push_for_its_resource_path_or_below_answers(
    server: RunningCoapServer, client: CoapClient, platform: Platform, path: str, taken: bool
) -> None:
    await begin(client, server)
    await platform.push(path)
    if taken:
        assert (await client.receive()).code == CHANGED
    else:
        await until(lambda: server.count("dropped", "no_session") == 1, "the push to be dropped")
        assert server.tables["waits"] == 1


@pytest.mark.parametrize(
    "path",
    ["/command/" + "x" * 256, "/command/" + "xx/" * 200, "/command/a\x01b"],
    ids=["level", "path", "control"],
)
async def test_a_path_that_options_cannot_hold_is_left_out(
    server: RunningCoapServer, client: CoapClient, platform: Platform, path: str
) -> None:
    await begin(client, server)
    await platform.push(path)
    response = await client.receive()
    assert (response.code, response.payload, location(response)) == (CHANGED, b"[1]", [])


async def test_an_unverified_address_gets_the_path_in_a_small_block(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server)
    await platform.push("/command/reboot", b"x" * 2000)
    response = await client.receive()
    assert location(response) == [b"command", b"reboot"]
    assert client.bytes_received <= 3 * client.bytes_sent


async def test_an_error_is_an_error(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server)
    await platform.push(payload=b"", status=404)
    response = await client.receive()
    assert (response.code, location(response)) == (0x84, [b"command"])


async def test_an_answer_of_the_extension_ends_the_wait(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    await begin(client, server)
    [request] = platform.requests
    await platform.nats.publish(
        subjects.replica(REPLICA, "esp", subjects.EXTENSION_DATA),
        encode_extension_data(
            request.correlation_id, 0, 0, None, "dcx", "token", "", None, b"", 409, "Not now"
        ),
    )
    response = await client.receive(lambda message: message.code != 0)
    assert (response.code, location(response)) == (0x89, [])
    await until(lambda: server.tables["waits"] == 0, "the wait to end")


async def test_observe_and_no_response_have_no_effect_beside_it(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    options = ((OBSERVE, uint(0)), (NO_RESPONSE, uint(26)))
    await begin(client, server, wait(client, method=GET, options=options))
    await platform.push()
    response = await client.receive()
    assert (response.code, response.payload) == (CONTENT, b"[1]")
    assert server.tables["observers"] == 0


@pytest.mark.parametrize("path", ["kp1/app_v1/unaware", "kp1/app_v1/unaware/", "kp1/app_v1/unaware/time"])
async def test_an_extension_without_endpoints_has_none_to_wait_for(
    shared_nats: NatsServer, server: RunningCoapServer, client: CoapClient, path: str
) -> None:
    async with Extension("unaware", nats_urls=[shared_nats.url]):
        response = await client.ask(wait(client, path=path))
    assert response.code == BAD_REQUEST
    assert server.count("refused", "coap_wait_without_endpoint") == 1


@pytest.mark.parametrize("token", ["12345", "token"])
async def test_an_empty_resource_path_is_for_all_of_the_extension(
    server: RunningCoapServer, client: CoapClient, platform: Platform, token: str
) -> None:
    await begin(client, server, wait(client, path=f"kp1/app_v1/dcx/{token}"))
    await platform.push("/any/path", endpoint_id=token)
    assert location(await client.receive()) == [b"any", b"path"]


@pytest.mark.parametrize("value", ["0", "", "1.5", "-1", "123456"])
async def test_a_bad_time_is_refused(server: RunningCoapServer, client: CoapClient, value: str) -> None:
    response = await client.ask(wait(client, value))
    assert response.code == BAD_REQUEST
    assert server.count("refused", "coap_wait") == 1


async def test_a_newer_request_for_the_path_replaces_the_older(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    """A device that has restarted does not know the older one, and would reject its response."""
    older = await begin(client, server)
    newer = wait(client)
    client.send(newer)
    ended = await client.receive(lambda message: message.token == older.token)
    assert ended.code == VALID
    await client.receive(lambda message: message.message_id == newer.message_id)
    assert server.tables["waits"] == 1
    await platform.push()
    assert (await client.receive()).token == newer.token


async def test_waiting_requests_are_bounded(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    """Two of one address and three in all may wait. Others are refused, and one more may wait when one is answered."""
    for number in range(2):
        await begin(client, server, wait(client, path=f"{PATH}/{number}"))
    assert (await refused(client, wait(client, path=f"{PATH}/2"))).code == UNAVAILABLE
    async with CoapClient(server.port) as other:
        await begin(other, server, wait(other, path="kp1/app_v1/dcx/other/command"))
        assert (await refused(other, wait(other, path="kp1/app_v1/dcx/other/x"))).code == UNAVAILABLE
        assert server.count("refused", "coap_too_many_waiting") == 2
        assert server.tables["waits"] == 3
        await platform.push("/command/1")
        client.acknowledge(await client.receive())
        await begin(client, server, wait(client, path=f"{PATH}/2"))
        assert server.tables["waits"] == 3


async def refused(client: CoapClient, request: Message) -> Message:
    """Send a request, and return its response, which the server may have acknowledged before."""
    client.send(request)
    return await client.receive(lambda message: message.code != 0)


async def test_a_drain_answers_at_once(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    request = await begin(client, server)
    assert server.core.has_observers()
    server.core.begin_drain()
    response = await client.receive()
    assert (response.code, response.token) == (VALID, request.token)
    await until(lambda: not server.core.has_observers(), "the wait to end")


async def test_a_revoked_token_ends_the_wait_at_once(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    request = await begin(client, server)
    other = await begin(client, server, wait(client, path="kp1/app_v1/dcx/other/command"))
    revoked = Revocation(server.sessions).revoke_tokens("token", frozenset({b"app_v1"}), frozenset())
    assert finished(revoked) == 1
    response = await client.receive()
    assert (response.code, response.token, location(response)) == (VALID, request.token, [])
    assert server.tables["waits"] == 1
    client.acknowledge(response)
    await platform.push(endpoint_id="other")
    assert (await client.receive()).token == other.token


async def test_the_end_of_the_peer_ends_the_wait(
    server: RunningCoapServer, client: CoapClient, platform: Platform
) -> None:
    request = await begin(client, server)
    [session] = [server.sessions.at(slot) for slot in range(server.sessions.slot_count())]
    assert session is not None
    session.disconnect("revoked")
    response = await client.receive()
    assert (response.code, response.token) == (VALID, request.token)
    assert server.tables["waits"] == 0
    assert not server.presence.present
    await platform.push()
    await until(lambda: server.count("dropped", "no_session") == 1, "the push to be dropped")
