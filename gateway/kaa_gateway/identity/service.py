"""Identity in one worker: the providers that the configuration names, and what is ended when one takes something back.

What lives here: which provider is made of which settings, and tenants that are gone (21/TLE). What does not: the
providers, and the sessions that are ended, which `kaa_gateway.kp` knows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import is_expired
from kaa_gateway.bus.tle import TENANT_UNREGISTERED
from kaa_gateway.errors import IdentityError, MalformedAvro
from kaa_gateway.identity.authenticator import ClientAuthenticator
from kaa_gateway.identity.client_provider import CapClients, EcapClients
from kaa_gateway.identity.clients import AdmitAnonymous
from kaa_gateway.identity.ecap import EcapProvider
from kaa_gateway.identity.open import OpenProvider
from kaa_gateway.identity.provider import Identity
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.identity.static import StaticClients, StaticProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.requests import Requests
    from kaa_gateway.config import Config
    from kaa_gateway.identity.client_provider import ClientProvider
    from kaa_gateway.identity.clients import Authenticator
    from kaa_gateway.identity.provider import IdentityProvider

RECHECK_PAUSE = 5.0
"""Seconds before tokens are checked again that no provider could tell of."""
RECHECKED_AT_ONCE = 256
"""Tokens in use that are checked at one time."""

log = structlog.get_logger("gateway.identity")


class Uses(Protocol):
    """The sessions of a worker, and what they use."""

    def revoke_tokens(
        self, endpoint_id: str, app_versions: frozenset[bytes], token_ids: frozenset[str]
    ) -> int:
        """Ends the use of tokens of an endpoint."""
        ...

    def end_clients(self, principals: frozenset[str], reason: str) -> int:
        """Ends the sessions of clients."""
        ...

    def end_tenant(self, tenant: str, app_versions: frozenset[bytes], reason: str) -> int:
        """Ends the sessions of a tenant."""
        ...

    def tokens_in_use(self) -> list[tuple[int, bytes, bytes, bytes]]:
        """(session key, application version, token, endpoint ID) of all; cached routes count for nothing any more."""
        ...

    def end_use(self, key: int, app_version: bytes, token: bytes) -> None:
        """Ends one session's use of one token."""
        ...


class Routes(Protocol):
    """The routes of a worker."""

    def remove_tenant(self, tenant: str) -> frozenset[bytes]:
        """Removes a tenant's application versions, and names them."""
        ...


class Asked(NamedTuple):
    """How one kind of question has fared, for the metrics."""

    name: str
    in_flight: int
    remembered: int
    hits: int
    misses: int
    evicted: int
    requests: tuple[Requests, ...]


