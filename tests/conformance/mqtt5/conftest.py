"""Fixtures of the MQTT 5 tests: an extension `dcx` that does not answer by itself."""

from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster
from tests.support.nats import NatsServer


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx") as cluster:
        yield cluster
