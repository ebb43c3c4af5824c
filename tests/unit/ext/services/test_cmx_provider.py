"""cmx and its provider: one question for each change."""

import json
from collections.abc import AsyncIterator

import pytest
from kaa_ext import Extension
from kaa_ext.messages import cdtp
from kaa_ext.sdk.state import State
from kaa_ext.services import cmx, ecr
from kaa_ext.services.cmx import provider
from kaa_ext.testing import Gateway, offline
from nats.aio.msg import Msg


class Platform:
    """cmx and ecr, and the questions of the one to the other."""

    def __init__(self) -> None:
        self.cmx, self.ecr = Extension("cmx"), Extension("ecr")
        cmx.register(self.cmx)
        ecr.register(self.ecr)
        state: State[ecr.Configuration] = self.ecr._states[ecr.STATE]
        self.registry = ecr.Registry("ecr", state, self.ecr.publish)
        self.gateway: Gateway
        self.questions: list[Msg] = []

    async def ask(self, body: bytes = b"{}", endpoint_id: str = "device") -> object:
        """Return the answer to a device."""
        answer = await self.gateway.request("cmx", "/config/json", body, endpoint_id=endpoint_id)
        assert answer.status_code == 200
        return json.loads(answer.payload or b"")


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    platform = Platform()
    async with offline(platform.cmx, platform.ecr) as platform.gateway:
        platform.questions = await platform.gateway.listen(cdtp.request_subject("ecr"))
        yield platform


async def test_the_provider_is_asked_once_for_each_endpoint(platform: Platform) -> None:
    for _ in range(5):
        assert await platform.ask() == {"configId": "", "config": None}
        assert await platform.ask(b'{"configId": ""}') == {}
    assert len(platform.questions) == 1
    await platform.ask(endpoint_id="other")
    assert len(platform.questions) == 2


async def test_a_change_is_in_the_next_answer_without_a_question(platform: Platform) -> None:
    await platform.ask()
    for number in range(5):
        changed = await platform.registry.set("app_v1", "device", "", b"[%d]" % number)
        await platform.gateway.next_pushes(1)
        assert await platform.ask() == {"configId": changed.config_id, "config": [number]}
        assert await platform.ask(json.dumps({"configId": changed.config_id}).encode()) == {}
    assert len(platform.questions) == 1


async def test_the_provider_is_asked_again_after_a_time_and_after_a_lost_connection(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    await platform.ask()
    monkeypatch.setattr(platform.cmx._connection, "connects", 2)
    await platform.ask()
    assert len(platform.questions) == 2
    monkeypatch.setattr(provider, "KEPT_S", -1.0)
    monkeypatch.setattr(platform.cmx._connection, "connects", 3)
    await platform.ask()
    await platform.ask()
    assert len(platform.questions) == 4


async def test_configurations_in_memory_are_bounded(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "CONFIGURATIONS_MAX", 3)
    for turn in range(2):
        for number in range(4):
            await platform.ask(endpoint_id=str(number))
        assert len(platform.questions) == 4 * (turn + 1)
    await platform.ask(endpoint_id="3")
    assert len(platform.questions) == 8
