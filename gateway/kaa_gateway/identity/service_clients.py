"""The client providers that are services of the cluster: `ecap` (16/ECAP) and `cap` (22/CAP).

What lives here: requests to them, and their revocations. What does not: what each transport demands, caches of answers,
and the bound of requests (`kaa_gateway.identity.authenticator`).

Source: 16/ECAP "Endpoint and Client Authentication Protocol", client authentication; 22/CAP "Client Authentication
Protocol".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from kaa_gateway.bus import cap, ecap
from kaa_gateway.bus.messages import MessageType, is_expired
from kaa_gateway.bus.requests import Requests
from kaa_gateway.errors import IdentityError, MalformedAvro
from kaa_gateway.identity.client_provider import CREDENTIALS_REJECTED, Credentials
from kaa_gateway.identity.clients import Client
from kaa_gateway.identity.provider import is_definite
from kaa_gateway.identity.shared_requests import IDENTITY_UNAVAILABLE

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.wire.certificate import ClientCertificate

log = structlog.get_logger("gateway.identity")

Revoked = Callable[[str], object]
"""Called with the principal of revoked credentials."""


class ScopedName(NamedTuple):
    """A user name in its tenant."""

    tenant: str | None
    """None if the user name names none and there is no default."""
    user_name: str


class _ServiceClients:
    """The common part of both providers."""

    def __init__(
        self,
        protocol: str,
        control: Control,
        replica_id: str,
        instance: str,
        timeout: float,
        revoked: Revoked,
    ) -> None:
        by_password, by_certificate = (
            (ecap.CLIENT_PASSWORD, ecap.CLIENT_CERTIFICATE)
            if protocol == "ecap"
            else (cap.BASIC, cap.CERTIFICATE)
        )
        self._timeout = timeout
        self._control = control
        self._instance = instance
        self._revoked = revoked
        self._passwords = Requests(control, replica_id, instance, protocol, by_password)
        self._certificates = Requests(control, replica_id, instance, protocol, by_certificate)
        self.requests: tuple[Requests, ...] = (self._passwords, self._certificates)

    async def start(self) -> None:
        """Do nothing: the control connection is started by its owner."""

    async def stop(self) -> None:
        """Do nothing: the control connection is stopped by its owner."""

    def _subscribe(self, subject: str, kind: MessageType, principal_of: Callable[[Any], str]) -> None:
        def receive(subject: str, datum: bytes) -> None:
            try:
                event = kind.decode(datum)
            except MalformedAvro:
                log.warning("event dropped: malformed", subject=subject)
                return
            self._control.clock_skew.check(self._instance, event["timestamp"], event["timeout"])
            if is_expired(event):
                log.warning("event dropped: expired", subject=subject)
                return
            self._revoked(principal_of(event))

        self._control.subscribe(subject, receive)

    async def _by_certificate(self, certificate: ClientCertificate) -> dict[str, Any]:
        return await self._certificates.ask(
            self._timeout, issuer=certificate.issuer, serialNumber=certificate.serial_number
        )


class EcapClients(_ServiceClients):
    """Clients by 16/ECAP, which knows no tenants: a client may use any application."""

    def __init__(
        self, control: Control, replica_id: str, instance: str, timeout: float, revoked: Revoked
    ) -> None:
        super().__init__("ecap", control, replica_id, instance, timeout, revoked)
        self._subscribe(
            ecap.credential_revoked_subject(instance),
            ecap.CREDENTIAL_REVOKED,
            lambda event: _principal("ecap", event["credentialId"]),
        )

    async def check(self, credentials: Credentials) -> Client:
        """Ask the service. See `ClientProvider.check`."""
        if credentials.certificate is not None:
            answer = await self._by_certificate(credentials.certificate)
        else:
            answer = await self._passwords.ask(
                self._timeout, username=credentials.user_name, password=_text(credentials.password)
            )
        _check_status(answer["statusCode"])
        principal = _principal("ecap", answer["credentialId"] or _own_name(credentials))
        return Client(principal, client_id=answer["clientId"])


class CapClients(_ServiceClients):
    """Clients by 22/CAP. Each belongs to a tenant, and may use the applications of that tenant only.

    A user name `name@tenant` is looked up in that tenant if it is one of `tenants`; all others in `default_tenant`.
    """

    def __init__(
        self,
        control: Control,
        replica_id: str,
        instance: str,
        timeout: float,
        revoked: Revoked,
        *,
        tenants: Collection[str],
        default_tenant: str | None,
    ) -> None:
        super().__init__("cap", control, replica_id, instance, timeout, revoked)
        self.configure(tenants, default_tenant)
        for kind in cap.CREDENTIAL_KINDS:
            self._subscribe(
                cap.credentials_revoked_subject(instance, kind),
                cap.CREDENTIALS_REVOKED,
                lambda event: _principal("cap", event["tenantId"], event["credentialsId"]),
            )

    def configure(self, tenants: Collection[str], default_tenant: str | None) -> None:
        """Replace the tenants."""
        self._tenants = frozenset(tenants)
        if default_tenant is None and len(self._tenants) == 1:
            (default_tenant,) = self._tenants
        self._default_tenant = default_tenant

    async def check(self, credentials: Credentials) -> Client:
        """Ask the service. See `ClientProvider.check`."""
        if credentials.certificate is not None:
            answer = await self._by_certificate(credentials.certificate)
            tenant = answer["tenantId"]
        else:
            tenant, user_name = self._scoped(credentials.user_name)
            if tenant is None:
                raise IdentityError(
                    401, CREDENTIALS_REJECTED, "The user name must name its tenant: name@tenant"
                )
            answer = await self._passwords.ask(
                self._timeout,
                tenantId=tenant,
                username=user_name,
                password=_text(credentials.password) or "",
            )
        _check_status(answer["statusCode"])
        if not tenant:
            log.error("the provider accepts a certificate and names no tenant")
            raise IdentityError(503, IDENTITY_UNAVAILABLE)
        principal = _principal("cap", tenant, answer["credentialsId"] or _own_name(credentials))
        return Client(principal, tenant, answer["clientId"])

    def _scoped(self, user_name: str) -> ScopedName:
        name, at, tenant = user_name.rpartition("@")
        if at and tenant in self._tenants | {self._default_tenant}:
            return ScopedName(tenant, name)
        return ScopedName(self._default_tenant, user_name)


def _principal(*parts: str) -> str:
    return ":".join(parts)


def _own_name(credentials: Credentials) -> str:
    """Return a name for credentials to which the provider gives no ID."""
    certificate = credentials.certificate
    if certificate is None:
        return f"user {credentials.user_name}"
    return f"certificate {certificate.serial_number} of {certificate.issuer}"


def _text(password: bytes | None) -> str | None:
    """Return a password as Avro can carry it. Raises IdentityError if it is not UTF-8."""
    try:
        return None if password is None else password.decode()
    except UnicodeDecodeError:
        raise IdentityError(401, CREDENTIALS_REJECTED) from None


def _check_status(status: int) -> None:
    if 200 <= status < 300:
        return
    if is_definite(status):
        raise IdentityError(401, CREDENTIALS_REJECTED)
    raise IdentityError(503, IDENTITY_UNAVAILABLE)
