"""The PROXY protocol in front of each kind of TCP listener, with a clock that the test moves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.identity.clients import Client
from kaa_gateway.net.proxy import ProxyProtocol

from tests.support.proxy_headers import AUTHORITY, LOCAL, binary, field, line, sockaddr, tls_field
from tests.unit.kp.device_double import Peer
from tests.unit.kp.worker_double import WorkerDouble
from tests.unit.net.layered import LAYERS, listen
from tests.unit.net.layered import Client as LayeredClient

PROXY = "10.1.2.3"
TRUSTED = ("10.0.0.0/8", "2001:db8:1::/64", "192.0.2.128/25")
DEVICE = "198.51.100.7"
CONNECT = mqtt.encode(mqtt.Connect("device", True, 0))


def use_proxy(worker: WorkerDouble, *, refuses_others: bool = False) -> None:
    assert worker.listener is not None
    worker.listener.use_proxy_protocol(
        ProxyProtocol(TRUSTED, refuses_others=refuses_others, header_timeout=5.0)
    )


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble(admission={"source_connections": 2, "half_open_max": 4}) as worker:
        use_proxy(worker)
        yield worker


def connection(worker: WorkerDouble, data: bytes = b"", host: str = PROXY) -> Peer:
    assert worker.listener is not None
    peer = Peer(worker.listener, host)
    if data:
        peer.send(data)
    worker.loop.run()
    return peer


def described(worker: WorkerDouble) -> list[dict[str, Any]]:
    slots = (worker.sessions.at(slot) for slot in range(worker.sessions.slot_count()))
    return [session.describe() for session in slots if session is not None]


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.128", True),
        ("192.0.2.127", False),
        ("2001:db8:1::5", True),
        ("2001:db8:2::5", False),
        ("::ffff:10.1.1.1", True),
        ("::ffff:11.1.1.1", False),
    ],
)
def test_networks(address: str, trusted: bool) -> None:
    proxy = ProxyProtocol(TRUSTED, refuses_others=False, header_timeout=5.0)
    assert proxy.trusts_address(sockaddr(address, 1)) is trusted
    assert not proxy.trusts_address(b"\x01\x00")
    everybody = ProxyProtocol(["0.0.0.0/0", "::/0"], refuses_others=False, header_timeout=5.0)
    assert everybody.trusts_address(sockaddr(address, 1))
    assert not ProxyProtocol([], refuses_others=False, header_timeout=5.0).trusts_address(
        sockaddr(address, 1)
    )


@pytest.mark.parametrize("header", [line(DEVICE), binary(DEVICE), binary("2001:db8::9"), line("2001:db8::9")])
def test_a_header_that_is_split_at_every_byte(worker: WorkerDouble, header: bytes) -> None:
    for at in range(1, len(header)):
        peer = connection(worker, header[:at])
        peer.send(header[at:] + CONNECT)
        worker.loop.run()
        worker.admit()
        worker.loop.run()
        assert peer.look()[:1] == b"\x20", at
        host = "198.51.100.7:50000" if b"198." in header or b"\xc6\x33" in header else "[2001:db8::9]:50000"
        assert [each["peer"] for each in described(worker)] == [host]
        peer.go()
        worker.loop.run()
    assert worker.listener is not None
    assert worker.listener.connection_count() == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_in_front_of_each_kind_of_listener(layer: str, tmp_path: Path) -> None:
    header = binary(DEVICE, fields=[field(AUTHORITY, b"a.example"), tls_field(b"meter-7")])

    class Proxy(Peer):
        """A client whose first bytes are a header."""

        def __init__(self, listener: Any, host: str) -> None:
            super().__init__(listener, PROXY)
            super().send(header)

    with pytest.MonkeyPatch.context() as patch, WorkerDouble() as worker:
        patch.setattr("tests.unit.net.layered.Peer", Proxy)
        listen(worker, layer, worker.mqtt, "mqtt", tmp_path)
        use_proxy(worker)
        client = LayeredClient(worker, layer)
        client.send(CONNECT)
        worker.loop.run()
        worker.admit(Client())
        assert client.look()
        (session,) = described(worker)
        assert session["peer"] == "198.51.100.7:50000"
        assert session["proxied"] == {"tls": True, "serverName": "a.example", "commonName": "meter-7"}
        client.go()


def test_bytes_of_the_protocol_behind_the_header_are_not_lost(worker: WorkerDouble) -> None:
    publish = mqtt.encode(mqtt.Publish("kp1/app_v1/dcx/t/json", b"x" * 10_000))
    connection(worker, binary(DEVICE) + CONNECT + publish)
    worker.admit()
    worker.loop.run()
    worker.identify()
    (published,) = worker.published()
    assert published.data.payload == b"x" * 10_000


def test_limits_of_sources_are_those_of_clients() -> None:
    with WorkerDouble(admission={"source_connections": 2}) as worker:
        use_proxy(worker)
        peers = [connection(worker, line(f"198.51.100.{number}") + CONNECT) for number in range(4)]
        for peer in peers:
            worker.admit()
            worker.loop.run()
            assert not peer.closed
        peers += [connection(worker, line("203.0.113.1")) for _ in range(3)]
        assert worker.reason("closed", "too_many_connections_of_source") == 1
        assert worker.listener is not None
        for peer in peers:
            peer.go()
        worker.loop.run()
        assert worker.listener.connection_count() == 0
        assert worker.admission.source_count() == 0


def test_other_sources_are_plain_and_their_headers_no_protocol(worker: WorkerDouble) -> None:
    plain = connection(worker, CONNECT, DEVICE)
    worker.admit()
    worker.loop.run()
    assert plain.look()[:1] == b"\x20"
    forged = connection(worker, line("203.0.113.5") + CONNECT, DEVICE)
    forged.look()
    assert forged.closed
    assert [each["peer"] for each in described(worker)] == [None]  # socketpair(2) has no address


def test_other_sources_are_refused() -> None:
    with WorkerDouble() as worker:
        use_proxy(worker, refuses_others=True)
        peer = connection(worker, host=DEVICE)
        peer.look()
        assert peer.closed
        assert worker.reason("closed", "proxy_untrusted_source") == 1
        assert worker.listener is not None
        assert worker.listener.connection_count() == 0


def test_a_trusted_source_without_a_header_is_closed(worker: WorkerDouble) -> None:
    for data, reason in ((CONNECT, "proxy_missing_header"), (b"PROXY TCP4 x\r\n", "proxy_malformed_header")):
        peer = connection(worker, data)
        peer.look()
        assert peer.closed
        assert worker.reason("closed", reason) == 1


def test_health_checks_leave_no_trace(worker: WorkerDouble) -> None:
    for data in (b"", b"PROXY", binary(None, command=LOCAL), b"PROXY UNKNOWN\r\n"):
        connection(worker, data).go()
        worker.loop.run()
    assert worker.counters.by_reason() == {}
    assert worker.listener is not None
    assert worker.listener.connection_count() == 0


def test_a_header_has_its_time(worker: WorkerDouble) -> None:
    peer = connection(worker, b"PROXY TCP4")
    worker.loop.pass_time(4)
    worker.check()
    assert not peer.closed
    worker.loop.pass_time(2)
    worker.check()
    peer.look()
    assert peer.closed
    assert worker.reason("closed", "proxy_header_timeout") == 1


def test_awaited_headers_are_bounded(worker: WorkerDouble) -> None:
    peers = [connection(worker, b"PROXY") for _ in range(6)]
    for peer in peers:
        peer.look()
    assert [peer.closed for peer in peers] == [True, True, False, False, False, False]
    assert worker.reason("closed", "proxy_headers_full") == 2


def test_the_listener_stops_while_headers_are_awaited(worker: WorkerDouble) -> None:
    peer = connection(worker, b"PROXY")
    worker.close()
    peer.look()
    assert peer.closed
