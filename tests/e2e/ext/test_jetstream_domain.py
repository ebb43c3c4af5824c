"""`kaa-ext` at a leaf node whose hub has the JetStream: every command finds it by the name of its domain."""

import json
import os
from collections.abc import Iterator

import httpx
import pytest

from tests.support.extensions import kaa_ext, running
from tests.support.leaf_node import leaf
from tests.support.rest import Api, serving

DOMAIN = "hub"
OPTION = ("--jetstream-domain", DOMAIN)
APP_VERSION = "app_v1"


@pytest.fixture
def node_url() -> Iterator[str]:
    """The URL of a leaf node without a JetStream of its own."""
    with leaf(hub_domain=DOMAIN) as (_, node, _):
        yield node.url


async def test_commands_and_the_rest_api_use_the_jetstream_of_the_hub(node_url: str) -> None:
    services = ("ecr", "epmx", "auth", "cex")
    async with running(*services, *OPTION, nats_url=node_url):
        app_version = ("--app-version", APP_VERSION)
        for command in (
            ("config", "set", "ep", "[1]", *app_version),
            ("metadata", "set", "ep", '{"floor": 3}', *app_version),
            ("auth", "add", "ep", "--app", "app"),
            ("command", "list", "ep"),
        ):
            status, _, errors = await kaa_ext(*command, *OPTION, nats_url=node_url)
            assert (status, errors) == (0, ""), command
        status, shown, _ = await kaa_ext("config", "get", "ep", *app_version, *OPTION, nats_url=node_url)
        assert (status, json.loads(shown)) == (0, [1])
        async with (
            serving(node_url, *OPTION) as (url, _),
            httpx.AsyncClient(base_url=url, timeout=60) as http,
        ):
            api = await Api.read(http)
            assert await api.ok("getMetadata", endpoint="ep") == {"floor": 3}
        status, _, errors = await kaa_ext("config", "get", "ep", *app_version, nats_url=node_url)
        assert status != 0
        assert "there is no state of ecr" in errors


async def test_the_environment_names_the_domain(node_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "NATS_JETSTREAM_DOMAIN", DOMAIN)
    async with running("epmx", nats_url=node_url):
        status, _, errors = await kaa_ext("metadata", "get", "ep", nats_url=node_url)
        assert (status, errors) == (0, "")


@pytest.mark.parametrize("command", [("run", "echo"), ("rest",), ("metadata", "get", "ep")])
async def test_a_domain_that_cannot_be_one_is_an_error(command: tuple[str, ...]) -> None:
    status, _, errors = await kaa_ext(*command, "--jetstream-domain", "a.b", nats_url="nats://127.0.0.1:1")
    assert status != 0
    assert "--jetstream-domain 'a.b': expected" in errors
