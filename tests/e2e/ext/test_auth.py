"""The provider of tokens and clients on JetStream: its unit tests, and one that needs a server."""

from collections.abc import AsyncIterator

import pytest
from kaa_ext import Extension
from kaa_ext.services import auth
from kaa_ext.testing import nats_server, online
from kaa_gateway.bus.messages import now_ms

from tests.unit.ext.services.test_auth import (
    TOKEN_REVOKED,
    Asked,
    asked,
    test_devices_add_themselves_where_they_may,
    test_more_time_is_good_again,
    test_other_credentials_in_place_of_former_ones_end_those,
    test_requests_at_one_time_add_one,
    test_suspended_revoked_and_unknown,
    test_what_has_expired_is_refused_and_told,
)

__all__ = [
    "test_devices_add_themselves_where_they_may",
    "test_more_time_is_good_again",
    "test_other_credentials_in_place_of_former_ones_end_those",
    "test_requests_at_one_time_add_one",
    "test_suspended_revoked_and_unknown",
    "test_what_has_expired_is_refused_and_told",
]


@pytest.fixture
async def provider() -> AsyncIterator[Asked]:
    """Two replicas of auth."""
    async with nats_server() as url, asked(Extension("auth"), Extension("auth"), nats_url=url) as made:
        yield made


async def test_what_expired_while_no_replica_ran_is_told_at_the_start() -> None:
    async with nats_server() as url, asked(nats_url=url) as provider:
        _, id_ = await provider.registry.add_token("app", "ep", expires=now_ms())
        late = Extension("auth")
        auth.register(late)
        async with online(late, nats_url=url, replica_id="other"):
            await provider.until_told(TOKEN_REVOKED, id_)
