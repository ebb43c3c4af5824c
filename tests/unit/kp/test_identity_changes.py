"""What an identity provider takes back: tokens, clients, tenants. And what a client may not name at all.

Source: 16/ECAP, revocation events; 22/CAP; 21/TLE; 9/ELCE, lifecycle events.
"""

import json
import math
import time
from collections.abc import Iterator

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_bench.mqtt_packets import Publish
from kaa_gateway.identity.clients import Client
from kaa_gateway.identity.provider import Identity
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, OTHER_APP, WorkerDouble

BOTH = frozenset({APP.encode(), OTHER_APP.encode()})


@pytest.fixture
def worker() -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        yield double


def identity_of(token: str) -> Identity:
    """Tokens `x-...` are of the endpoint x; their IDs are `id-<token>`."""
    return Identity(token.partition("-")[0], f"id-{token}")


def revoke(worker: WorkerDouble, endpoint_id: str, *tokens: str) -> int:
    token_ids = frozenset(f"id-{token}" for token in tokens)
    return worker.in_slices(worker.revocation.revoke_tokens(endpoint_id, BOTH, token_ids))


def known_to(worker: WorkerDouble, device: Device, *tokens: str) -> None:
    """Let a device speak under these tokens."""
    for token in tokens:
        device.publish(f"kp1/{APP}/dcx/{token}/json", token.encode())
    worker.answer(identity_of)
    assert len(worker.published()) == len(tokens)


def push(endpoint_id: str, payload: bytes) -> bytes:
    return encode_extension_data(
        *ExtensionData("push", 0, 0, None, "dcx", endpoint_id, "/json", None, payload, 200, None)
    )


def status_of(packet: object) -> int:
    assert isinstance(packet, Publish)
    status: int = json.loads(packet.payload)["statusCode"]
    return status


# Tokens


def test_a_revoked_token_is_checked_anew_by_its_next_message(worker: WorkerDouble) -> None:
    device = worker.device()
    known_to(worker, device, "e-1")
    assert revoke(worker, "e", "e-1") == 1
    assert worker.presence.endpoints == set()
    device.publish(f"kp1/{APP}/dcx/e-1/json/7")
    assert worker.published() == []
    assert [token for token, _ in worker.asked] == ["e-1"]
    worker.answer(lambda token: None)
    (error,) = device.received()
    assert error.topic == f"kp1/{APP}/dcx/e-1/json/7/error"
    assert status_of(error) == 401
    assert worker.published() == []


def test_a_revoked_token_receives_nothing_more(worker: WorkerDouble) -> None:
    device, other = worker.device(), worker.device()
    known_to(worker, device, "e-1")
    known_to(worker, other, "e-2")
    assert revoke(worker, "e", "e-1") == 1
    worker.deliver(push("e", b"for the other"))
    assert device.received() == []
    assert [packet.payload for packet in other.received()] == [b"for the other"]
    assert worker.presence.endpoints == {"e"}


def test_another_token_of_the_same_endpoint_stays(worker: WorkerDouble) -> None:
    """On the same connection, too, whose pushes then come under the token that is left."""
    device = worker.device()
    known_to(worker, device, "e-1", "e-2", "f-1")
    assert revoke(worker, "e", "e-2") == 1
    device.publish(f"kp1/{APP}/dcx/e-1/json", b"still")
    assert [data.endpoint_id for _, data in worker.published()] == ["e"]
    worker.deliver(push("e", b""))
    (packet,) = device.received()
    assert packet.topic.startswith(f"kp1/{APP}/dcx/e-1/")
    assert worker.asked == []
    assert worker.presence.endpoints == {"e", "f"}


def test_a_cached_route_lets_nobody_else_in_after_a_revocation(worker: WorkerDouble) -> None:
    """The route was compiled for a session that has long gone."""
    device = worker.device()
    known_to(worker, device, "e-1")
    device.drop()
    newcomer = worker.device()
    newcomer.publish(f"kp1/{APP}/dcx/e-1/json", b"route and identity are known")
    assert len(worker.published()) == 1
    newcomer.drop()
    assert revoke(worker, "e", "e-1") == 0
    late = worker.device()
    late.publish(f"kp1/{APP}/dcx/e-1/json")
    assert worker.published() == []
    worker.answer(lambda token: None)
    assert worker.published() == []
    late.publish(f"kp1/{APP}/dcx/e-1/json", b"good again")
    worker.answer(identity_of)
    assert [data.payload for _, data in worker.published()] == [b"good again"]
    third = worker.device()
    third.publish(f"kp1/{APP}/dcx/e-1/json", b"the route is current again")
    assert len(worker.published()) == 1
    assert worker.asked == []


