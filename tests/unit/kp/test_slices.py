"""No reload, revocation or connection with many endpoints stops the event loop: what is done at once is counted."""

from collections.abc import Generator
from typing import Any

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.identity.provider import Identity
from kaa_gateway.slices import STEPS_PER_ROUND
from kaa_gateway.wire.esp import ExtensionData, encode_extension_data

from tests.unit.kp.device_double import Device
from tests.unit.kp.worker_double import APP, OTHER_APP, WorkerDouble

TOKENS = 2_000
SESSIONS = 3
AT_ONCE = 200
"""Endpoints that may come or go between two looks at other sockets."""


def many(**settings: Any) -> WorkerDouble:
    return WorkerDouble(
        endpoints_per_session=TOKENS, route_cache=4 * TOKENS, waiting=TOKENS, packet_size=1 << 20, **settings
    )


def speak_for(worker: WorkerDouble, device: Device, prefix: str, app: str = APP, count: int = TOKENS) -> None:
    """Let a device speak for many endpoints; their tokens are their IDs."""
    for begin in range(0, count, 100):
        for number in range(begin, begin + 100):
            device.publish(f"kp1/{app}/dcx/{prefix}-{number}/json")
        worker.answer(lambda token: Identity(token, f"id-{token}"))
        worker.published()
        worker.confirm()


def rounds(worker: WorkerDouble) -> list[int]:
    """Run the loop until nothing is left to do; by how much the number of present endpoints changed in each round."""
    changes: list[int] = []
    while True:
        before = len(worker.presence.endpoints)
        if not one_round(worker):
            return changes
        changes.append(abs(len(worker.presence.endpoints) - before))


def one_round(worker: WorkerDouble) -> bool:
    """One round of the loop; False if there was nothing to do."""
    return worker.loop.read() | worker.loop.turn()


def returning(worker: WorkerDouble, client_id: str, *, clean: bool = False) -> Device:
    """A client that connects again, and what the gateway does at once for that."""
    device = worker.unconnected()
    device.send(mqtt.Connect(client_id, clean, 0, None))
    worker.admit()
    return device


def steps_of(work: Generator[int, None, Any]) -> list[int]:
    return list(work)


def test_a_version_that_is_removed_goes_in_slices() -> None:
    with many() as worker:
        devices = [worker.device() for _ in range(SESSIONS)]
        for number, device in enumerate(devices):
            speak_for(worker, device, f"d{number}", OTHER_APP)
        assert len(worker.presence.endpoints) == SESSIONS * TOKENS
        gone = worker.router.configure({APP: frozenset({"dcx"})}, {"dcx": True}, {}, ())
        # At once, before any of it was done: nobody uses a route that is gone.
        devices[0].publish(f"kp1/{OTHER_APP}/dcx/d0-{TOKENS - 1}/json")
        assert worker.published() == []
        worker.slices.run(worker.revocation.withdraw(gone, "not_configured"))
        changes = rounds(worker)
        assert max(changes) <= STEPS_PER_ROUND
        assert worker.presence.endpoints == set()
        assert all(device.closed for device in devices)


def test_the_end_of_an_attachment_takes_constant_time() -> None:
    """A step is one attachment, or one session, whatever the session has besides."""
    with many() as worker:
        device = worker.device()
        speak_for(worker, device, "d", OTHER_APP)
        steps = steps_of(worker.revocation.withdraw({OTHER_APP.encode()}, "not_configured"))
        assert sum(steps) < TOKENS + 50
        assert max(steps) <= 10


def test_revocations_of_all_tokens_of_a_session_are_linear() -> None:
    """One event for each token: what is looked at does not depend on the session's other tokens."""
    with many() as worker:
        device = worker.device()
        speak_for(worker, device, "d")
        versions = frozenset({APP.encode()})
        steps = 0
        for number in range(TOKENS):
            revoked = worker.revocation.revoke_tokens(f"d-{number}", versions, {f"id-d-{number}"})
            steps += sum(steps_of(revoked))
        assert steps == TOKENS
        assert worker.presence.endpoints == set()


