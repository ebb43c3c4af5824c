"""Identity in one worker: providers, and the ends of sessions that revocations cause.

What lives here: revocations, endpoints and tenants that are gone, and counts for the metrics. What does not: the
providers, which the composition root makes, reading events (`kaa_gateway.identity.events`), and the sessions that are
ended, which `kaa_gateway.kp` knows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from kaa_gateway.identity import events
from kaa_gateway.identity.admit_all import AdmitAll
from kaa_gateway.identity.certificate_rules import CertificateRules
from kaa_gateway.identity.ecap import EcapProvider
from kaa_gateway.identity.recheck import TokenRecheck
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.identity.service_clients import CapClients

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

    from kaa_gateway.bus.control import Control
    from kaa_gateway.bus.requests import Requests
    from kaa_gateway.identity.authenticator import ClientAuthenticator
    from kaa_gateway.identity.certificate_rules import CertificatePolicy
    from kaa_gateway.identity.client_provider import ClientProvider
    from kaa_gateway.identity.clients import Authenticator
    from kaa_gateway.identity.known_clients import KnownClients
    from kaa_gateway.identity.provider import Identity, IdentityProvider
    from kaa_gateway.slices import Slices

log = structlog.get_logger("gateway.identity")


class SessionRegistry(Protocol):
    """The sessions of a worker, as far as identity ends them. Generators are run in slices."""

    def revoke_tokens(
        self, endpoint_id: str, app_versions: frozenset[bytes], token_ids: frozenset[str]
    ) -> Generator[int, None, int]:
        """End the use of an endpoint's tokens. Return how many uses ended."""
        ...

    def end_clients(self, principals: frozenset[str], reason: str) -> Generator[int, None, int]:
        """End the sessions of clients. Return how many."""
        ...

    def end_tenant(
        self, tenant: str, app_versions: frozenset[bytes], reason: str
    ) -> Generator[int, None, int]:
        """End the sessions of a tenant. Return how many."""
        ...

    def end_endpoint(self, endpoint_id: str, reason: str) -> Generator[int, None, int]:
        """End the use of an endpoint. Return how many uses ended."""
        ...

    def move_endpoint(
        self, endpoint_id: str, previous: bytes, app_version: bytes | None, reason: str
    ) -> Generator[int, None, int]:
        """Put the uses of an endpoint under another application version; None ends them. Return how many."""
        ...

    def tokens_in_use(self) -> Generator[int, None, Sequence[tuple[int, bytes, bytes, bytes]]]:
        """Return (session key, application version, token, endpoint ID) of all, and forget cached routes."""
        ...

    def end_use(self, key: int, app_version: bytes, token: bytes) -> None:
        """End one session's use of one token."""
        ...


class Routes(Protocol):
    """The routes of a worker."""

    def remove_tenant(self, tenant: str) -> frozenset[bytes]:
        """Remove a tenant's application versions, and return them."""
        ...

    def successor(self, previous: bytes, app_version: bytes) -> bytes | None:
        """Return the application version if endpoints of the previous one may go over to it, else None."""
        ...

    def sweep(self) -> Generator[int, None, None]:
        """Forget cached routes to application versions that were removed."""
        ...


class QuestionStatistics(NamedTuple):
    """The counts of one kind of question, for the metrics."""

    name: str
    in_flight: int
    remembered: int
    hits: int
    misses: int
    evicted: int
    requests: tuple[Requests, ...]


