"""What a certificate of a tenant's authority makes of a client, with a provider and without."""

import asyncio
from typing import Any

from kaa_gateway.bus.requests import Requests
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.admit_all import AdmitAll
from kaa_gateway.identity.authenticator import ClientAuthenticator
from kaa_gateway.identity.certificate_rules import CertificatePolicy, CertificateRules
from kaa_gateway.identity.client_provider import CREDENTIALS_REJECTED, Credentials
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.wire.certificate import ClientCertificate

ACME = ClientCertificate("CN=CA", "1", "CN=pump", "pump", "acme")
UMBRELLA = ACME._replace(tenant="umbrella")
"""With the same names and number: only the authority's key differs."""
NOBODYS = ACME._replace(tenant=None)
TENANTS = frozenset({"acme", "umbrella"})


class Provider:
    """Knows `clients` by user name, and by serial number of their certificate."""

    requests: tuple[Requests, ...] = ()

    def __init__(self, **clients: Client) -> None:
        self.clients = clients
        self.asked: list[Credentials] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def check(self, credentials: Credentials) -> Client:
        self.asked.append(credentials)
        certificate = credentials.certificate
        client = self.clients.get(credentials.user_name if certificate is None else certificate.subject)
        if client is None:
            raise IdentityError(401, CREDENTIALS_REJECTED)
        return client


class Door:
    """An authenticator of MQTT clients."""

    def __init__(self, demand: str, rules: CertificateRules, **clients: Client) -> None:
        self.provider = Provider(**clients)
        self.ended: list[str] = []
        self.authenticator = ClientAuthenticator(
            self.provider,
            {"mqtt": demand},
            self.ended.append,
            rules,
            timeout=30,
            requests_in_flight=8,
            cache_size=100,
            cache_ttl=60,
            negative_cache_ttl=60,
        )

    async def admit(self, certificate: ClientCertificate | None, user_name: str | None = None) -> Any:
        """The client, or the reason of its refusal."""
        password = None if user_name is None else b"secret"
        try:
            known = self.authenticator.authenticate(Presentation("mqtt", user_name, password, certificate))
            return await known if isinstance(known, asyncio.Future) else known
        except IdentityError as error:
            return error.reason


def rules(**policies: CertificatePolicy) -> CertificateRules:
    return CertificateRules(TENANTS, policies)


async def test_without_a_provider_the_subject_is_the_name() -> None:
    """Of every tenant apart, so that no client takes over a session of another tenant."""
    for door in (
        AdmitAll(rules()),
        Door("off", rules()).authenticator,
        Door("optional", rules()).authenticator,
    ):
        if isinstance(door, ClientAuthenticator):
            known = door.authenticate(Presentation("coap", certificate=ACME))
        else:
            known = door.authenticate(Presentation("mqtt", certificate=ACME))
        assert known == Client("certificate:acme:CN=pump", "acme", "pump")
    door = AdmitAll(rules())
    assert (
        door.authenticate(Presentation("mqtt", certificate=UMBRELLA)).principal
        == "certificate:umbrella:CN=pump"
    )
    assert door.authenticate(Presentation("mqtt", "alice", b"secret", NOBODYS)) == Client()


async def test_a_provider_that_knows_no_tenants_cannot_let_a_client_out_of_its_own() -> None:
    door = Door("required", rules(), **{"CN=pump": Client("ecap:1"), "alice": Client("ecap:2")})
    assert await door.admit(ACME) == Client("ecap:1 within acme", "acme")
    assert await door.admit(UMBRELLA) == Client("ecap:1 within umbrella", "umbrella"), "not the answer before"
    assert await door.admit(ACME, "alice") == Client("ecap:2 within acme", "acme")
    assert await door.admit(None, "alice") == Client("ecap:2")
    assert await door.admit(NOBODYS) == Client("ecap:1")
    asked = len(door.provider.asked)
    assert await door.admit(ACME) == Client("ecap:1 within acme", "acme")
    assert len(door.provider.asked) == asked, "from the cache"
    door.authenticator.revoke("ecap:1")
    assert door.ended[0] == "ecap:1"
    assert {*door.ended[1:]} == {"ecap:1 within acme", "ecap:1 within umbrella"}
    await door.admit(ACME)
    assert len(door.provider.asked) == asked + 1, "forgotten"


async def test_the_tenant_of_the_provider_must_be_that_of_the_certificate() -> None:
    """The provider knows a certificate by names that the authority of another tenant can bear too."""
    door = Door("required", rules(), **{"CN=pump": Client("cap:1", "acme"), "alice": Client("cap:2", "acme")})
    assert await door.admit(ACME) == Client("cap:1", "acme")
    for _ in range(2):
        assert await door.admit(UMBRELLA) == "certificate_of_other_tenant"
        assert await door.admit(UMBRELLA, "alice") == "certificate_of_other_tenant"
    assert len(door.provider.asked) == 3, "refusals are remembered"
    assert await door.admit(ACME, "alice") == Client("cap:2", "acme")


async def test_a_signature_is_enough_where_the_policy_says_so() -> None:
    door = Door("required", rules(acme=CertificatePolicy(admits_signed=True)), alice=Client("cap:2", "acme"))
    assert (await door.admit(ACME)).principal == "certificate:acme:CN=pump"
    assert door.provider.asked == []
    assert await door.admit(UMBRELLA) == CREDENTIALS_REJECTED
    assert await door.admit(NOBODYS) == CREDENTIALS_REJECTED
    assert await door.admit(ACME, "mallory") == CREDENTIALS_REJECTED, "a user name is checked all the same"


async def test_the_token_that_a_certificate_is_bound_to() -> None:
    bound = rules(acme=CertificatePolicy(binds_token=True))
    door = Door("required", bound, **{"CN=pump": Client("cap:1"), "alice": Client("cap:2")})
    assert (await door.admit(ACME)).only_token == b"pump"
    assert (await door.admit(ACME, "alice")).only_token == b"pump"
    assert (await door.admit(ACME._replace(common_name=None))).only_token == b""
    assert (await door.admit(UMBRELLA)).only_token is None
    assert bound.client_of(ACME).only_token == b"pump"
    assert bound.configure({})
    door.authenticator.invalidate()
    assert (await door.admit(ACME)).only_token is None
    assert not bound.configure({})
