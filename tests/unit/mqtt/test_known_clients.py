"""CONNECT of a client that the authenticator has admitted lately: it is not asked again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kaa_bench.mqtt_packets import Connack, Connect
from kaa_gateway.identity.authenticator import Admitted
from kaa_gateway.identity.cache import Cache
from kaa_gateway.identity.clients import Client
from kaa_gateway.identity.digests import digest_of
from kaa_gateway.identity.known_clients import KnownClients

from tests.unit.kp.worker_double import WorkerDouble

KEY = bytes(range(32))
ALICE = Admitted("cap:1", Client("cap:1", "acme", "alice"))
RIGHT = Connect("id", True, 60, None, "alice", b"secret")


@pytest.fixture
def cache() -> Cache[bytes, Admitted]:
    return Cache(10)


@pytest.fixture
def worker(cache: Cache[bytes, Admitted]) -> Iterator[WorkerDouble]:
    with WorkerDouble() as double:
        double.mqtt.set_known_clients(KnownClients(KEY, cache))
        yield double


def is_asked(worker: WorkerDouble, connect: Connect) -> bool:
    """Whether the authenticator is asked about a client, which is admitted at once otherwise."""
    device = worker.unconnected()
    device.send(connect)
    return device.received() != [Connack(False, 0)]


@pytest.mark.parametrize("password", [b"secret", b"", None, b"x" * 1000])
def test_a_known_client_is_admitted_at_once(
    worker: WorkerDouble, cache: Cache[bytes, Admitted], password: bytes | None
) -> None:
    cache.put(digest_of(KEY, "älice", password, None), ALICE, float("inf"))
    assert not is_asked(worker, Connect("id", True, 60, None, "älice", password))
    session = worker.sessions.at(0)
    assert session is not None
    assert (session.principal, session.tenant, session.client) == ("cap:1", "acme", "alice")
    assert (cache.hits, cache.misses) == (1, 0)


@pytest.mark.parametrize(
    "connect",
    [
        Connect("id", True, 60, None, "alice", b"Secret"),
        Connect("id", True, 60, None, "alic", b"esecret"),
        Connect("id", True, 60, None, "alice"),
        Connect("alice", True, 60, None),
    ],
)
def test_the_authenticator_is_asked_about_other_credentials(
    worker: WorkerDouble, cache: Cache[bytes, Admitted], connect: Connect
) -> None:
    cache.put(digest_of(KEY, "alice", b"secret", None), ALICE, float("inf"))
    assert is_asked(worker, connect)
    assert (cache.hits, cache.misses) == (0, 0)  # the authenticator counts what it looks for


def test_the_authenticator_is_asked_again_when_its_answer_is_old(
    worker: WorkerDouble, cache: Cache[bytes, Admitted]
) -> None:
    cache.put(digest_of(KEY, "alice", b"secret", None), ALICE, 0)
    assert is_asked(worker, RIGHT)


def test_the_authenticator_is_asked_again_after_a_revocation(
    worker: WorkerDouble, cache: Cache[bytes, Admitted]
) -> None:
    digest = digest_of(KEY, "alice", b"secret", None)
    cache.put(digest, ALICE, float("inf"))
    cache.forget(digest)
    assert is_asked(worker, RIGHT)
    cache.put(digest, ALICE, float("inf"))
    cache.clear()
    assert is_asked(worker, RIGHT)


def test_known_clients_do_not_matter_if_authentication_is_off(cache: Cache[bytes, Admitted]) -> None:
    with WorkerDouble(client_authentication="off") as worker:
        worker.mqtt.set_known_clients(KnownClients(KEY, cache))
        cache.put(digest_of(KEY, "alice", b"secret", None), ALICE, float("inf"))
        assert not is_asked(worker, RIGHT)
        session = worker.sessions.at(0)
        assert session is not None
        assert session.principal == ""
