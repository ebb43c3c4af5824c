"""The provider of tokens and clients: what it answers to gateways and what it tells them, in the Avro of the RFCs."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastavro
import pytest
from kaa_ext import Extension
from kaa_ext.sdk.errors import ExtensionError, NotDelivered, StateUnavailable
from kaa_ext.services import auth
from kaa_ext.services.auth import expiry
from kaa_ext.services.auth.credentials import (
    APPLICATIONS,
    AUTHORITIES,
    CERTIFICATES,
    CLIENTS,
    TOKENS,
    ClientCredentials,
    Credential,
    Key,
    ProvisioningApplication,
    ProvisioningAuthority,
    Token,
)
from kaa_ext.services.auth.expiry import ExpiryWatch
from kaa_ext.services.auth.registry import Registry
from kaa_ext.testing import Gateway, offline, online, until
from kaa_gateway.bus.messages import now_ms
from nats.aio.msg import Msg

from tests.support.schemas import rfc_schema
from tests.unit.bus.test_messages import TYPES

HOUR_MS = 3_600_000
EVENTS = "kaa.v1.events.auth"
TOKEN_REVOKED = f"{EVENTS}.endpoint.token.revoked"
ECAP_REVOKED = f"{EVENTS}.client.credential.revoked"
BASIC_REVOKED = f"{EVENTS}.client-credentials.basic.revoked"
CERTIFICATE_REVOKED = f"{EVENTS}.client-credentials.certificate.revoked"
SCHEMA_OF = {
    TOKEN_REVOKED: "0016-endpoint-token-revoked",
    ECAP_REVOKED: "0016-client-credential-revoked",
    BASIC_REVOKED: "0022-credentials-revoked",
    CERTIFICATE_REVOKED: "0022-credentials-revoked",
}


def schema(name: str) -> Any:
    return fastavro.parse_schema(rfc_schema(name, TYPES[name].schema))


class Asked:
    """A gateway that asks, and hears what is told."""

    def __init__(self, gateway: Gateway, registry: Registry, events: list[Msg]) -> None:
        self.registry = registry
        self._gateway = gateway
        self._events = events

    async def status(self, exchange: str, name: str, **fields: Any) -> int:
        """The status of the answer to a request."""
        head = {"correlationId": "c", "timestamp": now_ms(), "timeout": 0}
        request = io.BytesIO()
        fastavro.schemaless_writer(request, schema(f"{name}-request"), head | fields)
        answers = await self._gateway.listen(f"kaa.v1.replica.gateway.{exchange}-response")
        await self._gateway.publish(
            f"kaa.v1.service.auth.{exchange}-request",
            request.getvalue(),
            f"kaa.v1.replica.gateway.{exchange}-response",
        )
        await until(lambda: bool(answers), f"the answer to {exchange}")
        answer = read(f"{name}-response", answers[0].data)
        assert answer["correlationId"] == "c"
        status: int = answer["statusCode"]
        return status

    def told(self) -> list[tuple[str, str]]:
        """The events so far: subject, and the ID of what is good no more."""
        found = []
        for message in self._events:
            fields = read(SCHEMA_OF[message.subject], message.data)
            ids = fields.get("tokenIds") or [fields.get("credentialsId") or fields.get("credentialId")]
            found += [(message.subject, each) for each in ids]
        return found

    async def until_told(self, subject: str, id_: str) -> None:
        await until(lambda: (subject, id_) in self.told(), f"an event of {id_}")


def read(name: str, datum: bytes) -> dict[str, Any]:
    source = io.BytesIO(datum)
    fields = fastavro.schemaless_reader(source, schema(name), None)
    assert isinstance(fields, dict)
    assert not source.read()
    return fields


def registry_on(extension: Extension) -> Registry:
    """What `kaa-ext auth` has."""
    return Registry(
        "auth",
        "kaa-ext",
        extension.state(TOKENS, Token),
        extension.state(CLIENTS, ClientCredentials),
        extension.state(CERTIFICATES, ClientCredentials),
        extension.state(AUTHORITIES, ProvisioningAuthority),
        extension.state(APPLICATIONS, ProvisioningApplication),
        extension.publish,
    )


@asynccontextmanager
async def asked(*serving: Extension, **where: Any) -> AsyncIterator[Asked]:
    beside = Extension("auth")
    registry = registry_on(beside)
    for extension in serving:
        auth.register(extension)
    async with online(beside, *serving, **where) if where else offline(beside, *serving) as gateway:
        yield Asked(gateway, registry, await gateway.listen(f"{EVENTS}.>"))


@pytest.fixture
async def provider() -> AsyncIterator[Asked]:
    """Two replicas of auth."""
    async with asked(Extension("auth"), Extension("auth")) as made:
        yield made


async def statuses(provider: Asked, token: str, user: str, serial: str) -> dict[str, int]:
    """What all six requests are answered."""
    password = {"username": user, "password": "wonderland"}
    certificate = {"issuer": "CN=CA", "serialNumber": serial}
    of_token = {"appName": "app", "token": token}
    return {
        "token": await provider.status("ecap.ep-token", "0016-endpoint-token-validation", **of_token),
        "transition": await provider.status(
            "ecap.ep-token-status-transition",
            "0016-endpoint-token-status-transition",
            **of_token,
            targetStatus="Active",
        ),
        "ecap password": await provider.status(
            "ecap.client-username-password", "0016-client-username-password-validation", **password
        ),
        "ecap certificate": await provider.status(
            "ecap.client-certificate", "0016-client-certificate-validation", **certificate
        ),
        "cap password": await provider.status(
            "cap.basic", "0022-basic-authentication", tenantId="acme", **password
        ),
        "cap certificate": await provider.status(
            "cap.certificate", "0022-certificate-authentication", **certificate
        ),
    }


async def test_what_has_expired_is_refused_and_told(provider: Asked) -> None:
    registry = provider.registry
    ends = now_ms() + HOUR_MS
    token, token_id = await registry.add_token("app", "ep", expires=ends)
    _, cap_id = await registry.add_client("acme", "alice", "wonderland", expires=ends)
    _, ecap_id = await registry.add_client("", "alice", "wonderland", expires=ends)
    certificate_id = await registry.add_certificate("acme", "CN=CA", "4711", expires=ends)
    assert set((await statuses(provider, token, "alice", "4711")).values()) == {200}
    assert provider.told() == []

    for id_ in (token_id, cap_id, ecap_id, certificate_id):
        await registry.set_expiry(id_, now_ms())
    await provider.until_told(TOKEN_REVOKED, token_id)
    await provider.until_told(BASIC_REVOKED, cap_id)
    await provider.until_told(ECAP_REVOKED, ecap_id)
    await provider.until_told(CERTIFICATE_REVOKED, certificate_id)
    assert await statuses(provider, token, "alice", "4711") == {
        "token": 403,
        "transition": 409,
        "ecap password": 401,
        "ecap certificate": 401,
        "cap password": 401,
        "cap certificate": 401,
    }
    assert {entry.status async for entry in registry.entries()} == {"Expired"}


async def test_devices_add_themselves_where_they_may(provider: Asked) -> None:
    """Certificates of an authority, and tokens of an application up to its limit."""
    registry = provider.registry
    await registry.set_authority("CN=CA", "acme")
    await registry.set_application("app", 2)
    certificate = {"issuer": "CN=CA", "serialNumber": "1"}
    name = "0022-certificate-authentication"
    assert await provider.status("cap.certificate", name, **certificate) == 200
    assert await provider.status("cap.certificate", name, **certificate | {"issuer": "CN=other"}) == 401
    statuses = [
        await provider.status(
            "ecap.ep-token", "0016-endpoint-token-validation", appName=application, token=token
        )
        for application, token in (("app", "a"), ("app", "b"), ("app", "c"), ("app", "a"), ("other", "a"))
    ]
    assert statuses == [200, 200, 404, 200, 404]
    (added,) = [entry async for entry in registry.entries() if entry.kind == "certificate"]
    assert (added.scope, added.name) == ("acme", "1 of CN=CA")
    await registry.set_status(added.id, "Revoked")
    assert await provider.status("cap.certificate", name, **certificate) == 401, "not added again"
    await registry.set_authority("CN=CA", None)
    assert await provider.status("cap.certificate", name, **certificate | {"serialNumber": "2"}) == 401


async def test_requests_at_one_time_add_one(provider: Asked) -> None:
    registry = provider.registry
    await registry.set_authority("CN=CA", "acme")
    await registry.set_application("app", 100)
    clients = await asyncio.gather(*(registry.provision_certificate("CN=CA", "1") for _ in range(5)))
    assert len({client.id for client in clients if client is not None}) == 1
    tokens = await asyncio.gather(*(registry.provision_token("app", "t") for _ in range(5)))
    assert len({(token.id, token.endpoint_id) for token in tokens if token is not None}) == 1
    (application,) = [entry async for entry in registry.entries() if entry.kind == "application"]
    assert application.name == "1 of 100 endpoints"


async def test_more_time_is_good_again(provider: Asked) -> None:
    registry = provider.registry
    token, id_ = await registry.add_token("app", "ep", expires=now_ms())
    await provider.until_told(TOKEN_REVOKED, id_)
    with pytest.raises(ExtensionError, match="409 It has expired"):
        await registry.set_status(id_, "Active")
    await registry.set_expiry(id_, None)
    of_token = {"appName": "app", "token": token}
    assert await provider.status("ecap.ep-token", "0016-endpoint-token-validation", **of_token) == 200
    assert [(entry.status, entry.expires) async for entry in registry.entries()] == [("Active", "")]


async def test_other_credentials_in_place_of_former_ones_end_those(provider: Asked) -> None:
    registry = provider.registry
    _, client_id = await registry.add_client("acme", "alice")
    certificate_id = await registry.add_certificate("acme", "CN=CA", "4711")
    await registry.add_client("acme", "alice")
    await registry.add_certificate("umbrella", "CN=CA", "4711")
    await provider.until_told(BASIC_REVOKED, client_id)
    await provider.until_told(CERTIFICATE_REVOKED, certificate_id)


async def test_suspended_revoked_and_unknown(provider: Asked) -> None:
    registry = provider.registry
    token, id_ = await registry.add_token("app", "ep")
    of_token = {"appName": "app", "token": token}
    validation = ("ecap.ep-token", "0016-endpoint-token-validation")
    await registry.set_status(id_, "Suspended")
    await provider.until_told(TOKEN_REVOKED, id_)
    assert await provider.status(*validation, **of_token) == 403
    await registry.set_status(id_, "Active")
    assert await provider.status(*validation, **of_token) == 200
    await registry.set_status(id_, "Revoked")
    assert await provider.status(*validation, **of_token) == 403
    for change in (registry.set_status("t-0", "Active"), registry.set_expiry("t-0", None)):
        with pytest.raises(ExtensionError, match="404 Nothing has the ID t-0"):
            await change


class Scripted(Registry):
    """Keeps what a test says, and fails so often before it ends something."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.here: dict[Key, Credential] = {}
        self.ended: list[Key] = []

    async def stored(self) -> AsyncIterator[tuple[str, Key, Credential]]:
        for key, kept in self.here.items():
            yield TOKENS, key, kept

    async def end_expired(self, kind: str, key: Key) -> None:
        if self.failures:
            raise self.failures.pop()
        self.here.pop(key, None)
        self.ended.append(key)


