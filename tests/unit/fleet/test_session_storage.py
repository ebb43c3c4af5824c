"""What a worker writes to the stream of sessions, and what it makes of answers, against a stream of the test's own."""

import itertools
import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Disconnect, Puback, Publish
from kaa_gateway.fleet import stored_messages
from kaa_gateway.fleet.stored_messages import Addition, Removal, Snapshot
from kaa_gateway.mqtt import session_state
from structlog.testing import capture_logs

from tests.support.esp import until
from tests.support.mqtt import MqttPeer, mqtt_client, mqtt_peer
from tests.support.session_stream import Running, SessionStream, StreamInfo, found, worker_with_stream

NEW = Connack(False, 0)
RESUMED = Connack(True, 0)


async def leave(peer: MqttPeer) -> None:
    await peer.send(Disconnect())
    assert await peer.until_closed() == []


async def stored(running: Running) -> None:
    """Return when the worker has nothing to write."""
    storage = running.worker.session_storage
    assert storage is not None
    await until(lambda: storage.waiting() == 0, "the writes")


async def test_changes_of_a_moment_are_one_message() -> None:
    async with worker_with_stream() as running:
        async with mqtt_peer(running.port) as peer:
            assert await peer.connect("client", clean_session=False) == NEW
            await peer.subscribe("a/1", "a/2")
            await peer.subscribe("a/3")
            await stored(running)
            (write,) = running.stream.writes
            assert isinstance(write.message, Snapshot)
            assert write.header["Nats-Rollup"] == "sub"
            assert write.header["Nats-Expected-Last-Subject-Sequence"] == "0"
            assert write.message.ends == 0
            await leave(peer)
        await stored(running)
        assert [each.header["Nats-Expected-Last-Subject-Sequence"] for each in running.stream.writes] == [
            "0",
            "1",
        ]
        assert running.stream.writes[1].message.ends > 0  # type: ignore[union-attr]
        assert running.loads() == {"nothing": 1}


async def holds(stream: SessionStream, name: str, count: int) -> None:
    """Return when the stream has so many messages of a session."""
    await until(lambda: len(stream.held[name]) == count, f"{count} messages")


async def failed(running: Running, count: int) -> None:
    """Return when the worker has seen so many failures."""
    await until(lambda: running.count("session_not_stored") >= count, f"{count} failures")


async def attempts(info: StreamInfo, count: int) -> None:
    """Return when the stream was asked for so often."""
    await until(lambda: info.asked >= count, f"{count} attempts")


async def logged(logs: Sequence[Any], event: str, count: int) -> None:
    """Return when the log has so many lines of an event."""
    await until(lambda: len(lines(logs, event)) == count, f"{count} lines")


async def absent(running: Running, *filters: str) -> str:
    """Let a client come and go. Return the name of its session, which is stored."""
    async with mqtt_client(running.port, "client", clean_session=False) as peer:
        if filters:
            await peer.subscribe(*filters, qos=1)
        await leave(peer)
    await stored(running)
    (name,) = running.stream.names()
    return name


async def test_only_new_messages_of_an_absent_client_are_written() -> None:
    """Behind fifty of them, all of the session is, so that it can be loaded with few requests."""
    async with worker_with_stream() as running:
        name = await absent(running, "kp1/app_v1/dcx/t1/#")
        base = running.stream.held[name][-1][0]
        for number in range(50):
            await running.stream.push("t1", b"%d" % number)
            await holds(running.stream, name, number + 2)
        messages = running.stream.messages(name)[1:]
        assert [type(each) for each in messages] == [Addition] * 50
        assert {each.base for each in messages if isinstance(each, Addition)} == {base}
        await running.stream.push("t1", b"50")
        await until(lambda: len(running.stream.held[name]) == 1, "the snapshot")
        assert isinstance(running.stream.messages(name)[0], Snapshot)


async def test_a_session_is_loaded_by_another_worker() -> None:
    """The last message, then the snapshot and what follows it, in order."""
    async with worker_with_stream() as running:
        name = await absent(running, "kp1/app_v1/dcx/t1/#")
        stream = running.stream
        for number in range(3):
            await stream.push("t1", b"%d" % number)
            await holds(stream, name, number + 2)
        base = stream.held[name][0][0]
    async with worker_with_stream(stream) as running, mqtt_peer(running.port) as peer:
        del stream.lookups[:]
        assert await peer.connect("client", clean_session=False) == RESUMED
        for number in range(3):
            publish = await peer.expect(Publish)
            assert publish.payload == b"%d" % number
            await peer.send(Puback(publish.packet_id))
        assert [each.get("seq") for each in stream.lookups] == [None, base, base + 1, base + 2, base + 3]
        assert running.loads() == {"found": 1}


