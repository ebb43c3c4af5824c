"""Extension between ClientData in and ExtensionData out, without NATS."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext import (
    Extension,
    ExtensionError,
    NotDelivered,
    PayloadTooLarge,
    Request,
    Response,
    StateUnavailable,
)
from kaa_ext.sdk.durable import StoredMessage
from kaa_gateway.bus.messages import now_ms
from kaa_gateway.wire.esp import ExtensionData, decode_extension_data, encode_client_data
from structlog.testing import capture_logs

REPLY = "kaa.v1.replica.gw.esp.ExtensionData"


class FakeConnection:
    """Takes what an extension publishes; `refusals` are raised first, one per message."""

    def __init__(self) -> None:
        self.published: list[tuple[str, ExtensionData, str]] = []
        self.refusals: list[Exception] = []

    def send(self, subject: str, payload: bytes, reply: str = "", headers: object = None) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.published.append((subject, decode_extension_data(payload), reply))

    async def room(self) -> None:
        pass

    def answer(self) -> ExtensionData:
        """The only message published."""
        ((_, data, _),) = self.published
        return data


def extension(**settings: Any) -> tuple[Extension, FakeConnection]:
    service, connection = Extension("svc", replica_id="r1", **settings), FakeConnection()
    service.use_connection(lambda interests: connection)  # type: ignore[arg-type, return-value]
    return service, connection


async def send(
    service: Extension,
    resource_path: str = "/json",
    payload: bytes = b"{}",
    *,
    request_id: int | None = 7,
    endpoint_id: str | None = "ep",
    timestamp: int = 1_000,
    timeout: int = 0,
    reply: str = REPLY,
    config_name: str | None = None,
) -> None:
    datum = encode_client_data(
        "cid", timestamp, timeout, "app-v1", endpoint_id, resource_path, request_id, payload, config_name
    )
    service._dispatcher.take(datum, reply)
    while service._dispatcher.tasks:
        await asyncio.wait(service._dispatcher.tasks)


async def test_handler_gets_what_the_device_sent() -> None:
    service, _ = extension()
    got: list[Request] = []

    @service.handler("/plain/{metric}")
    def take(request: Request) -> None:
        got.append(request)

    await send(service, "/plain/temp", b"\x00\xff", timestamp=5_000, timeout=now_ms(), config_name="net")
    (request,) = got
    assert request.deadline is not None
    assert request.deadline > now_ms()
    assert (request.payload, request.parameters["metric"], request.timestamp) == (b"\x00\xff", "temp", 5_000)
    assert (request.endpoint_id, request.app_version_name, request.request_id) == ("ep", "app-v1", 7)
    assert (request.correlation_id, request.resource_path, request.config_name) == (
        "cid",
        "/plain/temp",
        "net",
    )
    with pytest.raises(AttributeError):
        request.payload = b""  # type: ignore[misc]


@pytest.mark.parametrize("endpoint_id", ["ep", None])
async def test_answer_carries_the_names_of_the_request(endpoint_id: str | None) -> None:
    service, connection = extension()
    service.handler("/json")(lambda request: b"[" + request.payload + b"]")
    await send(service, payload=b"1", request_id=0, endpoint_id=endpoint_id)
    subject, answer, reply = connection.published[0]
    assert (subject, reply) == (REPLY, "")
    assert now_ms() - answer.timestamp < 60_000
    assert answer == ExtensionData(
        "cid", answer.timestamp, 0, "app-v1", "svc", endpoint_id, "/json", 0, b"[1]", 200, None
    )


async def test_affinity_names_our_replica_only_if_asked_for() -> None:
    service, connection = extension(affinity=True)
    service.handler("/json")(lambda request: None)
    await send(service)
    await service.push("ep", "/config/json", b"{}")
    assert {reply for _, _, reply in connection.published} == {"kaa.v1.replica.r1.esp.ClientData"}


async def test_without_reply_to_the_answer_goes_to_the_gateway_instance() -> None:
    service, connection = extension(gateway_instance="gw2")
    service.handler("/json")(lambda request: None)
    await send(service, reply="")
    assert connection.published[0][0] == "kaa.v1.service.gw2.esp.ExtensionData"


class UnforeseenError(Exception):
    """What a handler did not expect."""


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(
    ("outcome", "status_code", "payload", "reason_phrase"),
    [
        (None, 200, b"", None),
        (b"\x00", 200, b"\x00", None),
        (Response(201, b"made", "Created"), 201, b"made", "Created"),
        (Response(404, None), 404, None, None),
        (ExtensionError(409), 409, None, "Conflict"),
        (ExtensionError(499), 499, None, "Error"),
        (ExtensionError(400, "Ungültig"), 400, None, "Ungültig"),
        (UnforeseenError("secret"), 500, None, "Internal Server Error"),
        ("text is no payload", 500, None, "Internal Server Error"),
    ],
)
async def test_outcomes_of_a_handler(
    outcome: object, status_code: int, payload: bytes | None, reason_phrase: str | None, asynchronous: bool
) -> None:
    service, connection = extension()

    def handle(request: Request) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def handle_later(request: Request) -> Any:
        await asyncio.sleep(0)
        return handle(request)

    service.handler("/json")(handle_later if asynchronous else handle)
    await send(service)
    answer = connection.answer()
    assert (answer.status_code, answer.payload, answer.reason_phrase) == (status_code, payload, reason_phrase)
    assert service.stats["failed"] == (status_code == 500)


@pytest.mark.parametrize("status_code", [0, 199, 600, -1])
def test_status_codes_that_http_cannot_carry_are_refused(status_code: int) -> None:
    with pytest.raises(ValueError, match="status code"):
        Response(status_code)
    with pytest.raises(ValueError, match="status code"):
        ExtensionError(status_code)


def test_a_response_of_the_wrong_type_is_refused_where_it_is_made() -> None:
    with pytest.raises(TypeError, match="bytes"):
        Response(200, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason phrase"):
        Response(400, b"", b"bytes")  # type: ignore[arg-type]


async def test_unknown_resource_path_is_404() -> None:
    service, connection = extension()
    await send(service, "/nothing")
    assert connection.answer().status_code == 404
    assert service.stats["not_found"] == 1


async def test_without_request_id_no_answer_whatever_the_outcome() -> None:
    service, connection = extension()

    @service.handler("/json")
    def refuse(request: Request) -> None:
        raise ExtensionError(400)

    service.handler("/fine")(lambda request: b"1")
    for path in ("/json", "/fine", "/unknown"):
        await send(service, path, request_id=None)
    assert connection.published == []
    assert service.stats["unanswered"] == 3


async def test_respond_errors_answers_requests_without_request_id_that_fail() -> None:
    """MQTT has acknowledged the message: without a word, its device would take it for handled."""
    service, connection = extension()

    @service.handler("/json", respond="errors")
    def refuse(request: Request) -> None:
        if request.payload != b"{}":
            raise ExtensionError(400)

    for payload in (b"no JSON", b"{}"):
        await send(service, "/json", payload, request_id=None)
    assert connection.answer().status_code == 400
    assert service.stats["unanswered"] == 1


async def test_respond_always_answers_requests_without_request_id() -> None:
    service, connection = extension()
    service.handler("/token", respond="always")(lambda request: b"t")
    await send(service, "/token", request_id=None)
    answer = connection.answer()
    assert (answer.request_id, answer.payload) == (None, b"t")


async def test_expired_requests_are_dropped_and_counted() -> None:
    service, connection = extension()
    service.handler("/json")(lambda request: None)
    await send(service, timestamp=now_ms() - 2_000, timeout=1_000)
    assert connection.published == []
    await send(service, timestamp=now_ms() - 2_000, timeout=60_000)
    await send(service, timestamp=1, timeout=0)
    assert (service.stats["expired"], service.stats["responses"]) == (1, 2)


async def test_requests_with_the_timestamps_of_another_clock_are_counted() -> None:
    service, _ = extension()
    service.handler("/json")(lambda request: None)
    await send(service, timestamp=now_ms() - 100, timeout=5_000)
    await send(service, timestamp=now_ms() + 500, timeout=5_000)
    assert (service.stats["expired"], service.stats["clock_skew"]) == (0, 0)
    await send(service, timestamp=now_ms() + 5_000, timeout=5_000)
    assert (service.stats["expired"], service.stats["clock_skew"], service.stats["responses"]) == (0, 1, 3)
    await send(service, timestamp=now_ms() - 20_000, timeout=5_000)
    assert (service.stats["expired"], service.stats["clock_skew"]) == (1, 2)
    # It may have expired behind those that wait.
    service._dispatcher.hold(True)
    await send(service, timestamp=now_ms() - 20_000, timeout=5_000)
    service._dispatcher.hold(False)
    await asyncio.sleep(0.01)
    assert (service.stats["expired"], service.stats["clock_skew"]) == (2, 2)


async def test_requests_that_expire_behind_slow_ones_have_no_wrong_clock() -> None:
    service, _ = extension(concurrency=1)
    go_on = asyncio.Event()

    @service.handler("/json")
    async def slow(request: Request) -> None:
        await go_on.wait()

    sending = [asyncio.create_task(send(service)) for _ in range(2)]
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(*sending)
    await send(service, timestamp=now_ms() - 2_000, timeout=1_000)
    assert (service.stats["expired"], service.stats["clock_skew"]) == (1, 0)


def test_other_messages_that_have_expired_are_counted() -> None:
    service, _ = extension()
    with capture_logs() as logs:
        assert not service.has_expired({"timestamp": 1, "timeout": 0})
        assert not service.has_expired({"timestamp": now_ms(), "timeout": 1_000})
        for _ in range(3):
            assert service.has_expired({"timestamp": now_ms() - 60_000, "timeout": 1_000})
    assert service.stats["expired"] == 3
    assert [each["reason"] for each in logs] == ["expired"]


@given(datum=st.binary(max_size=64))
def test_malformed_avro_is_counted_and_never_raised(datum: bytes) -> None:
    service, _ = extension()
    service._dispatcher.take(datum)
    assert service.stats["malformed"] + service.stats["not_found"] + service.stats["expired"] == 1


async def test_malformed_avro_is_logged_once_per_reason() -> None:
    service, _ = extension()
    with capture_logs() as lines:
        for _ in range(100):
            service._dispatcher.take(b"")
    assert service.stats["malformed"] == 100
    assert len(lines) == 1


async def test_answer_too_large_for_nats_becomes_500() -> None:
    service, connection = extension()
    service.handler("/json")(lambda request: b"huge")
    connection.refusals = [PayloadTooLarge("too large")]
    await send(service)
    assert connection.answer().status_code == 500


async def test_answer_that_nats_does_not_take_is_counted() -> None:
    service, connection = extension()
    service.handler("/json")(lambda request: None)
    connection.refusals = [NotDelivered("away")]
    await send(service)
    assert (service.stats["undelivered"], service.stats["responses"]) == (1, 0)


async def test_async_handlers_are_bounded_and_do_not_wait_for_each_other_below_that() -> None:
    service, connection = extension(concurrency=3)
    running = 0
    release = asyncio.Event()

    @service.handler("/json")
    async def slow(request: Request) -> None:
        nonlocal running
        running += 1
        await release.wait()

    datum = encode_client_data("c", 1, 0, "a", "e", "/json", 1, b"")
    for _ in range(4):
        service._dispatcher.take(datum, REPLY)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (running, service.running, service.waiting) == (3, 3, 1)
    release.set()
    while service._dispatcher.tasks:
        await asyncio.wait(service._dispatcher.tasks)
    assert (running, len(connection.published)) == (4, 4)


async def test_push() -> None:
    service, connection = extension()
    await service.push("ep", "/config/json", b"{}")
    await service.push("ep", "/c", b"", app_version_name="v2", gateway_instance="other", status_code=500)
    (first_subject, first, reply), (second_subject, second, _) = connection.published
    assert (first_subject, reply) == ("kaa.v1.service.kpc.esp.ExtensionData", "")
    assert second_subject == "kaa.v1.service.other.esp.ExtensionData"
    assert (first.app_version_name, first.extension_instance_name, first.request_id) == (None, "svc", None)
    assert (second.app_version_name, second.status_code, second.payload) == ("v2", 500, b"")
    assert first.correlation_id != second.correlation_id
    assert service.stats["pushes"] == 2


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "a\n", "x" * 129, "größe"])
async def test_names_that_must_not_stand_in_a_subject(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Extension(name)
    if name:
        with pytest.raises(ValueError, match="expected"):
            Extension("svc", replica_id=name)
    with pytest.raises(ValueError, match="expected"):
        Extension("svc", gateway_instance=name)
    service, _ = extension()
    with pytest.raises(ValueError, match="expected"):
        await service.push("ep", "/c", b"", gateway_instance=name)


def test_replicas_of_one_extension_differ() -> None:
    assert Extension("svc").replica_id != Extension("svc").replica_id


class Stored(StoredMessage):
    """A message of a stream, which notes what it was told."""

    def __init__(self, *, last: bool = False) -> None:
        self.told: list[str] = []
        self._last = last

    @property
    def is_last_try(self) -> bool:
        return self._last

    def done(self) -> None:
        self.told.append("done")

    def retry(self) -> None:
        self.told.append("retry")


@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize(
    ("outcome", "last", "told", "status_code"),
    [
        (None, False, "done", 200),
        (ExtensionError(400), False, "done", 400),
        (StateUnavailable("away"), False, "retry", None),
        (ExtensionError(504), False, "retry", None),
        (UnforeseenError(), False, "retry", None),
        (UnforeseenError(), True, "done", 500),
    ],
)
async def test_what_we_could_not_do_comes_again_from_a_stream(
    outcome: Exception | None, last: bool, told: str, status_code: int | None, around: bool
) -> None:
    """What the device did wrong does not. The same whether or not there is middleware."""
    service, connection = extension()

    @service.handler("/json")
    def handle(request: Request) -> None:
        if outcome is not None:
            raise outcome

    if around:
        service.middleware(lambda request, call_next: call_next(request))
    message = Stored(last=last)
    datum = encode_client_data("cid", 1_000, 0, "app-v1", "ep", "/json", 7, b"")
    service._dispatcher.take(datum, REPLY, stored=message)
    while service._dispatcher.tasks:
        await asyncio.wait(service._dispatcher.tasks)
    assert message.told == [told]
    assert [data.status_code for _, data, _ in connection.published] == ([status_code] if status_code else [])
    assert service.stats["retried"] == (told == "retry")
