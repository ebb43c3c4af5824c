"""Admission of clients: what each transport demands, and whether a provider accepts the credentials.

What lives here: the demand of each transport, a cache of what the provider said, and revocations. What does not: the
providers (`kaa_gateway.identity.client_provider`, `kaa_gateway.identity.static`), and ending sessions
(`kaa_gateway.kp`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import structlog

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.cache import Cache
from kaa_gateway.identity.certificate_rules import (
    CREDENTIALS_OF_OTHER_TENANT,
    CertificateRules,
    principal_within,
)
from kaa_gateway.identity.client_provider import CREDENTIALS_REJECTED, Credentials
from kaa_gateway.identity.clients import ANONYMOUS_CLIENT
from kaa_gateway.identity.digests import digest_of
from kaa_gateway.identity.known_clients import KnownClients
from kaa_gateway.identity.shared_requests import IDENTITY_UNAVAILABLE, SharedRequests

if TYPE_CHECKING:
    from kaa_gateway.identity.client_provider import ClientProvider
    from kaa_gateway.identity.clients import Client, Presentation

log = structlog.get_logger("gateway.identity")

CREDENTIALS_MISSING = "credentials_missing"
"""Reason of the `IdentityError` (status 401) for a client that presents nothing where it must."""
CHECKS_MAX = 3
"""How often credentials are checked again because they were revoked while a check was under way."""


class Admitted(NamedTuple):
    """A client, and its provider's name of its credentials."""

    revoked_as: str
    client: Client


class Rejection(NamedTuple):
    """Why credentials are refused."""

    reason: str
    detail: str


class ClientAuthenticator:
    """Admits the clients whose credentials `provider` accepts.

    `demands` maps transports to `off`, `optional` or `required`; others are `off`. A user name counts before a
    certificate, whose tenant confines the client all the same: see `CertificateRules`. `end` is called with revoked
    principals, and ends their sessions.
    """

    def __init__(
        self,
        provider: ClientProvider,
        demands: Mapping[str, str],
        end: Callable[[str], object],
        rules: CertificateRules,
        *,
        timeout: float,
        requests_in_flight: int,
        cache_size: int,
        cache_ttl: float,
        negative_cache_ttl: float,
    ) -> None:
        self._provider = provider
        self._demands = demands
        self._rules = rules
        self._cache_ttl = cache_ttl
        self._negative_cache_ttl = negative_cache_ttl
        self._end = end
        self._key = os.urandom(32)
        self.good: Cache[bytes, Admitted] = Cache(cache_size, self._forgotten)
        self.bad: Cache[bytes, Rejection] = Cache(cache_size)
        self.known_clients = KnownClients(self._key, self.good)
        self._digests_of: dict[str, set[bytes]] = {}
        """Digests of the right credentials, by principal."""
        self._revoked_meanwhile: dict[Credentials, set[str]] = {}
        """Principals that were revoked while a check was under way."""
        self.requests: SharedRequests[Credentials, Client] = SharedRequests(
            self._check, timeout, concurrent=requests_in_flight, shown=repr
        )

    async def stop(self) -> None:
        """End all checks; clients that wait are refused with 503."""
        await self.requests.stop()

    def authenticate(self, presentation: Presentation) -> Client | asyncio.Future[Client]:
        """Return the client. See `kaa_gateway.identity.clients.Authenticator`."""
        demand = self._demands.get(presentation.transport, "off")
        user_name, certificate = presentation.user_name, presentation.certificate
        if demand == "off":
            return self._rules.client_of(certificate)
        if user_name is None and certificate is None:
            if demand == "optional":
                return ANONYMOUS_CLIENT
            raise IdentityError(401, CREDENTIALS_MISSING, "Credentials are required")
        if user_name is None and certificate is not None and self._rules.admits(certificate):
            return self._rules.client_of(certificate)
        digest = digest_of(self._key, user_name or "", presentation.password, certificate)
        admitted = self.good.get(digest)
        if admitted is not None:
            return admitted.client
        rejection = self.bad.get(digest)
        if rejection is not None:
            raise IdentityError(401, *rejection)
        return self.requests.ask(_credentials(presentation))

    def revoke(self, principal: str) -> None:
        """Forget revoked credentials, and end the sessions that use them."""
        for revoked in self._revoked_meanwhile.values():
            revoked.add(principal)
        for digest in self._digests_of.pop(principal, ()):
            self.good.forget(digest)
        self._end(principal)
        for tenant in self._rules.tenants:
            self._end(principal_within(principal, tenant))

    def invalidate(self) -> None:
        """Check all clients again that come from now on: revocations may have been missed."""
        self.good.clear()

    async def _check(self, credentials: Credentials) -> Client:
        revoked = self._revoked_meanwhile[credentials] = set()
        digest = self._digest(credentials)
        try:
            for _ in range(CHECKS_MAX):
                client = await self._provider.check(credentials)
                if client.principal not in revoked:
                    break
                revoked.clear()
            else:
                raise IdentityError(503, IDENTITY_UNAVAILABLE)
            confined = self._rules.confine(client, credentials.certificate or credentials.shown_certificate)
        except IdentityError as error:
            if error.reason in (CREDENTIALS_REJECTED, CREDENTIALS_OF_OTHER_TENANT):
                rejection = Rejection(error.reason, error.detail)
                self.bad.put(digest, rejection, time.monotonic() + self._negative_cache_ttl)
            raise
        finally:
            del self._revoked_meanwhile[credentials]
        log.debug(
            "client admitted", principal=confined.principal, client=client.client_id, tenant=confined.tenant
        )
        self.good.put(digest, Admitted(client.principal, confined), time.monotonic() + self._cache_ttl)
        self._digests_of.setdefault(client.principal, set()).add(digest)
        return confined

    def _forgotten(self, digest: bytes, admitted: Admitted) -> None:
        digests = self._digests_of.get(admitted.revoked_as)
        if digests is not None:
            digests.discard(digest)
            if not digests:
                del self._digests_of[admitted.revoked_as]

    def _digest(self, credentials: Credentials) -> bytes:
        """Return the key of credentials in the caches."""
        certificate = credentials.certificate or credentials.shown_certificate
        return digest_of(self._key, credentials.user_name, credentials.password, certificate)


def _credentials(presentation: Presentation) -> Credentials:
    if presentation.user_name is None:
        return Credentials(certificate=presentation.certificate)
    return Credentials(
        presentation.user_name, presentation.password, shown_certificate=presentation.certificate
    )