async def test_a_session_that_has_ended_is_not_found() -> None:
    """Its removal is what the stream has of it. A clean CONNECT of a client without a session writes nothing."""
    async with worker_with_stream() as running:
        name = await absent(running)
        async with mqtt_client(running.port, "client") as peer:
            await leave(peer)
        await stored(running)
        assert [type(each) for each in running.stream.messages(name)] == [Removal]
        before = len(running.stream.writes)
        async with mqtt_client(running.port, "other") as peer:
            await leave(peer)
        await stored(running)
        assert len(running.stream.writes) == before
        stream = running.stream
    async with worker_with_stream(stream) as running, mqtt_peer(running.port) as peer:
        assert await peer.connect("client", clean_session=False) == NEW
        assert running.loads() == {"nothing": 1}


async def test_an_expired_session_is_not_given_to_its_client() -> None:
    async with worker_with_stream() as running:
        name = await absent(running)
        stream = running.stream
    (snapshot,) = stream.messages(name)
    assert isinstance(snapshot, Snapshot)
    stream.held[name] = []
    stream.put(name, Snapshot(snapshot.number, 1, snapshot.state))
    async with worker_with_stream(stream) as running, mqtt_peer(running.port) as peer:
        assert await peer.connect("client", clean_session=False) == NEW
        assert running.loads() == {"expired": 1}


# ---------------------------------------------------------------- what JetStream refuses


def error(description: str, **fields: Any) -> bytes:
    """Return the answer of a JetStream that does not store a message."""
    return json.dumps(
        {"error": {"code": 503, "description": description, **fields}, "stream": "kpc-sessions", "seq": 0}
    ).encode()


FULL = error("maximum bytes exceeded", err_code=10077)


def lines(logs: Sequence[Any], event: str) -> list[Any]:
    return [(each.get("stream"), each.get("error")) for each in logs if each["event"] == event]


async def test_a_full_stream_is_named_once_and_tried_until_it_has_room() -> None:
    """Clients are served meanwhile. When it is full again later, the log says so again."""
    with patch("kaa_gateway.fleet.storage_report.QUIET", 0.2), capture_logs() as logs:
        async with worker_with_stream() as running, mqtt_peer(running.port) as peer:
            stream = running.stream
            for again in (1, 2):
                stream.on_write = lambda _: FULL
                refused = running.count("session_not_stored")
                if again == 1:
                    assert await peer.connect("client", clean_session=False) == NEW
                await peer.subscribe(f"a/{again}")
                await failed(running, refused + 2)
                assert (
                    lines(logs, "sessions are not stored, trying on")
                    == [("kpc-sessions", "maximum bytes exceeded")] * again
                )
                stream.on_write = None
                await stored(running)
                await logged(logs, "sessions are stored again", again)
            assert len(stream.names()) == 1


async def test_one_session_that_is_refused_does_not_flood_the_log() -> None:
    """Others are stored meanwhile; two reasons in turn are two lines."""
    with capture_logs() as logs:
        async with worker_with_stream() as running, mqtt_peer(running.port) as peer:
            stream = running.stream
            refusals = itertools.cycle([FULL, error("message size exceeds maximum allowed")])
            await peer.connect("refused", clean_session=False)
            await stored(running)
            (refused,) = stream.names()
            stream.on_write = lambda write: next(refusals) if write.name == refused else None
            await peer.subscribe("a/1")
            for number in range(4):
                before = running.count("session_not_stored")
                async with mqtt_client(running.port, f"stored-{number}", clean_session=False) as other:
                    await leave(other)
                await failed(running, before + 1)
            assert len(lines(logs, "sessions are not stored, trying on")) == 2
            assert not lines(logs, "sessions are stored again")


MALFORMED_ACKS = [
    b"{", b"[]", b"{}", b"\xff", b'{"seq":"1"}', b'{"seq":0}', b'{"seq":-1}', b'{"seq":1e400}',
    b'{"seq":%d}' % (1 << 80), b'{"error":1}', b'{"error":{}}', b'{"error":{"err_code":"10071"}}', b"[" * 100_000,
    b'{"error":{"description":"\x80"}}',
]  # fmt: skip


async def test_a_malformed_answer_is_a_failure_and_the_session_is_written_again() -> None:
    with capture_logs() as logs:
        async with worker_with_stream() as running, mqtt_peer(running.port) as peer:
            answers = iter(MALFORMED_ACKS)
            running.stream.on_write = lambda _: next(answers, None)
            for number, _ in enumerate(MALFORMED_ACKS, 1):
                if number == 1:
                    await peer.connect("client", clean_session=False)
                await failed(running, number)
            await stored(running)
            (name,) = running.stream.names()
            assert [type(each) for each in running.stream.messages(name)] == [Snapshot]
            assert await peer.until_pingresp() == []
    assert not [each for each in logs if "exc_info" in each or "exception" in each]