def test_a_tenant_that_is_gone_takes_its_sessions_along_in_slices() -> None:
    with many() as worker:
        device = worker.device()
        speak_for(worker, device, "d")
        gone = worker.router.remove_tenant("acme")
        worker.slices.run(worker.revocation.end_tenant("acme", gone, "tenant_unregistered"))
        assert max(rounds(worker)) <= STEPS_PER_ROUND
        assert device.closed
        assert worker.presence.endpoints == set()


@pytest.mark.parametrize("clean", [True, False])
def test_a_connection_with_many_endpoints_ends_in_slices(clean: bool) -> None:
    with many() as worker:
        device = worker.device("many", clean=clean)
        speak_for(worker, device, "d")
        device.leave()
        assert max(rounds(worker)) <= AT_ONCE
        assert worker.presence.endpoints == set()
        assert worker.sessions.count == (0 if clean else 1)


def test_a_session_that_returns_is_there_in_slices_and_flapping_piles_nothing_up() -> None:
    with many() as worker:
        device = worker.device("many", clean=False)
        speak_for(worker, device, "d")
        for _ in range(5):
            device.leave()
            one_round(worker)
            device = returning(worker, "many")
        assert len(worker.slices) <= 1
        assert max(rounds(worker)) <= AT_ONCE
        assert len(worker.presence.endpoints) == TOKENS
        device.leave()
        rounds(worker)
        assert worker.presence.endpoints == set()


def test_a_session_that_ends_while_its_endpoints_come_back_leaves_nothing_behind() -> None:
    with many() as worker:
        device = worker.device("many", clean=False)
        speak_for(worker, device, "d")
        device.leave()
        rounds(worker)
        device = returning(worker, "many")
        one_round(worker)
        assert 0 < len(worker.presence.endpoints) < TOKENS
        device.send(mqtt.Disconnect())
        returning(worker, "many", clean=True)
        rounds(worker)
        assert worker.presence.endpoints == set()
        assert len(worker.sessions.endpoints) == TOKENS, "those of cached routes"


def test_a_push_does_not_go_to_a_session_that_is_ending() -> None:
    with many() as worker:
        device = worker.device()
        speak_for(worker, device, "d")
        device.leave()
        one_round(worker)
        last = f"d-{TOKENS - 1}"
        assert last in worker.presence.endpoints
        data = ExtensionData("push", 0, 0, None, "dcx", last, "/json", None, b"", 200, None)
        worker.deliver(encode_extension_data(*data))
        assert worker.reason("dropped", "no_session") == 1


def test_routes_that_leave_the_cache_are_dropped_a_few_at_a_time() -> None:
    """A message that finds the cache full of old routes ends no more than two of them."""
    with WorkerDouble(endpoints_per_session=5_000, route_cache=1_000, waiting=5_000) as worker:
        device = worker.device()
        speak_for(worker, device, "d", count=1_000)
        device.leave()
        rounds(worker)
        other = worker.device()
        speak_for(worker, other, "other", count=100)
        least = len(worker.sessions.endpoints)
        for number in range(2_000):
            other.publish(f"kp1/{APP}/dcx/other-1/path-{number}")
            before, least = least, len(worker.sessions.endpoints)
            assert before - least <= 2
            assert worker.router.route_count() <= 1_001
        assert least == 100


def test_sessions_that_wait_for_nats_are_resumed_a_few_at_a_time() -> None:
    with WorkerDouble(pending_max=2_000) as worker:
        worker.from_nats(b"")
        devices = [worker.device() for _ in range(60)]
        for device in devices:
            device.publish(f"kp1/{APP}/tsx/time", b"x" * 500)
        paused = [device for device in devices if not device.reading]
        assert len(paused) > 50
        worker.confirm()
        assert all(device.reading for device in devices)
