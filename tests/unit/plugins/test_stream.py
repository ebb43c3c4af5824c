"""A plug-in's connections over TCP: what the plug-in is told, and how each bound and fault ends them."""

from collections.abc import Iterator

import pytest
from kaa_gateway.plugins import DeviceProtocol

from tests.support.line_protocol import Lines
from tests.support.plugin_worker import PluginWorker
from tests.unit.kp.worker_double import Published


@pytest.fixture
def worker() -> Iterator[PluginWorker]:
    with PluginWorker() as worker:
        yield worker


def text_of(publications: list[Published]) -> list[tuple[str, str, str | None, bytes]]:
    return [
        (each.subject.split(".")[3], each.data.resource_path, each.data.endpoint_id, each.data.payload)
        for each in publications
    ]


class TestMessages:
    def test_messages_are_cut_wherever_the_bytes_are_cut(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        text = b"publish dcx/json 1\npublish dcx/json 2\npublish dcx/json 3\n"
        for size in range(1, len(text)):
            device.send_bytes(text[:size])
            device.send_bytes(text[size:])
            assert [each.data.payload for each in worker.published()] == [b"1", b"2", b"3"]
        for byte in text:
            device.send_bytes(bytes([byte]))
        assert [each.data.payload for each in worker.published()] == [b"1", b"2", b"3"]

    def test_a_message_names_version_endpoint_and_path(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in("meter-1")
        device.send("publish dcx/json/7 {}", "publish tsx {}", "publish kp1/app_v1/dcx/meter-1/raw x")
        assert text_of(worker.published()) == [
            ("dcx", "/json/7", "endpoint-meter-1", b"{}"),
            ("tsx", "", None, b"{}"),
            ("dcx", "/raw", "endpoint-meter-1", b"x"),
        ]

    def test_a_message_before_the_identity_is_known_waits(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.send("login t1", "publish dcx/json 1", "confirm dcx/json 2")
        assert worker.published() == []
        worker.identify()
        assert [each.data.payload for each in worker.published()] == [b"1", b"2"]
        worker.confirm()
        assert device.lines() == ["identified t1", "confirmed 2"]

    def test_a_device_speaks_for_several_endpoints(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.send("login a", "login b")
        worker.identify()
        assert device.lines() == ["identified a", "identified b"]
        device.send("as dcx/json a 1", "publish dcx/json 2")
        assert [each.data.endpoint_id for each in worker.published()] == ["endpoint-a", "endpoint-b"]
        worker.push("endpoint-a", b"{}")
        assert device.lines() == ["pushed cex /command/x a {}"]

    def test_counters_have_the_name_of_the_protocol(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("publish dcx/json 123")
        worker.push("endpoint-t1", b"12345")
        counts = worker.counters.by_protocol()
        assert counts["messages_in"]["lines"] == 1
        assert counts["bytes_in"]["lines"] == 3
        assert counts["bytes_out"]["lines"] == 5
        assert counts["connections_opened"]["lines"] == 1
        session = worker.sessions.at(0)
        assert session is not None
        assert session.describe()["protocol"] == "lines"
        assert session.describe()["online"]


class TestAnswers:
    def test_confirmation_comes_when_nats_has_the_message(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("confirm dcx/json 1", "confirm dcx/json 2")
        assert device.lines() == []
        worker.confirm()
        assert device.lines() == ["confirmed 1", "confirmed 2"]

    def test_a_request_is_answered_once(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("ask dcx/json 1", "ask dcx/json 2")
        first, second = worker.published()
        assert first.data.request_id is not None
        worker.answer_to(second.data, b"second")
        worker.answer_to(first.data, b"first")
        worker.answer_to(first.data, b"again")
        assert device.lines() == ["answered 2 200 second", "answered 1 200 first"]
        assert worker.reason("dropped", "late_answer") == 1

    def test_a_request_that_nobody_answers_times_out(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("ask dcx/json 1")
        worker.loop.now += 31
        worker.pending.expire(worker.loop.now)
        assert device.lines() == ["answered 1 504 "]
        assert worker.pending.count() == 0

    def test_what_the_gateway_refuses(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("confirm nobody/json 1", "ask nobody/json 2", "publish nobody/json 3")
        assert sorted(device.lines()) == ["answered 2 404 ", "refused 1 404"]
        assert worker.reason("refused", "no_route") == 3
        assert worker.published() == []

    def test_no_responders(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("ask dcx/json 1")
        (published,) = worker.published()
        worker.no_responders(published.subject)
        assert device.lines() == ["answered 1 503 "]

    def test_a_bad_token_is_rejected(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.send("login t1", "confirm dcx/json 1")
        worker.identify(lambda token: "")
        assert sorted(device.lines()) == ["refused 1 401", "rejected t1 401"]
        for token in ("", "a/b", "x" * 256, "a+b\x01"):
            device.send(f"login {token}")
            assert device.lines() == [f"rejected {token} 404"]
        assert worker.asked == []

    def test_a_push_that_the_plugin_does_not_take(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        worker.push("endpoint-t1", b"no")
        assert worker.reason("dropped", "plugin_push_not_taken") == 1
        assert worker.reason("dropped", "no_session") == 1
        worker.push("endpoint-t1", b"yes")
        assert device.lines() == ["pushed cex /command/x t1 yes"]


class TestFaults:
    @pytest.mark.parametrize("line", ["fault", "undeclared", "publish dcx/json before-login"])
    def test_a_fault_ends_its_connection_alone(self, worker: PluginWorker, line: str) -> None:
        other, device = worker.connect(), worker.connect()
        device.send(line)
        assert device.closed
        assert worker.reason("closed", "plugin_fault") == 1
        other.log_in()
        assert Lines.made[-1].events == ["closed"]

    def test_a_fault_while_pushed_to(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        worker.push("endpoint-t1", b"fault")
        assert device.closed
        assert worker.reason("closed", "plugin_fault") == 1
        assert worker.presence.endpoints == set()

    def test_a_violation_is_counted_with_its_reason(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.send("what", "publish dcx/json never")
        assert device.closed
        assert worker.reason("closed", "lines_bad_word") == 1
        assert worker.reason("closed", "plugin_fault") == 0

    def test_what_was_sent_before_the_end_arrives(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.send("bye")
        assert device.lines() == ["bye"]
        assert device.closed
        assert worker.reason("closed", "lines_said_goodbye") == 1

    def test_faults_in_the_constructor_and_in_message_size(self) -> None:
        class Broken(Lines):
            def opened(self) -> None:
                super().opened()
                raise RuntimeError

        class Negative(Lines):
            @classmethod
            def message_size(cls, data: bytes, at: int) -> int:
                return -1

        class Nothing(DeviceProtocol):
            def __init__(self, *arguments: object) -> None:
                raise RuntimeError

        for broken in (Broken, Negative, Nothing):
            with PluginWorker(broken) as worker:
                device = worker.connect()
                device.send("x")
                assert device.closed
                assert worker.reason("closed", "plugin_fault") == 1
                assert worker.sessions.count == 0


class TestBounds:
    def test_a_message_that_is_too_large(self, worker: PluginWorker) -> None:
        for text in ("x" * 1024, "x" * 2000 + "\n"):
            device = worker.connect()
            device.send_bytes(text.encode())
            assert device.closed
        assert worker.reason("closed", "plugin_message_too_large") == 2
        device = worker.connect()
        device.send_bytes(b"send " + b"x" * 1018 + b"\n")
        assert not device.closed

    def test_input_memory(self) -> None:
        with PluginWorker(input_memory=10_000, settings={"max_message_size": 100_000}) as worker:
            first, second = worker.connect(), worker.connect()
            first.send_bytes(b"x" * 6000)
            second.send_bytes(b"x" * 6000)
            assert second.closed
            assert not first.closed
            assert worker.reason("closed", "input_memory_full") == 1
            first.peer.go()
            worker.loop.run()
            assert worker.input_memory.bytes == 0

    def test_a_busy_uplink_stops_the_device_and_loses_nothing(self) -> None:
        with PluginWorker(pending_max=2000) as worker:
            device = worker.connect()
            device.log_in()
            total = 200
            for number in range(total):
                device.send(f"confirm dcx/json {number}")
            assert not worker.loop.reads(device.peer.descriptor)
            payloads: list[bytes] = []
            confirmed: list[str] = []
            while len(confirmed) < total:
                payloads += [each.data.payload for each in worker.published()]
                worker.confirm()
                confirmed += device.lines()
            payloads += [each.data.payload for each in worker.published()]
            assert payloads == [b"%d" % number for number in range(total)]
            assert confirmed == [f"confirmed {number}" for number in range(total)]
            assert worker.loop.reads(device.peer.descriptor)

    def test_unconfirmed_messages(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        for number in range(1200):
            device.send(f"confirm dcx/json {number}")
        assert len(worker.published()) == 1024
        assert not worker.loop.reads(device.peer.descriptor)
        worker.confirm()
        assert len(worker.published()) == 176
        worker.confirm()
        assert len(device.lines()) == 1200

    def test_requests_of_a_device_and_of_all(self) -> None:
        with PluginWorker(capacity=3) as worker:
            device = worker.connect()
            device.log_in()
            device.send(*(f"ask dcx/json {number}" for number in range(4)))
            assert device.lines() == ["answered 3 503 "]
            assert worker.reason("refused", "too_many_pending_requests") == 1
        with PluginWorker(capacity=1000) as worker:
            device = worker.connect()
            device.log_in()
            for number in range(257):
                device.send(f"ask dcx/json {number}")
            assert device.lines() == ["answered 256 429 "]
            assert worker.reason("refused", "plugin_outstanding_requests") == 1
            device.peer.go()
            worker.loop.run()
            worker.check()
            worker.loop.now += 11
            worker.check()
            assert worker.pending.count() == 0

    def test_messages_that_are_held_for_the_uplink(self) -> None:
        class Flood(Lines):
            def receive(self, message: bytes) -> None:
                for number in range(1100):
                    self.publish("dcx/json", b"x" * 100, number)

        with PluginWorker(Flood, pending_max=1000) as worker:
            device = worker.connect()
            device.send("login ignored")
            assert worker.reason("closed", "plugin_fault") == 1  # it publishes before it identifies

        class Identified(Flood):
            def opened(self) -> None:
                super().opened()
                self.identify("t1")

        with PluginWorker(Identified, pending_max=1000, waiting=1) as worker:
            device = worker.connect()
            worker.identify()
            device.send("x")
            assert worker.reason("dropped", "plugin_held_messages") > 0
            refused = [line for line in device.lines() if line.startswith("refused")]
            assert len(refused) == worker.reason("dropped", "plugin_held_messages")

    def test_a_nats_that_is_away(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        worker.link.abort()
        device.send("ask dcx/json 1", "confirm dcx/json 2")
        assert device.lines() == ["answered 1 503 "]
        worker.connect_nats()
        worker.confirm()
        assert device.lines() == ["confirmed 2"]


class TestTime:
    def test_a_connection_that_does_not_log_in(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.send("send hello")
        worker.loop.now += 29
        worker.check()
        assert not device.closed
        worker.loop.now += 2
        worker.check()
        assert device.closed
        assert worker.reason("closed", "plugin_login_timeout") == 1

    def test_a_silent_connection(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        worker.check()
        worker.loop.now += 599
        worker.check()
        device.send("send hello")
        worker.check()
        worker.loop.now += 599
        worker.check()
        assert not device.closed
        worker.loop.now += 2
        worker.check()
        assert device.closed
        assert worker.reason("closed", "plugin_idle") == 1

    def test_the_timer(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("timer 10")
        worker.loop.now += 9
        worker.check()
        assert device.lines() == []
        worker.loop.now += 2
        worker.check()
        worker.check()
        assert device.lines() == ["timer"]

    def test_a_device_that_closes_its_side_gets_what_is_due(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        device.send("ask dcx/json 1")
        device.peer.half_close()
        worker.loop.run()
        (published,) = worker.published()
        assert not device.closed
        worker.answer_to(published.data, b"late")
        assert device.lines() == ["answered 1 200 late"]
        assert device.closed


class TestTheGateway:
    def test_new_options_are_those_of_new_connections(self, worker: PluginWorker) -> None:
        old = worker.connect()
        worker.server.configure({**worker.options, "shout": True}, **worker.settings)
        new = worker.connect()
        old.send("login t1")
        new.send("login t2")
        worker.identify()
        assert old.lines() == ["identified t1"]
        assert new.lines() == ["IDENTIFIED T2"]

    def test_the_operator_and_a_revocation_end_it(self, worker: PluginWorker) -> None:
        device = worker.connect()
        device.log_in()
        session = worker.sessions.at(0)
        assert session is not None
        session.disconnect("disconnected_by_operator")
        assert device.closed
        assert worker.reason("closed", "disconnected_by_operator") == 1
        assert worker.presence.endpoints == set()