@pytest.mark.parametrize("number", [0, (1 << 63) - 1])
async def test_of_two_sessions_the_one_from_the_newer_connect_stays(number: int) -> None:
    """`number` is that of another worker's CONNECT, which this one learns of when it is refused."""
    async with worker_with_stream() as running, mqtt_peer(running.port) as peer:
        await peer.connect("client", clean_session=False)
        await stored(running)
        (name,) = running.stream.names()
        (own,) = running.stream.messages(name)
        running.stream.put(name, Removal(number))
        await peer.subscribe("a/1")
        await stored(running)
        if number:
            assert await peer.until_closed() == []
            assert running.stream.messages(name) == [own, Removal(number)]
            assert running.count("session_left_behind") == 1
        else:
            assert [type(each) for each in running.stream.messages(name)] == [Snapshot]
            assert await peer.until_pingresp() == []


# ---------------------------------------------------------------- what a hostile JetStream holds


STATE = b"\x00" * 20
MALFORMED_MESSAGES: list[list[Any]] = [
    [b""], [b"\xc1"], [b"\x91" * 100_000], [b"\x92\xa5other\x01"], [b"\x92\xa5othe\x80\x01"],
    [Snapshot(1, 0, STATE)], [Snapshot(1, 0, b"")],
    [Addition(1, 1, 0, STATE)], [Addition(1, 1 << 40, 0, STATE)],
    [Snapshot(1, 0, STATE), Removal(1), Addition(1, 1, 0, b"")],
]  # fmt: skip


@pytest.mark.parametrize("messages", MALFORMED_MESSAGES)
async def test_a_malformed_session_is_not_given_to_its_client_and_is_replaced(messages: list[Any]) -> None:
    with capture_logs() as logs:
        async with worker_with_stream() as running:
            name = await absent(running)
            stream = running.stream
        stream.held[name], stream.sequence = [], 0
        for message in messages:
            stream.put(name, message)
        async with worker_with_stream(stream) as running, mqtt_peer(running.port) as peer:
            assert await peer.connect("client", clean_session=False) == NEW
            assert set(running.loads()) <= {"malformed", "nothing"}
            await stored(running)
            assert [type(each) for each in stream.messages(name)] == [Snapshot]
            await leave(peer)
    assert not [each for each in logs if "exc_info" in each or "exception" in each]


MALFORMED_LOOKUPS = [
    b"{", b"[]", b"{}", b'{"message":{}}', found(0, b""), found(-1, b""), found(1 << 80, b""), found("1", b""),
    b'{"message":{"seq":1,"data":"*"}}', b'{"error":{"err_code":[]}}', b"[" * 100_000,
    b'{"\x80":1}',
]  # fmt: skip


@pytest.mark.parametrize("answer", MALFORMED_LOOKUPS)
async def test_a_malformed_answer_is_no_session(answer: bytes) -> None:
    """The client is admitted with a new one. The comparison that its first write needs is made again."""
    with capture_logs() as logs:
        async with worker_with_stream() as running:
            name = await absent(running)
            stream = running.stream
        stream.on_lookup = lambda _: answer
        async with worker_with_stream(stream) as running, mqtt_peer(running.port) as peer:
            assert await peer.connect("client", clean_session=False) == NEW
            assert running.loads() == {"failed": 1}
            await until(lambda: running.count("session_not_stored") == 1, "the failure")
            stream.on_lookup = None
            await stored(running)
            assert [type(each) for each in stream.messages(name)] == [Snapshot]
            await leave(peer)
    assert not [each for each in logs if "exc_info" in each or "exception" in each]


async def test_additions_without_end_are_malformed() -> None:
    """A JetStream that answers with the same one for ever does not keep a worker busy, or fill its memory."""
    async with worker_with_stream() as running:
        name = await absent(running)
        stream = running.stream
    (snapshot,) = stream.messages(name)
    assert isinstance(snapshot, Snapshot)
    more = Addition(snapshot.number, 1, 0, b"")

    def answer(question: dict[str, Any]) -> bytes:
        if "last_by_subj" in question:
            return found(1 << 60, stored_messages.encode(more))
        if question["seq"] == 1:
            return found(1, stored_messages.encode(snapshot))
        return found(2, stored_messages.encode(more))

    del stream.lookups[:]
    stream.on_lookup = answer
    async with worker_with_stream(stream, takeover_timeout=20) as running, mqtt_peer(running.port) as peer:
        assert await peer.connect("client", clean_session=False) == NEW
        assert running.loads() == {"malformed": 1}
        assert len(stream.lookups) < 10