def test_a_token_may_go_over_to_another_endpoint(worker: WorkerDouble) -> None:
    device, other = worker.device(), worker.device()
    known_to(worker, device, "e-1")
    known_to(worker, other, "e-1") if worker.asked else other.publish(f"kp1/{APP}/dcx/e-1/json")
    worker.published()
    assert revoke(worker, "e", "e-1") == 2
    for each in (device, other):
        each.publish(f"kp1/{APP}/dcx/e-1/json")
        each.publish(f"kp1/{APP}/dcx/e-1/other")
    worker.answer(lambda token: Identity("new", "id-new"))
    assert [data.endpoint_id for _, data in worker.published()] == ["new"] * 4
    for each in (device, other):
        each.publish(f"kp1/{APP}/dcx/e-1/json")
        each.publish(f"kp1/{APP}/dcx/e-1/other")
    assert [data.endpoint_id for _, data in worker.published()] == ["new"] * 4
    assert worker.presence.endpoints == {"new"}


def test_an_identity_whose_time_is_over_is_asked_for_by_the_next_session_only(worker: WorkerDouble) -> None:
    """An established session is not disturbed: that is what revocation is for."""
    device = worker.device()
    device.publish(f"kp1/{APP}/dcx/e-1/json")
    worker.answer(lambda token: Identity("e", "id", time.monotonic() - 1))
    assert len(worker.published()) == 1
    device.publish(f"kp1/{APP}/dcx/e-1/json")
    assert len(worker.published()) == 1
    newcomer = worker.device()
    newcomer.publish(f"kp1/{APP}/dcx/e-1/json")
    assert worker.published() == []
    worker.answer(lambda token: Identity("e", "id", math.inf))
    assert len(worker.published()) == 1
    worker.device().publish(f"kp1/{APP}/dcx/e-1/json")
    assert len(worker.published()) == 1


def test_places_of_revoked_tokens_are_used_again() -> None:
    """Else a device whose tokens are replaced for ever would reach the bound of its connection."""
    with WorkerDouble(endpoints_per_session=3) as worker:
        device = worker.device()
        known_to(worker, device, "a-1", "b-1")
        for number in range(20):
            known_to(worker, device, f"c-{number}")
            assert revoke(worker, "c", f"c-{number}") == 1
        known_to(worker, device, "c-last")
        device.publish(f"kp1/{APP}/dcx/d-1/json/1")
        worker.answer(identity_of)
        assert status_of(device.received()[0]) == 429


def test_a_revocation_of_what_nobody_uses_does_nothing(worker: WorkerDouble) -> None:
    device = worker.device()
    known_to(worker, device, "e-1")
    assert revoke(worker, "stranger", "e-1") == 0
    assert revoke(worker, "e", "e-other") == 0
    others = worker.revocation.revoke_tokens("e", frozenset({b"no-app"}), frozenset({"id-e-1"}))
    assert worker.in_slices(others) == 0
    device.publish(f"kp1/{APP}/dcx/e-1/json")
    assert len(worker.published()) == 1


# Providers that cannot tell


def test_a_subscription_is_identified_once_the_provider_can_tell(worker: WorkerDouble) -> None:
    """A device that only listens would otherwise wait for its pushes for ever."""
    device = worker.device()
    device.send(mqtt.Subscribe(1, ((f"kp1/{APP}/cmx/e-1/#", 0),)))
    for _ in range(3):
        worker.answer(lambda token: 503)
        worker.in_slices(worker.uplink.identification.retry())
    worker.answer(identity_of)
    worker.deliver(push("e", b"at last"))
    assert device.received()[-1].payload == b"at last"
    worker.in_slices(worker.uplink.identification.retry())
    assert worker.asked == []


def test_a_refused_or_departed_subscription_is_not_asked_for_again(worker: WorkerDouble) -> None:
    device, other = worker.device(), worker.device()
    device.send(mqtt.Subscribe(1, ((f"kp1/{APP}/cmx/e-1/#", 0),)))
    worker.answer(lambda token: None)
    other.send(mqtt.Subscribe(1, ((f"kp1/{APP}/cmx/e-2/#", 0),)))
    worker.answer(lambda token: 503)
    other.drop()
    worker.in_slices(worker.uplink.identification.retry())
    assert worker.asked == []