class IdentityService:
    """The identity of one worker. Name the providers with `use_provider` and `use_clients` before `start`."""

    def __init__(self, control: Control, rules: CertificateRules | None = None) -> None:
        self._sessions: SessionRegistry | None = None
        self._routes: Routes | None = None
        self._slices: Slices
        self._to_end: set[str] = set()
        """Principals of revoked credentials whose sessions are to be ended next."""
        self._ending_clients = False
        self._provider: IdentityProvider
        self._resolver: Resolver
        self._clients: ClientProvider | None = None
        self._authenticator: ClientAuthenticator | None = None
        self.certificate_rules = rules or CertificateRules()
        self.authenticator: Authenticator = AdmitAll(self.certificate_rules)
        self.known_clients: KnownClients | None = None
        self._recheck = TokenRecheck(self.resolve)
        events.subscribe(control, self)
        control.when_reconnected(self._on_reconnected)

    @property
    def needs_control(self) -> bool:
        """Return whether tokens or credentials are checked by services, over the control connection."""
        return isinstance(self._provider, EcapProvider) or isinstance(self._clients, CapClients)

    def use_provider(self, provider: IdentityProvider, resolver: Resolver) -> None:
        """Resolve tokens by `provider`, through `resolver`."""
        self._provider = provider
        self._resolver = resolver

    def use_clients(self, provider: ClientProvider, authenticator: ClientAuthenticator) -> None:
        """Check the credentials of clients by `provider`, through `authenticator`."""
        self._clients = provider
        self.authenticator = self._authenticator = authenticator
        self.known_clients = authenticator.known_clients

    def resolve(self, app_version_name: str, token: str) -> asyncio.Future[Identity]:
        """Return a future of the endpoint of a token. See `Resolver.resolve`."""
        return self._resolver.resolve(app_version_name, token)

    def bind(self, sessions: SessionRegistry, routes: Routes, slices: Slices) -> None:
        """Name the sessions and routes that revocations end, in `slices`. Call this once, before there are any."""
        self._sessions = sessions
        self._routes = routes
        self._slices = slices

    def configure(
        self,
        application_of: Mapping[str, str],
        tenants: Collection[str],
        default_tenant: str | None,
        policies: Mapping[str, CertificatePolicy],
    ) -> None:
        """Apply other applications and tenants; other changes of identity need a restart."""
        if self.certificate_rules.configure(policies):
            self.recheck_clients()
        if isinstance(self._provider, EcapProvider):
            self._provider.configure(application_of)
        if isinstance(self._clients, CapClients):
            self._clients.configure(tenants, default_tenant)

    async def start(self) -> None:
        """Make the providers ready. Raises `ConfigError` if the configuration makes that impossible."""
        await self._provider.start()
        if self._clients is not None:
            await self._clients.start()

    async def stop(self) -> None:
        """End what is in flight, and stop the providers."""
        self._recheck.stop()
        await self._resolver.stop()
        await self._provider.stop()
        if self._authenticator is not None:
            await self._authenticator.stop()
        if self._clients is not None:
            await self._clients.stop()

    def waiting(self) -> int:
        """Return the number of tokens that wait for the provider."""
        return len(self._resolver.requests)

    def statistics(self) -> Iterator[QuestionStatistics]:
        """Yield the counts of each kind of question."""
        if isinstance(self._provider, EcapProvider):
            good, bad = self._provider.good, self._provider.bad
            yield QuestionStatistics(
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
            yield QuestionStatistics(
                "clients",
                len(self._authenticator.requests),
                len(right) + len(wrong),
                right.hits + wrong.hits,
                wrong.misses,
                right.evicted + wrong.evicted,
                self._clients.requests,
            )

    # ------------------------------------------------------------ revocations

    def revoke_tokens(
        self, endpoint_id: str, app_versions: frozenset[bytes], token_ids: frozenset[str]
    ) -> None:
        """End the use of an endpoint's revoked tokens."""
        if self._sessions is not None:
            self._slices.run(
                self._sessions.revoke_tokens(endpoint_id, app_versions, token_ids),
                lambda ended: log.info(
                    "tokens revoked", endpoint=endpoint_id, tokens=len(token_ids), ended=ended
                ),
            )

    def revoke_credentials(self, principal: str) -> None:
        """End the use of a client's revoked credentials."""
        assert self._authenticator is not None
        self._authenticator.revoke(principal)

    def end_client(self, principal: str) -> None:
        """End the sessions of a client whose credentials were revoked."""
        self._to_end.add(principal)
        if not self._ending_clients:
            self._end_clients()

    def _end_clients(self) -> None:
        # Once for all that are revoked meanwhile, because it looks at every session.
        principals = frozenset(self._to_end)
        self._to_end.clear()
        self._ending_clients = bool(principals) and self._sessions is not None
        if self._sessions is not None and principals:
            self._slices.run(
                self._sessions.end_clients(principals, "credentials_revoked"),
                lambda ended: self._clients_ended(len(principals), ended),
            )

    def _clients_ended(self, principals: int, ended: int) -> None:
        log.info("credentials revoked", principals=principals, ended=ended)
        self._end_clients()

    # ------------------------------------------------------------ what other services tell

    def end_endpoint(self, endpoint_id: str) -> None:
        """End the use of an endpoint that is not registered any more."""
        if isinstance(self._provider, EcapProvider):
            self._provider.forget_endpoint(endpoint_id)
        if self._sessions is not None:
            self._slices.run(
                self._sessions.end_endpoint(endpoint_id, "endpoint_unregistered"),
                lambda ended: log.info("endpoint unregistered", endpoint=endpoint_id, ended=ended),
            )

    def move_endpoint(self, endpoint_id: str, previous: str, app_version: str) -> None:
        """Let sessions that speak for an endpoint do so under its new application version."""
        if self._sessions is not None and self._routes is not None and previous != app_version:
            target = self._routes.successor(previous.encode(), app_version.encode())
            self._slices.run(
                self._sessions.move_endpoint(endpoint_id, previous.encode(), target, "endpoint_moved"),
                lambda moved: log.info(
                    "application version of endpoint updated",
                    endpoint=endpoint_id,
                    previous=previous,
                    app_version=app_version,
                    configured=target is not None,
                    moved=moved,
                ),
            )

    def recheck_clients(self) -> None:
        """Ask the provider again about clients that come from now on."""
        if self._authenticator is not None:
            self._authenticator.invalidate()

    def end_tenant(self, tenant: str) -> None:
        """End the sessions of a tenant that is not registered any more, and remove its application versions."""
        if self._sessions is None or self._routes is None:
            return
        gone = self._routes.remove_tenant(tenant)
        self.recheck_clients()
        self._slices.run(
            self._sessions.end_tenant(tenant, gone, "tenant_unregistered"),
            lambda ended: log.info(
                "tenant unregistered", tenant=tenant, application_versions=len(gone), ended=ended
            ),
        )
        self._slices.run(self._routes.sweep())

    # ------------------------------------------------------------ revocations that may have been missed

    def _on_reconnected(self) -> None:
        """Check tokens in use again: revocations may have been missed while NATS was away."""
        self.recheck_clients()
        if isinstance(self._provider, EcapProvider) and self._sessions is not None:
            self._recheck.start(self._sessions, self._slices)