def token(expires: int | None) -> Token:
    return Token(token_id="t", endpoint_id="ep", shown="", expires=expires)


@asynccontextmanager
async def keeping(expiries: ExpiryWatch, registry: Registry) -> AsyncIterator[None]:
    task = asyncio.create_task(expiries.run(registry))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()


async def test_an_expiry_that_was_moved_or_taken_away_ends_nothing() -> None:
    expiries, registry = ExpiryWatch(), Scripted()
    first = now_ms() - 3
    expiries.note(TOKENS, ("moved",), token(first))
    expiries.note(TOKENS, ("moved",), token(first + HOUR_MS))
    expiries.note(TOKENS, ("endless",), token(first))
    expiries.note(TOKENS, ("endless",), token(None))
    expiries.note(TOKENS, ("due",), token(first + 1))
    expiries.note(TOKENS, ("due",), token(first + 1))
    expiries.note(TOKENS, ("next",), token(first + 2))
    async with keeping(expiries, registry):
        await until(lambda: ("next",) in registry.ended, "the last that is due")
        assert registry.ended == [("due",), ("next",)]


async def test_what_could_not_be_told_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "RETRY_MS", 1)
    expiries, registry = ExpiryWatch(), Scripted(NotDelivered("away"), StateUnavailable("away"))
    async with keeping(expiries, registry):
        expiries.note(TOKENS, ("due",), token(now_ms()))
        await until(lambda: registry.ended == [("due",)], "the third attempt")


async def test_what_nobody_told_of_is_found_by_reading_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "READ_AGAIN_S", 0.0)
    monkeypatch.setattr(expiry, "CLOCK_CHECK_S", 0.01)
    registry = Scripted()
    async with keeping(ExpiryWatch(), registry):
        registry.here[("missed",)] = token(now_ms())
        await until(lambda: ("missed",) in registry.ended, "what was missed")
