"""Whose connection a CONNECT ends (MQTT 3.1.1 sections 3.1.2.4, 3.1.3.1, 3.1.4): one client is there once.

Client identifiers are shared by whole fleets, so an equal one does not make two anonymous clients the same.
"""

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Connect, Disconnect, Publish, Suback, Subscribe, Will
from kaa_gateway.identity.clients import Client

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, WorkerDouble

ALICE = Client("alice")
BOB = Client("bob")
ANONYMOUS = Client()


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def will(token: str, extension: str = "dcx") -> Will:
    return Will(f"kp1/{APP}/{extension}/{token}/json", b"gone")


def payloads(worker: WorkerDouble) -> list[bytes | None]:
    """What has gone to the extensions, when the identity of all tokens is known."""
    worker.identify()
    return [data.payload for _, data in worker.published()]


@pytest.mark.parametrize("first_is_clean", [True, False])
@pytest.mark.parametrize("second_is_clean", [True, False])
def test_an_anonymous_client_that_its_will_tells_apart_is_there_once(
    worker: WorkerDouble, first_is_clean: bool, second_is_clean: bool
) -> None:
    """Its old connection is closed, and the will comes before what it says over the new one."""
    old = worker.device("sketch", clean=first_is_clean, will=will("t1"))
    new = worker.device("sketch", clean=second_is_clean, will=will("t1"))
    assert old.closed
    new.publish(f"kp1/{APP}/dcx/t1/json", b"here")
    assert payloads(worker) == [b"gone", b"here"]
    assert worker.reason("closed", "mqtt_taken_over") == 1
    assert worker.sessions.count == 1
    assert not new.closed


def test_the_will_of_another_extension_of_the_same_endpoint_tells_apart_as_well(worker: WorkerDouble) -> None:
    old = worker.device("sketch", will=will("t1", "cmx"))
    worker.device("sketch", will=will("t1"))
    assert old.closed


@pytest.mark.parametrize(
    "wills",
    [
        (None, None),
        (will("t1"), None),
        (None, will("t1")),
        (will("t1"), will("t2")),
        (Will("outside", b""), Will("outside", b"")),
        (will("x", "tsx"), will("x", "tsx")),  # an extension without endpoints
    ],
)
@pytest.mark.parametrize("clean", [(True, True), (True, False), (False, True)])
def test_anonymous_clients_that_nothing_tells_apart_live_side_by_side(
    worker: WorkerDouble, wills: tuple[Will | None, Will | None], clean: tuple[bool, bool]
) -> None:
    devices = [
        worker.device("sketch", clean=is_clean, will=each)
        for is_clean, each in zip(clean, wills, strict=True)
    ]
    assert not any(device.closed for device in devices)
    assert worker.sessions.count == 2


def test_a_client_that_has_left_is_not_taken_over(worker: WorkerDouble) -> None:
    worker.device("sketch", will=will("t1")).drop()
    assert payloads(worker) == [b"gone"]
    device = worker.device("sketch", will=will("t1"))
    other = worker.device("other", will=will("t1"))
    assert not device.closed
    assert not other.closed
    assert worker.counters.by_reason() == {}


@pytest.mark.parametrize("client", [ANONYMOUS, ALICE])
@pytest.mark.parametrize("with_will", [False, True])
def test_clients_without_an_identifier_never_take_each_other_over(
    worker: WorkerDouble, client: Client, with_will: bool
) -> None:
    """3.1.3.1: the server gives each a unique one."""
    last = will("t1") if with_will else None
    devices = [worker.device("", client=client, will=last) for _ in range(3)]
    assert not any(device.closed for device in devices)
    devices[1].drop()
    assert worker.sessions.count == 2
    for device in (devices[0], devices[2]):
        device.send(Subscribe(1, (("a", 1),)))
        assert device.received() == [Suback(1, (1,))]


@pytest.mark.parametrize("clean", [(True, True), (True, False), (False, True), (False, False)])
def test_an_authenticated_client_is_there_once(worker: WorkerDouble, clean: tuple[bool, bool]) -> None:
    old = worker.device("id", clean=clean[0], client=ALICE, will=will("t1"))
    other = worker.device("id", client=BOB, will=will("t1"))
    worker.device("id", clean=clean[1], client=ALICE)
    assert old.closed
    assert not other.closed
    assert payloads(worker) == [b"gone"]
    assert worker.sessions.count == 2


def connack(
    worker: WorkerDouble, client_id: str, clean: bool, client: Client = ANONYMOUS
) -> tuple[Device, Connack]:
    device = worker.unconnected()
    device.send(Connect(client_id, clean, 0))
    worker.admit(client)
    (packet,) = device.received()
    return device, packet


@pytest.mark.parametrize("client", [ANONYMOUS, ALICE])
def test_clean_session_1_discards_what_clean_session_0_left(worker: WorkerDouble, client: Client) -> None:
    """3.1.2-6."""
    device, _ = connack(worker, "id", False, client)
    device.send(Subscribe(1, (("a", 1),)))
    device.drop()
    device, packet = connack(worker, "id", True, client)
    assert packet == Connack(False, 0)
    device.drop()
    assert worker.sessions.count == 0
    assert connack(worker, "id", False, client)[1] == Connack(False, 0)


def test_a_will_that_was_published_is_not_published_again(worker: WorkerDouble) -> None:
    old = worker.device("sketch", will=will("t1"))
    new = worker.device("sketch", will=will("t1"))
    assert old.closed
    assert payloads(worker) == [b"gone"]
    new.drop()
    assert payloads(worker) == [b"gone"]
    assert worker.sessions.count == 0


def test_publish_before_connack_comes_after_the_will(worker: WorkerDouble) -> None:
    worker.device("sketch", will=will("t1"))
    worker.identify()
    device = worker.unconnected()
    topic = f"kp1/{APP}/dcx/t1/json"
    device.send(Connect("sketch", will=will("t1")), Publish(topic, b"here"))
    worker.admit()
    assert payloads(worker) == [b"gone", b"here"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_clients_of_several_principals_with_one_identifier_have_a_session_each(
    worker: WorkerDouble, order: tuple[int, ...]
) -> None:
    clients = [ANONYMOUS, ALICE, BOB]

    def is_resumed(client: Client, *, clean: bool = False) -> bool:
        device, packet = connack(worker, "shared", clean, client)
        device.send(Disconnect())
        return packet.session_present

    assert [is_resumed(client) for client in clients] == [False, False, False]
    for number in order:
        client = clients[number]
        assert is_resumed(client)
        assert not is_resumed(client, clean=True)
        assert not is_resumed(client)
    assert [is_resumed(client) for client in clients] == [True, True, True]
    assert not any(is_resumed(client, clean=True) for client in clients)
    assert worker.stored.offline_count() == 0
