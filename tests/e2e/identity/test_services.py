"""What asks a service about identity: pace and memory in a storm, revocations that cross an answer, wrong answers.

Over a real NATS server, in this process: the provider is tests.support.auth_provider.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from kaa_gateway.bus.connector import TlsOptions
from kaa_gateway.bus.control import Control
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.authenticator import ClientAuthenticator
from kaa_gateway.identity.certificate_rules import CertificateRules
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.identity.ecap import EcapProvider
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.identity.service_clients import EcapClients
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
    control = Control((server.url,), name="test", tls=TlsOptions(), credentials=None)
    yield control
    await control.stop()


async def start(control: Control) -> None:
    control.start()
    await until(lambda: control.connected, "the control connection")


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


async def test_the_tokens_of_an_unregistered_endpoint_are_asked_for_again(
    shared_nats: NatsServer, auth: AuthProvider
) -> None:
    """Those that are remembered, and those whose answer is under way (9/ELCE)."""
    auth.tokens = {
        ("app", "known"): ("e", "id-1"),
        ("app", "new"): ("e", "id-2"),
        ("app", "other"): ("f", "id-3"),
    }
    async with connected(shared_nats) as control:
        provider = ecap(control, [])
        resolver = Resolver(provider, PATIENCE)
        await start(control)
        for token in ("known", "other"):
            await resolver.resolve("app_v1", token)
        auth.silent = True
        asked = resolver.resolve("app_v1", "new")
        await until(lambda: auth.asked["ecap.ep-token"] == 3, "the request")
        provider.forget_endpoint("e")
        auth.silent = False
        await auth.answer_held()
        # Registered again meanwhile, and so it is good.
        assert (await asked).endpoint_id == "e"
        assert auth.asked["ecap.ep-token"] == 4
        del auth.tokens["app", "known"]
        with pytest.raises(IdentityError, match="token_rejected"):
            await resolver.resolve("app_v1", "known")
        assert auth.asked["ecap.ep-token"] == 5
        for token in ("new", "other"):
            await resolver.resolve("app_v1", token)
        assert auth.asked["ecap.ep-token"] == 5


async def test_wrong_credentials_are_remembered_and_a_revocation_forgets_right_ones(
    shared_nats: NatsServer, auth: AuthProvider
) -> None:
    auth.clients["dave", "secret"] = {"credentialId": "id-dave"}
    certificate = ClientCertificate("CN=Devices", "4711", "CN=pump")
    auth.clients["CN=Devices", "4711"] = {"credentialId": "id-pump"}
    ended: list[str] = []

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
            ended.append,
            CertificateRules(),
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
        assert ended == ["ecap:id-dave"]
        await admitted(right)
        assert auth.asked["ecap.client-username-password"] == 3
        assert "secret" not in repr(right)
        await authenticator.stop()