# Endpoints


def end_endpoint(worker: WorkerDouble, endpoint_id: str) -> int:
    return worker.in_slices(worker.revocation.end_endpoint(endpoint_id, "endpoint_unregistered"))


def move(worker: WorkerDouble, endpoint_id: str, app_version: str | None) -> int:
    target = None if app_version is None else app_version.encode()
    return worker.in_slices(
        worker.revocation.move_endpoint(endpoint_id, APP.encode(), target, "endpoint_moved")
    )


def test_an_unregistered_endpoint_loses_all_its_tokens_and_the_sessions_that_have_no_other(
    worker: WorkerDouble,
) -> None:
    only, both = worker.device(), worker.device()
    known_to(worker, only, "e-1", "e-2")
    known_to(worker, both, "e-1" if worker.asked else "e-3", "f-1")
    assert end_endpoint(worker, "e") == 3
    assert only.closed
    assert not both.closed
    assert worker.presence.endpoints == {"f"}
    both.publish(f"kp1/{APP}/dcx/e-3/json/7")
    assert worker.published() == []
    worker.answer(lambda token: None)
    assert status_of(both.received()[0]) == 401
    both.publish(f"kp1/{APP}/dcx/f-1/json")
    assert [data.endpoint_id for _, data in worker.published()] == ["f"]


def test_the_end_of_an_unknown_endpoint_does_nothing(worker: WorkerDouble) -> None:
    assert end_endpoint(worker, "nobody") == 0
    assert move(worker, "nobody", OTHER_APP) == 0


def test_a_cached_route_lets_nobody_in_after_its_endpoint_was_unregistered(worker: WorkerDouble) -> None:
    device = worker.device()
    known_to(worker, device, "e-1")
    device.drop()
    assert end_endpoint(worker, "e") == 0
    late = worker.device()
    late.publish(f"kp1/{APP}/dcx/e-1/json")
    assert worker.published() == []
    assert [token for token, _ in worker.asked] == ["e-1"]


def test_an_endpoint_goes_over_to_another_application_version(worker: WorkerDouble) -> None:
    device = worker.device()
    known_to(worker, device, "e-1", "f-1")
    assert move(worker, "e", OTHER_APP) == 1
    worker.deliver(push("e", b"after"))
    (packet,) = device.received()
    assert packet.topic == f"kp1/{OTHER_APP}/dcx/e-1/json/status"
    device.publish(f"kp1/{OTHER_APP}/dcx/e-1/json", b"new")
    assert worker.asked == []
    assert [(data.app_version_name, data.endpoint_id) for _, data in worker.published()] == [(OTHER_APP, "e")]
    # Under the former version the provider is asked what it thinks of that.
    device.publish(f"kp1/{APP}/dcx/e-1/json", b"old")
    assert worker.published() == []
    worker.answer(lambda token: None)
    assert not device.closed
    assert worker.presence.endpoints == {"e", "f"}


def test_an_endpoint_that_goes_over_to_an_unknown_version_ends_its_session(worker: WorkerDouble) -> None:
    device = worker.device()
    known_to(worker, device, "e-1")
    assert move(worker, "e", None) == 1
    assert device.closed
    assert worker.presence.endpoints == set()


def test_a_version_may_be_the_successor_of_another_of_its_tenant(worker: WorkerDouble) -> None:
    old, new = APP.encode(), OTHER_APP.encode()
    assert worker.router.successor(old, old) == old
    assert worker.router.successor(old, new) is None
    assert worker.router.successor(old, b"unknown") is None


# Clients


def test_a_client_whose_credentials_are_revoked_is_closed_without_its_will(worker: WorkerDouble) -> None:
    will = mqtt.Will(f"kp1/{APP}/tsx/will", b"")
    revoked, other = (worker.device("one", client=Client(name), will=will) for name in ("revoked", "other"))
    assert worker.in_slices(worker.revocation.end_clients(frozenset({"revoked"}), "credentials_revoked")) == 1
    assert revoked.closed
    assert not other.closed
    assert worker.published() == []
    assert worker.sessions.count == 1
    assert worker.reason("closed", "credentials_revoked") == 1


