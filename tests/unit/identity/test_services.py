"""What asks a service about identity: pace and memory in a storm, revocations that cross an answer, wrong answers.

Over a real NATS server, in this process: the provider is tests.support.auth_provider.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kaa_gateway.bus.connector import TlsFiles
from kaa_gateway.bus.control import Control
from kaa_gateway.errors import ConfigError, IdentityError
from kaa_gateway.identity import passwords
from kaa_gateway.identity.authenticator import ClientAuthenticator
from kaa_gateway.identity.cache import Cache
from kaa_gateway.identity.client_provider import Credentials
from kaa_gateway.identity.clients import Client, Presentation, basic_credentials
from kaa_gateway.identity.ecap import EcapProvider
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.identity.service_clients import EcapClients
from kaa_gateway.identity.static import StaticClients
from kaa_gateway.wire.certificate import ClientCertificate

from tests.support.auth_provider import INSTANCE, AuthProvider
from tests.support.esp import until
from tests.support.nats import NatsServer

PATIENCE = 60.0
"""Seconds for what must come."""
DEVICES = 10_000
AT_ONCE = 64

Revoked = list[tuple[str, frozenset[bytes], frozenset[str]]]


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[Control]:
    control = Control((server.url,), name="test", tls=TlsFiles(), credentials_file=None)
    yield control
    await control.stop()


async def start(control: Control) -> None:
    control.start()
    await until(lambda: control.connected, "the control connection")


@pytest.fixture
async def auth(shared_nats: NatsServer) -> AsyncIterator[AuthProvider]:
    async with AuthProvider(shared_nats.url) as provider:
        yield provider


def ecap(control: Control, revoked: Revoked, *, cache_size: int = 100_000) -> EcapProvider:
    return EcapProvider(
        control,
        "us",
        {"app_v1": "app", "app_v2": "app"},
        lambda *revocation: revoked.append(revocation),
        service_instance=INSTANCE,
        timeout=PATIENCE,
        cache_size=cache_size,
        cache_ttl=300.0,
        negative_cache_ttl=5.0,
        activate_tokens=False,
    )


async def test_a_storm_of_devices_is_asked_for_once_each_and_at_a_pace(
    shared_nats: NatsServer, auth: AuthProvider
) -> None:
    """Each of 10,000 devices comes three times: 10,000 requests, never more than 64 under way; then none at all."""
    auth.tokens = {("app", f"t{n}"): (f"e{n}", f"id{n}") for n in range(DEVICES)}
    auth.delay = 0.001
    async with connected(shared_nats) as control:
        provider = ecap(control, [])
        resolver = Resolver(provider, PATIENCE, concurrent=AT_ONCE)
        await start(control)
        versions = ("app_v1", "app_v2", "app_v1")
        storm = [resolver.resolve(version, f"t{n}") for n in range(DEVICES) for version in versions]
        refused = resolver.resolve("app_v1", "one too many")
        identities = await asyncio.gather(*storm)
        assert [identity.endpoint_id for identity in identities[::3]] == [f"e{n}" for n in range(DEVICES)]
        with pytest.raises(IdentityError, match="identity_busy"):
            await refused
        assert auth.asked["ecap.ep-token"] == provider.validations.attempts == DEVICES
        assert auth.most_at_once <= AT_ONCE
        again = await asyncio.gather(*(resolver.resolve("app_v1", f"t{n}") for n in range(DEVICES)))
        assert again == identities[::3]
        assert auth.asked["ecap.ep-token"] == DEVICES
        await resolver.stop()


async def test_bad_tokens_do_not_drive_out_good_ones(shared_nats: NatsServer, auth: AuthProvider) -> None:
    auth.tokens["app", "good"] = ("e", "id")
    async with connected(shared_nats) as control:
        provider = ecap(control, [], cache_size=10)
        resolver = Resolver(provider, PATIENCE)
        await start(control)
        await resolver.resolve("app_v1", "good")
        for n in range(50):
            with pytest.raises(IdentityError):
                await resolver.resolve("app_v1", f"bad{n}")
        assert (len(provider.good), len(provider.bad), provider.bad.evicted) == (1, 10, 40)
        asked = auth.asked["ecap.ep-token"]
        assert (await resolver.resolve("app_v2", "good")).endpoint_id == "e"
        with pytest.raises(IdentityError):
            await resolver.resolve("app_v1", "bad49")
        assert auth.asked["ecap.ep-token"] == asked


async def test_a_revocation_that_crosses_its_validation_is_not_lost(
    shared_nats: NatsServer, auth: AuthProvider
) -> None:
    """The answer was given before the revocation, and comes after it."""
    auth.tokens["app", "t"] = ("e", "id")
    auth.silent = True
    revoked: Revoked = []
    async with connected(shared_nats) as control:
        resolver = Resolver(ecap(control, revoked), PATIENCE)
        await start(control)
        asked = resolver.resolve("app_v1", "t")
        await until(lambda: auth.asked["ecap.ep-token"] == 1, "the request")
        await auth.tell("endpoint.token.revoked", appName="app", endpointId="e", tokenIds=["id"])
        await until(lambda: bool(revoked), "the revocation")
        assert revoked == [("e", frozenset({b"app_v1", b"app_v2"}), frozenset({"id"}))]
        auth.silent = False
        await auth.answer_held()
        await until(lambda: auth.asked["ecap.ep-token"] >= 2, "the second request")
        assert (await asked).endpoint_id == "e", "it is good again"


async def test_a_cache_has_its_bound_and_forgets_what_is_over() -> None:
    forgotten: list[str] = []
    cache: Cache[str, int] = Cache(2, lambda key, value: forgotten.append(key))
    cache.put("a", 1, float("inf"))
    cache.put("b", 2, float("inf"))
    assert cache.get("a") == 1
    cache.put("c", 3, float("inf"))
    assert (len(cache), forgotten, cache.evicted) == (2, ["b"], 1)
    cache.put("d", 4, 0)
    assert cache.get("d") is None
    assert cache.get("c") == 3
    cache.clear()
    assert (len(cache), cache.hits, cache.misses) == (0, 2, 1)


async def test_wrong_credentials_are_remembered_and_a_revocation_forgets_right_ones(
    shared_nats: NatsServer, auth: AuthProvider
) -> None:
    auth.clients["dave", "secret"] = {"credentialId": "id-dave"}
    certificate = ClientCertificate("CN=Devices", "4711", "CN=pump")
    auth.clients["CN=Devices", "4711"] = {"credentialId": "id-pump"}
    ended: list[frozenset[str]] = []

    def end(principals: frozenset[str]) -> int:
        ended.append(principals)
        return 0

    async with connected(shared_nats) as control:
        provider = EcapClients(
            control,
            "us",
            INSTANCE,
            PATIENCE,
            lambda name: authenticator.revoke(name),  # noqa: PLW0108
        )
        authenticator = ClientAuthenticator(
            provider,
            {"mqtt": "required", "http": "off"},
            end,
            timeout=PATIENCE,
            requests_in_flight=256,
            cache_size=100_000,
            cache_ttl=60.0,
            negative_cache_ttl=60.0,
        )
        await start(control)
        right, wrong = (Presentation("mqtt", "dave", password) for password in (b"secret", b"wrong"))

        async def admitted(presentation: Presentation) -> Client:
            known = authenticator.authenticate(presentation)
            return known if isinstance(known, Client) else await known

        for _ in range(2):
            assert await admitted(right) == Client("ecap:id-dave")
            with pytest.raises(IdentityError, match="credentials_rejected"):
                await admitted(wrong)
        assert isinstance(authenticator.authenticate(right), Client), "what is known needs no waiting"
        assert auth.asked["ecap.client-username-password"] == 2
        by_certificate = Presentation("mqtt", certificate=certificate)
        assert await admitted(by_certificate) == Client("ecap:id-pump")
        assert authenticator.authenticate(Presentation("http", "dave", b"wrong")) == Client()
        with pytest.raises(IdentityError, match="credentials_missing"):
            authenticator.authenticate(Presentation("mqtt"))
        await auth.tell("client.credential.revoked", credentialId="id-dave")
        await until(lambda: bool(ended), "the revocation")
        assert ended == [frozenset({"ecap:id-dave"})]
        await admitted(right)
        assert auth.asked["ecap.client-username-password"] == 3
        assert "secret" not in repr(right)
        await authenticator.stop()


def test_passwords() -> None:
    hash_ = passwords.hashed(b"secret")
    assert hash_ != passwords.hashed(b"secret"), "each has a salt of its own"
    assert passwords.matches(b"secret", hash_)
    assert not passwords.matches(b"Secret", hash_)
    for text in ("", "secret", "scrypt:1", hash_[:-4] + "!", hash_.replace("16384", "9999999")):
        assert not passwords.is_hash(text)


@pytest.mark.parametrize(
    ("field", "credentials"),
    [
        (b"Basic YWxpY2U6c2VjcmV0", ("alice", b"secret")),
        (b"basic  YWxpY2U6OnM=", ("alice", b":s")),
        (b"Basic Og==", ("", b"")),
        (b"Bearer YWxpY2U6c2VjcmV0", (None, None)),
        (b"", (None, None)),
        (None, (None, None)),
    ],
)
def test_basic_credentials(field: bytes | None, credentials: tuple[str | None, bytes | None]) -> None:
    """RFC 7617."""
    assert basic_credentials(field) == credentials


@pytest.mark.parametrize("field", [b"Basic", b"Basic YWxpY2U=", b"Basic %%%", b"Basic /zo="])
def test_malformed_basic_credentials(field: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        basic_credentials(field)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("clients: {bob: {password: plain}}", "clients.bob.password: expected what"),
        ("clients: {bob: {}}", "clients.bob: password is missing"),
        ("clients: {bob: {role: admin}}", "clients.bob.role: unknown key"),
        ("clients: {bob: {tenant: a b}}", "clients.bob.tenant: expected a tenant ID"),
        ("certificates: {CN=A: {0x10: {}}}", "certificates.CN=A.0x10: expected a serial number in base 10"),
    ],
)
async def test_wrong_clients_in_a_file(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "identity.yml"
    path.write_text(text, encoding="utf-8")
    clients = StaticClients(path)
    with pytest.raises(ConfigError) as failure:
        await clients.start()
    assert problem in failure.value.detail
    assert "plain" not in failure.value.detail
    await clients.stop()


async def test_certificates_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "identity.yml"
    path.write_text("certificates: {'CN=A,O=B': {4711: {tenant: acme}, 12: }}", encoding="utf-8")
    clients = StaticClients(path)
    await clients.start()
    for serial, tenant in (("4711", "acme"), ("12", None)):
        certificate = ClientCertificate("CN=A,O=B", serial, "CN=device")
        client = await clients.check(Credentials(certificate=certificate))
        assert client == Client(f"static:certificate {serial} of CN=A,O=B", tenant)
    with pytest.raises(IdentityError):
        await clients.check(Credentials(certificate=ClientCertificate("CN=A,O=B", "13", "CN=device")))
    await clients.stop()