class IdentityService:
    """Who is it, in one worker. A `provider` that is given takes the place of the configured one."""

    def __init__(
        self, config: Config, control: Control, replica_id: str, provider: IdentityProvider | None = None
    ) -> None:
        settings = config.identity
        self._config = config
        self._control = control
        self._replica_id = replica_id
        self._uses: Uses | None = None
        self._routes: Routes | None = None
        self._recheck: asyncio.Task[None] | None = None
        self._provider = provider or self._make_provider()
        self._resolver = Resolver(
            self._provider, settings.timeout, concurrent=settings.ecap.requests_in_flight
        )
        self._clients = self._make_client_provider()
        self._authenticator = (
            None
            if self._clients is None
            else ClientAuthenticator(
                self._clients,
                {
                    "mqtt": config.transports.mqtt.client_authentication,
                    "http": config.transports.http.client_authentication,
                    "coap": config.transports.coap.dtls.client_authentication,
                },
                settings.clients,
                settings.timeout,
                self._end_clients,
            )
        )
        self.resolve = self._resolver.resolve
        self.authenticator: Authenticator = self._authenticator or AdmitAnonymous()
        control.subscribe(
            subjects.event("*", "tenant", "lifecycle", "unregistered"), self._on_tenant_unregistered
        )
        control.when_reconnected(self._on_reconnected)

    def _make_provider(self) -> IdentityProvider:
        settings = self._config.identity
        if settings.provider == "static":
            assert settings.static.file is not None
            return StaticProvider(settings.static.file)
        if settings.provider == "ecap":
            return EcapProvider(
                self._control,
                self._replica_id,
                settings.ecap,
                settings.timeout,
                _applications_of(self._config),
                self._revoke_tokens,
            )
        return OpenProvider()

    def _make_client_provider(self) -> ClientProvider | None:
        identity = self._config.identity
        settings = identity.clients
        if settings.provider == "none":
            return None
        if settings.provider == "static":
            assert identity.static.file is not None
            return StaticClients(identity.static.file)
        if settings.provider == "ecap":
            return EcapClients(
                self._control, self._replica_id, settings.service_instance, identity.timeout, self._revoke
            )
        return CapClients(
            self._control,
            self._replica_id,
            settings.service_instance,
            identity.timeout,
            self._revoke,
            tenants=_tenants_of(self._config),
            default_tenant=settings.default_tenant,
        )

    def bind(self, uses: Uses, routes: Routes) -> None:
        """Name the sessions and routes that end with what they rest on; once, before the first of them."""
        self._uses = uses
        self._routes = routes

    def configure(self, config: Config) -> None:
        """Take the applications of another configuration; what else it says of identity needs a restart."""
        if isinstance(self._provider, EcapProvider):
            self._provider.configure(_applications_of(config))
        if isinstance(self._clients, CapClients):
            self._clients.configure(_tenants_of(config), config.identity.clients.default_tenant)

    async def start(self) -> None:
        """Make the providers ready. Raises `ConfigError` if the configuration makes that impossible."""
        await self._provider.start()
        if self._clients is not None:
            await self._clients.start()

    async def stop(self) -> None:
        """End what is in flight, and let go of the providers."""
        if self._recheck is not None:
            self._recheck.cancel()
        await self._resolver.stop()
        await self._provider.stop()
        if self._authenticator is not None:
            await self._authenticator.stop()
        if self._clients is not None:
            await self._clients.stop()

    def waiting(self) -> int:
        """Tokens that the provider has not told of yet."""
        return len(self._resolver.requests)

    def asked(self) -> Iterator[Asked]:
        """How the questions have fared so far."""
        if isinstance(self._provider, EcapProvider):
            good, bad = self._provider.good, self._provider.bad
            yield Asked(
                "endpoints",
                len(self._resolver.requests),
                len(good) + len(bad),
                good.hits + bad.hits,
                bad.misses,
                good.evicted + bad.evicted,
                (self._provider.validations,),
            )
        if self._authenticator is not None and self._clients is not None:
            right, wrong = self._authenticator.good, self._authenticator.bad
            yield Asked(
                "clients",
                len(self._authenticator.requests),
                len(right) + len(wrong),
                right.hits + wrong.hits,
                wrong.misses,
                right.evicted + wrong.evicted,
                self._clients.requests,
            )

    # ------------------------------------------------------------ what is taken back

    def _revoke_tokens(
        self, endpoint_id: str, app_versions: frozenset[bytes], token_ids: frozenset[str]
    ) -> int:
        return 0 if self._uses is None else self._uses.revoke_tokens(endpoint_id, app_versions, token_ids)

    def _revoke(self, principal: str) -> None:
        assert self._authenticator is not None
        self._authenticator.revoke(principal)

    def _end_clients(self, principals: frozenset[str]) -> int:
        return 0 if self._uses is None else self._uses.end_clients(principals, "credentials_revoked")

    def _on_tenant_unregistered(self, subject: str, datum: bytes) -> None:
        try:
            event = TENANT_UNREGISTERED.decode(datum)
        except MalformedAvro:
            log.warning("event dropped: malformed", subject=subject)
            return
        if is_expired(event) or self._uses is None or self._routes is None:
            return
        tenant: str = event["tenantId"]
        gone = self._routes.remove_tenant(tenant)
        if self._authenticator is not None:
            self._authenticator.doubt()
        ended = self._uses.end_tenant(tenant, gone, "tenant_unregistered")
        log.info("tenant unregistered", tenant=tenant, application_versions=len(gone), ended=ended)

    # ------------------------------------------------------------ what may have been taken back unheard

    def _on_reconnected(self) -> None:
        """Revocations may have been missed while NATS was away: tokens that are in use are checked once more."""
        if self._authenticator is not None:
            self._authenticator.doubt()
        if isinstance(self._provider, EcapProvider) and self._uses is not None:
            if self._recheck is not None:
                self._recheck.cancel()
            self._recheck = asyncio.get_running_loop().create_task(self._check_tokens_in_use(self._uses))

    async def _check_tokens_in_use(self, uses: Uses) -> None:
        left = uses.tokens_in_use()
        log.info("checking tokens in use: revocations may have been missed", tokens=len(left))
        while left:
            unclear = []
            for start in range(0, len(left), RECHECKED_AT_ONCE):
                some = left[start : start + RECHECKED_AT_ONCE]
                answers = await asyncio.gather(
                    *(self.resolve(version.decode(), token.decode()) for _, version, token, _ in some),
                    return_exceptions=True,
                )
                for use, answer in zip(some, answers, strict=True):
                    session_key, version, token, endpoint_id = use
                    if isinstance(answer, Identity):
                        if answer.endpoint_id.encode() != endpoint_id:
                            uses.end_use(session_key, version, token)
                    elif isinstance(answer, IdentityError) and answer.status < 500:
                        uses.end_use(session_key, version, token)
                    else:
                        unclear.append(use)
            left = unclear
            if left:
                await asyncio.sleep(RECHECK_PAUSE)


def _applications_of(config: Config) -> dict[str, str]:
    return {version.name: version.application for version in config.app_versions.values()}


def _tenants_of(config: Config) -> frozenset[str]:
    return frozenset(version.tenant for version in config.app_versions.values() if version.tenant)