def test_the_session_of_an_absent_client_is_forgotten_too(worker: WorkerDouble) -> None:
    device = worker.device("one", clean=False, client=Client("revoked"))
    known_to(worker, device, "e-1")
    device.drop()
    assert worker.sessions.count == 1
    assert worker.in_slices(worker.revocation.end_clients(frozenset({"revoked"}), "credentials_revoked")) == 1
    assert worker.sessions.count == 0
    assert worker.reason("dropped", "credentials_revoked") == 1


# Tenants: APP belongs to `acme`, OTHER_APP to nobody


@pytest.mark.parametrize("extension", ["tsx", "dcx/e-1"])
def test_a_client_may_not_speak_for_anothers_application(worker: WorkerDouble, extension: str) -> None:
    """Neither before a route is compiled nor through one that another client has used."""
    topic = f"kp1/{APP}/{extension}/json/1"
    stranger = worker.device(client=Client("mallory", "umbrella"))
    stranger.publish(topic)
    stranger.send(mqtt.Subscribe(1, ((f"kp1/{APP}/dcx/e-1/#", 0),)))
    assert worker.asked == []
    owner = worker.device(client=Client("alice", "acme"))
    owner.publish(topic, b"mine")
    worker.answer(identity_of)
    stranger.publish(topic)
    stranger.publish(topic)
    assert [data.payload for _, data in worker.published()] == [b"mine"]
    errors = [packet for packet in stranger.received() if isinstance(packet, Publish)]
    assert [status_of(error) for error in errors] == [403] * 3
    assert worker.reason("refused", "wrong_tenant") == 4


def test_a_client_with_one_token_may_use_no_other(worker: WorkerDouble) -> None:
    """Neither before a route is compiled, nor through one of another client, nor in a topic filter."""
    bound = worker.device(client=Client("alice", only_token=b"e-1"))
    free = worker.device(client=Client("carol"))
    topic = f"kp1/{APP}/dcx/e-2/json/1"
    bound.publish(topic)
    bound.send(mqtt.Subscribe(1, ((f"kp1/{APP}/dcx/e-2/#", 0),)))
    assert worker.asked == []
    free.publish(topic, b"free")
    worker.answer(identity_of)
    bound.publish(topic)
    bound.publish(f"kp1/{APP}/tsx/json/1", b"no token")
    bound.publish(f"kp1/{APP}/dcx/e-1/json/1", b"own")
    worker.answer(identity_of)
    bound.publish(topic)
    assert [data.payload for _, data in worker.published()] == [b"free", b"no token", b"own"]
    errors = [packet for packet in bound.received() if isinstance(packet, Publish)]
    assert [status_of(error) for error in errors] == [403] * 3
    assert worker.reason("refused", "other_token") == 4


def test_an_application_without_tenant_is_nobodys(worker: WorkerDouble) -> None:
    """A client that is confined to a tenant may not use it; one that is not, may use all."""
    confined = worker.device(client=Client("alice", "acme"))
    confined.publish(f"kp1/{OTHER_APP}/dcx/e-1/json/1")
    assert status_of(confined.received()[0]) == 403
    free = worker.device(client=Client("carol"))
    for app in (APP, OTHER_APP):
        free.publish(f"kp1/{app}/dcx/e-1/json/1")
    worker.answer(identity_of)
    assert len(worker.published()) == 2


def test_a_tenant_that_is_gone_takes_its_sessions_with_it(worker: WorkerDouble) -> None:
    client = worker.device(client=Client("alice", "acme"))
    anonymous, bystander = worker.device(), worker.device()
    known_to(worker, anonymous, "e-1")
    bystander.publish(f"kp1/{APP}/tsx/1")
    bystander.publish(f"kp1/{OTHER_APP}/dcx/f-1/json")
    worker.answer(identity_of)
    worker.published()
    gone = worker.router.remove_tenant("acme")
    assert gone == {APP.encode()}
    assert worker.in_slices(worker.revocation.end_tenant("acme", gone, "tenant_unregistered")) == 2
    assert client.closed
    assert anonymous.closed
    assert not bystander.closed
    assert worker.presence.endpoints == {"f"}
    for topic in (f"kp1/{APP}/tsx/1", f"kp1/{APP}/dcx/e-1/json/1"):
        bystander.publish(topic)
        assert status_of(bystander.received()[0]) == 404
    bystander.publish(f"kp1/{OTHER_APP}/dcx/f-1/json")
    assert len(worker.published()) == 1
