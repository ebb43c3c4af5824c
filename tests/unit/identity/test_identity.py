"""Identity: the providers `open` and `static`, and the resolver in front of them."""

import asyncio
from pathlib import Path

import pytest
from kaa_gateway.errors import ConfigError, IdentityError
from kaa_gateway.identity.open import OpenProvider
from kaa_gateway.identity.provider import Identity, IdentityProvider, shortened
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.identity.static import StaticProvider
from structlog.testing import capture_logs

A_TOKEN = "expected a token of 1 to 255 printable characters without /, + and #"
AN_ENDPOINT_ID = "expected an endpoint ID of 1 to 255 printable characters"

STATIC_FILE = """\
endpoints:
  demo_v1:
    dbF8b7KnVQ: 3d45a36a
    123456: endpoint-2
    a.b: &same endpoint-3
  demo_v2:
    dbF8b7KnVQ: *same
  demo_v3:
"""


@pytest.mark.parametrize(
    ("token", "shown"), [("", "…"), ("a", "…"), ("abc", "a…"), ("abcdefgh", "abcd…"), ("x" * 100, "xxxx…")]
)
def test_shortened_token(token: str, shown: str) -> None:
    assert shortened(token) == shown


async def test_open_takes_the_token_for_the_endpoint_id() -> None:
    provider: IdentityProvider = OpenProvider()
    await provider.start()
    assert await provider.resolve("demo_v1", "endpoint-1") == Identity("endpoint-1")
    await provider.stop()


class TestStatic:
    async def test_resolves_the_tokens_of_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "tokens.yml"
        path.write_text(STATIC_FILE, encoding="utf-8")
        provider: IdentityProvider = StaticProvider(path)
        await provider.start()
        assert await provider.resolve("demo_v1", "dbF8b7KnVQ") == Identity("3d45a36a")
        assert await provider.resolve("demo_v1", "123456") == Identity("endpoint-2")
        assert await provider.resolve("demo_v1", "a.b") == Identity("endpoint-3")
        assert await provider.resolve("demo_v2", "dbF8b7KnVQ") == Identity("endpoint-3")
        for version, token in (("demo_v1", "other"), ("demo_v2", "123456"), ("demo_v3", "a.b"), ("x", "a.b")):
            with pytest.raises(IdentityError) as refused:
                await provider.resolve(version, token)
            assert (refused.value.status, refused.value.reason) == (401, "token_rejected")

    @pytest.mark.parametrize(
        ("text", "problems"),
        [
            ("", ["expected the key endpoints, got nothing"]),
            ("endpoint: {}", ["1: endpoint: unknown key; known are endpoints, clients, certificates"]),
            ("- a", ["1: expected a mapping"]),
            ("endpoints: x", ["1: endpoints: expected a mapping"]),
            ("endpoints:\n  v1: [a]", ["2: endpoints.v1: expected a mapping"]),
            (
                "endpoints:\n  v1:\n    geheimnis:\n    geheimer: [a]",
                [
                    f"3: endpoints.v1.gehe…: {AN_ENDPOINT_ID}",
                    f"4: endpoints.v1.gehe…: {AN_ENDPOINT_ID}",
                ],
            ),
            (
                'endpoints: {v1: {geheimnis: "a\\nb"}}',
                [f"1: endpoints.v1.gehe…: {AN_ENDPOINT_ID}"],
            ),
            (
                "endpoints: {v1: {geheim/nis: a}}",
                [f"1: endpoints.v1.gehe…: {A_TOKEN}"],
            ),
            (
                "endpoints:\n  v1:\n    geheimnis: a\n    geheimnis: b",
                ["4: endpoints.v1.gehe…: the key is here twice, first in line 3"],
            ),
            (
                "endpoints: {v1: {geheimnis: !!binary YQ==}}",
                ["1: endpoints.v1.gehe…: this YAML tag is not supported"],
            ),
        ],
    )
    async def test_wrong_file(self, tmp_path: Path, text: str, problems: list[str]) -> None:
        path = tmp_path / "tokens.yml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as failure:
            await StaticProvider(path).start()
        places = [f"{path}:{each}" if each[0].isdigit() else f"{path}: {each}" for each in problems]
        assert failure.value.detail.split("\n") == places
        assert "geheimnis" not in str(failure.value)

    async def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.yml: cannot be read: No such file or directory"):
            await StaticProvider(tmp_path / "none.yml").start()