# ---------------------------------------------------------------- JetStream, or NATS, is away


async def test_a_client_is_admitted_without_jetstream_and_stored_when_it_is_there() -> None:
    """Nobody answers: that has the stream looked for. It is, each time, and once it is there the session is written."""
    with capture_logs() as logs:
        async with worker_with_stream() as running, mqtt_peer(running.port) as peer:
            running.stream.present = False
            before = running.info.asked
            assert await peer.connect("client", clean_session=False) == NEW
            assert running.loads() == {"failed": 1}
            await until(lambda: running.count("session_not_stored") > 1, "a second attempt")
            assert running.info.asked > before
            running.stream.present = True
            await stored(running)
            assert len(running.stream.names()) == 1
            await leave(peer)
    assert lines(logs, "sessions are not stored, trying on") == [
        ("kpc-sessions", "the stream is not there, or has no leader")
    ]


async def test_a_silent_jetstream_is_given_up() -> None:
    """The CONNECT waits for `takeover-timeout`; a message is written again after five seconds."""
    async with worker_with_stream(takeover_timeout=0.2) as running, mqtt_peer(running.port) as peer:
        running.stream.on_lookup = lambda _: b""
        running.stream.on_write = lambda _: b""
        assert await peer.connect("client", clean_session=False) == NEW
        await until(lambda: len(running.stream.writes) == 1, "the first attempt")
        running.stream.on_write = running.stream.on_lookup = None
        await until(lambda: len(running.stream.names()) == 1, "the second one")
        assert running.count("session_not_stored") == 1
        await stored(running)


async def test_what_was_under_way_over_a_lost_connection_is_written_and_asked_again() -> None:
    """Nothing was answered. What has changed since is in the same message; a CONNECT that waits is admitted."""
    async with worker_with_stream(takeover_timeout=20) as running, mqtt_peer(running.port) as peer:
        stream = running.stream
        await peer.connect("client", clean_session=False)
        await stored(running)
        (name,) = stream.names()
        stream.on_write = lambda _: b""
        stream.on_lookup = lambda _: b""
        await peer.subscribe("a/1")
        await until(lambda: len(stream.writes) == 2, "the write")
        async with mqtt_peer(running.port) as other:
            lookups = len(stream.lookups)
            await other.send(Connect("other", clean_session=False))
            await until(lambda: len(stream.lookups) > lookups, "the look-up")
            stream.on_write = stream.on_lookup = None
            running.connection.reset()
            await peer.subscribe("a/2")
            await running.serve_again()
            assert await other.expect(Connack) == NEW
        await stored(running)
        (snapshot,) = stream.messages(name)
        assert isinstance(snapshot, Snapshot)
        state = session_state.decode(snapshot.state)
        assert state is not None
        assert [each.topic_filter for each in state.subscriptions] == [b"a/1", b"a/2"]
        assert len(stream.names()) == 2


# ---------------------------------------------------------------- the stream itself


@pytest.mark.parametrize("loss", ["made anew", "emptied"])
async def test_all_sessions_are_written_again_when_the_stream_has_lost_them(loss: str) -> None:
    """Also those that do not change: of a client that is absent, and of one that is there."""
    with capture_logs() as logs:
        async with worker_with_stream(check_period=0.05) as running, mqtt_peer(running.port) as peer:
            stream, info = running.stream, running.info
            await absent(running, "a/1")
            await peer.connect("online", clean_session=False)
            await stored(running)
            names = set(stream.names())
            stream.held.clear()
            stream.sequence = 0
            if loss == "made anew":
                info.created = "2026-01-02T00:00:00Z"
            await until(lambda: set(stream.names()) == names, "the sessions")
            await stored(running)
    assert len(lines(logs, "the stream has lost its sessions, writing all again")) == 1


async def test_a_trouble_that_comes_back_is_logged_again() -> None:
    """Of the stream itself; while it stays the same, once."""
    event = "the stream of sessions cannot be used, trying on"
    with capture_logs() as logs:
        async with worker_with_stream(check_period=0.01) as running:
            info = running.info
            running.worker.control.connected = True  # type: ignore[misc]
            for again in (1, 2):
                info.error = "insufficient storage resources available"
                await attempts(info, info.asked + 3)
                assert (
                    lines(logs, event)
                    == [("kpc-sessions", "insufficient storage resources available")] * again
                )
                info.error = ""
                await logged(logs, "the stream of sessions can be used again", again)
