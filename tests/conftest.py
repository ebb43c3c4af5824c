"""Fixtures that every kind of test shares."""

import itertools
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import structlog
import uvloop
from hypothesis import settings

from tests.support.auth_provider import AuthProvider
from tests.support.cluster import Cluster
from tests.support.encrypted import Pki
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

# How long an example takes says something of the machine only.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A script has its background commands ignore SIGINT, and so would the programs that a test starts and stops by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], uvloop.Loop]]:
    """Async tests run on the gateway's own kind of event loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """What a test does to the process's logging ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A fresh nats-server (core NATS, no authentication) for one test, which may kill and restart it."""
    with NatsServer() as server:
        yield server


@pytest.fixture
def gateway(nats_server: NatsServer) -> Iterator[GatewayProcess]:
    """A fresh gateway on `nats_server` for one test, which may kill and restart it."""
    with GatewayProcess(nats_server.url) as process:
        yield process


@pytest.fixture(scope="module")
def shared_nats() -> Iterator[NatsServer]:
    """A nats-server for the tests of a module, which leave it running."""
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared_gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    """A gateway on `shared_nats` for the tests of a module, which leave it running.

    They tell their endpoints from those of other tests by `new_token`. Its process must still be alive at the end.
    """
    with GatewayProcess(shared_nats.url) as process:
        yield process
        assert process.running, process.log
        assert "Traceback" not in process.log, process.log


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    """The services behind NATS, with the extension instance `dcx`, for one test."""
    async with Cluster(shared_nats.url, "dcx") as cluster:
        yield cluster


@pytest.fixture
async def auth(shared_nats: NatsServer) -> AsyncIterator[AuthProvider]:
    """A provider of identities, for one test, which says what it knows."""
    async with AuthProvider(shared_nats.url) as provider:
        yield provider


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates for the tests of a module."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def new_token() -> Callable[[], str]:
    """Makes endpoint tokens that no other test uses."""
    return lambda: f"token-{next(_numbers)}"