class Provider:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, asyncio.Future[Identity]] = {}

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def scope(self, app_version_name: str) -> str:
        return app_version_name

    def known(self, scope: str, token: str) -> Identity | None:
        return None

    async def resolve(self, scope: str, token: str) -> Identity:
        self.asked.append((scope, token))
        return await self.answers.setdefault(token, asyncio.get_running_loop().create_future())

    async def answer(self, token: str, answer: Identity | BaseException) -> None:
        """Lets the resolver ask, then answers."""
        await asyncio.sleep(0)
        future = self.answers.pop(token)
        if isinstance(answer, Identity):
            future.set_result(answer)
        else:
            future.set_exception(answer)


async def refusal(waiter: asyncio.Future[Identity]) -> tuple[int, str]:
    with pytest.raises(IdentityError) as refused:
        await waiter
    return refused.value.status, refused.value.reason


class TestResolver:
    async def test_one_request_for_all_who_wait(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        waiters = [resolver.resolve("v1", "t") for _ in range(100)]
        other = resolver.resolve("v2", "t2")
        await provider.answer("t", Identity("e"))
        assert {identity.endpoint_id for identity in await asyncio.gather(*waiters)} == {"e"}
        assert not other.done()
        assert provider.asked == [("v1", "t"), ("v2", "t2")]
        await resolver.stop()
        assert await refusal(other) == (503, "identity_unavailable")

    async def test_same_token_of_two_application_versions_is_two_requests(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        waiters = [resolver.resolve(version, "t") for version in ("v1", "v2")]
        await provider.answer("t", Identity("e"))
        await asyncio.gather(*waiters)
        assert provider.asked == [("v1", "t"), ("v2", "t")]

    async def test_nothing_is_remembered(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        for endpoint_id in ("e1", "e2"):
            waiter = resolver.resolve("v1", "t")
            await provider.answer("t", Identity(endpoint_id))
            assert (await waiter).endpoint_id == endpoint_id

    async def test_callbacks_of_waiters_run_in_order(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        order: list[int] = []

        def wait(number: int) -> None:
            resolver.resolve("v1", "t").add_done_callback(lambda _: order.append(number))

        for number in range(5):
            wait(number)
        last = resolver.resolve("v1", "t")
        await provider.answer("t", Identity("e"))
        await last
        assert order == [0, 1, 2, 3, 4]

    async def test_a_cancelled_waiter_disturbs_nobody(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        first, second = resolver.resolve("v1", "t"), resolver.resolve("v1", "t")
        first.cancel()
        await provider.answer("t", Identity("e"))
        assert (await second).endpoint_id == "e"
        assert provider.asked == [("v1", "t")]

    async def test_refusal_goes_to_all(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        waiters = [resolver.resolve("v1", "t") for _ in range(3)]
        await provider.answer("t", IdentityError(401, "token_rejected"))
        assert [await refusal(waiter) for waiter in waiters] == [(401, "token_rejected")] * 3

    async def test_no_answer_in_time(self) -> None:
        resolver = Resolver(Provider(), timeout=0.01)
        assert await refusal(resolver.resolve("v1", "t")) == (503, "identity_timeout")

    async def test_failing_provider_is_logged_without_the_token(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60)
        waiter = resolver.resolve("v1", "geheimnis")
        with capture_logs() as logs:
            await provider.answer("geheimnis", KeyError("broken"))
            assert await refusal(waiter) == (503, "identity_unavailable")
        assert [(entry["event"], entry["about"]) for entry in logs] == [
            ("identity provider failed", "token gehe…")
        ]

    async def test_requests_in_flight_are_bounded(self) -> None:
        provider = Provider()
        resolver = Resolver(provider, timeout=60, max_in_flight=2)
        first, second = resolver.resolve("v1", "a"), resolver.resolve("v1", "b")
        assert await refusal(resolver.resolve("v1", "c")) == (503, "identity_busy")
        shared = resolver.resolve("v1", "a")
        await provider.answer("a", Identity("e"))
        assert await first == await shared
        third = resolver.resolve("v1", "c")
        await provider.answer("b", Identity("e"))
        await provider.answer("c", Identity("e"))
        await asyncio.gather(second, third)
        assert provider.asked == [("v1", "a"), ("v1", "b"), ("v1", "c")]

    @pytest.mark.parametrize("ticks", [0, 1, 5])
    async def test_stop_answers_who_waits(self, ticks: int) -> None:
        resolver = Resolver(Provider(), timeout=60)
        waiter = resolver.resolve("v1", "t")
        for _ in range(ticks):
            await asyncio.sleep(0)
        await resolver.stop()
        assert await refusal(waiter) == (503, "identity_unavailable")

    async def test_stop_without_requests(self) -> None:
        await Resolver(OpenProvider(), timeout=60).stop()
