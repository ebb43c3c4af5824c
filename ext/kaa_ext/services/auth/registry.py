"""The tokens and clients of an auth instance: adding, listing, suspending, revoking, expiring them.

`kaa-ext auth` uses this class on its own; no replica of auth need run for that. Every change that ends the validity of
a credential is followed by the event that both protocols require.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.state import State
from kaa_ext.services.auth.credentials import (
    CERTIFICATES,
    CLIENTS,
    SHOWN_CHARACTERS,
    TOKENS,
    ClientCredentials,
    Credential,
    Key,
    ProvisioningApplication,
    ProvisioningAuthority,
    Status,
    Token,
    digest_of,
    endpoint_of,
    hash_of,
)
from kaa_ext.services.auth.revocation import revocation_event

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

AnyCredential = TypeVar("AnyCredential", bound=Credential)


class Listed(NamedTuple):
    """A line of `kaa-ext auth list`. `expires` is ISO 8601, empty for never."""

    id: str
    kind: str
    scope: str
    name: str
    status: str
    expires: str


class Registry:
    """The tokens and clients of an auth instance. `publish` sends an event; `replica_id` is its originator."""

    def __init__(
        self,
        instance: str,
        replica_id: str,
        tokens: State[Token],
        clients: State[ClientCredentials],
        certificates: State[ClientCredentials],
        authorities: State[ProvisioningAuthority],
        applications: State[ProvisioningApplication],
        publish: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        self._instance = instance
        self._replica_id = replica_id
        self.tokens = tokens
        self.clients = clients
        self.certificates = certificates
        self.authorities = authorities
        self.applications = applications
        self._states: dict[str, State[Any]] = {CLIENTS: clients, CERTIFICATES: certificates, TOKENS: tokens}
        self._publish = publish

    async def add_token(
        self, application: str, endpoint_id: str, token: str | None = None, *, expires: int | None = None
    ) -> tuple[str, str]:
        """Add a token of an endpoint, by default a random one. Return the token and its ID.

        Raise ExtensionError 409 if the token exists.
        """
        token = token or secrets.token_urlsafe(16)
        added = _new_token(endpoint_id, token, expires)

        def change(found: Token | None) -> Token:
            if found is not None:
                raise ExtensionError(409, f"This token is of {found.endpoint_id} already")
            return added

        await self.tokens.change(application, digest_of(token), change=change)
        return token, added.token_id

    async def add_client(
        self, tenant: str, user_name: str, password: str | None = None, *, expires: int | None = None
    ) -> tuple[str, str]:
        """Add a client, or replace its password. Return the password and the credentials' ID.

        The password is random by default.
        """
        password = password or secrets.token_urlsafe(16)
        salt = os.urandom(16)
        added = ClientCredentials(
            credentials_id=f"c-{secrets.token_hex(6)}",
            tenant=tenant,
            salt=salt,
            password_hash=await asyncio.to_thread(hash_of, password, salt),
            expires=expires,
        )
        former = await self.clients.get(tenant, user_name)
        await self.clients.put(tenant, user_name, value=added)
        if former is not None:
            await self._publish_revocation(CLIENTS, (tenant, user_name), former)
        return password, added.credentials_id

    async def add_certificate(
        self, tenant: str, issuer: str, serial_number: str, *, expires: int | None = None
    ) -> str:
        """Add a client by its certificate, or replace it. Return the credentials' ID."""
        added = ClientCredentials(credentials_id=f"x-{secrets.token_hex(6)}", tenant=tenant, expires=expires)
        former = await self.certificates.get(issuer, serial_number)
        await self.certificates.put(issuer, serial_number, value=added)
        if former is not None:
            await self._publish_revocation(CERTIFICATES, (issuer, serial_number), former)
        return added.credentials_id

    async def provision_certificate(self, issuer: str, serial_number: str) -> ClientCredentials | None:
        """Return the client of a certificate, which becomes one now if its authority may add clients.

        Gateways have verified the signature. Of requests at one time, one adds the client, and all get it.
        """
        found = await self.certificates.get(issuer, serial_number)
        if found is not None:
            return found
        authority = await self.authorities.get(issuer)
        if authority is None:
            return None
        added = ClientCredentials(credentials_id=f"x-{secrets.token_hex(6)}", tenant=authority.tenant)
        return await self.certificates.change(issuer, serial_number, change=lambda found: found or added)

    async def provision_token(self, application: str, token: str) -> Token | None:
        """Return a token, which becomes one of a new endpoint now if its application takes new ones.

        The endpoint ID follows from application and token, so requests at one time make the same endpoint.
        """
        found = await self.tokens.get(application, digest_of(token))
        if found is not None or await self.applications.get(application) is None:
            return found
        if not await self._count_provisioned(application, 1):
            return None
        added = _new_token(endpoint_of(application, token), token)
        stored = await self.tokens.change(application, digest_of(token), change=lambda found: found or added)
        if stored != added:
            await self._count_provisioned(application, -1)  # another request has added it meanwhile
        return stored

    async def set_authority(self, issuer: str, tenant: str | None) -> None:
        """Let certificates of an authority become clients of a tenant; None ends that for new ones."""
        value = None if tenant is None else ProvisioningAuthority(tenant=tenant)
        await self.authorities.change(issuer, change=lambda _: value)

    async def set_application(self, application: str, limit: int) -> None:
        """Let unknown tokens of an application become endpoints, `limit` in all; 0 ends that for new ones."""

        def change(found: ProvisioningApplication | None) -> ProvisioningApplication:
            return ProvisioningApplication(limit=limit, added=0 if found is None else found.added)

        await self.applications.change(application, change=change)

    async def _count_provisioned(self, application: str, more: int) -> bool:
        """Count tokens that devices have brought. Return False if there are as many as there may be."""

        def change(found: ProvisioningApplication | None) -> ProvisioningApplication:
            if found is None or (more > 0 and found.added >= found.limit):
                raise ExtensionError(403, "No more endpoints")
            return msgspec.structs.replace(found, added=found.added + more)

        try:
            await self.applications.change(application, change=change)
        except ExtensionError:
            return False
        return True

    async def set_status(self, id_: str, status: Status) -> None:
        """Suspend, revoke or resume a credential, and tell gateways if it is no longer valid.

        Raise ExtensionError 404 for an unknown ID, 409 if an expired credential is resumed.
        """

        def change(found: AnyCredential) -> AnyCredential:
            changed = msgspec.structs.replace(found, status=status)
            if changed.current_status == "Expired":
                raise ExtensionError(409, "It has expired; `kaa-ext auth expire` gives it more time")
            return changed

        state, key = await self._find(id_)
        changed = await self._change(state, key, change)
        if changed is not None and not changed.is_valid:
            await self._publish_revocation(state, key, changed)

    async def set_expiry(self, id_: str, expires: int | None) -> None:
        """Set the time at which a credential expires. One that has expired becomes valid if the time is later.

        Raise ExtensionError 404 for an unknown ID.
        """

        def change(found: AnyCredential) -> AnyCredential:
            status: Status = "Active" if found.status == "Expired" else found.status
            return msgspec.structs.replace(found, expires=expires, status=status)

        state, key = await self._find(id_)
        await self._change(state, key, change)

    async def end_expired(self, state: str, key: Key) -> None:
        """Tell gateways of a credential that has expired, then store that they were told."""
        found = await self._states[state].get(*key)
        if found is None or found.current_status != "Expired" or found.status == "Expired":
            return
        # The event comes first, so that it is never missing. Two replicas that both send it do no harm.
        await self._publish_revocation(state, key, found)
        await self._change(
            state, key, lambda now: msgspec.structs.replace(now, status="Expired") if now == found else now
        )

    async def entries(self) -> AsyncIterator[Listed]:
        """Yield a line for each token and client."""
        async for (application, _), token in self.tokens.entries():
            yield _listed(token, "token", application, f"{token.endpoint_id} ({token.shown}…)")
        async for (tenant, user_name), client in self.clients.entries():
            yield _listed(client, "client", tenant or "-", user_name)
        async for (issuer, serial_number), client in self.certificates.entries():
            yield _listed(client, "certificate", client.tenant or "-", f"{serial_number} of {issuer}")
        async for (issuer,), authority in self.authorities.entries():
            yield Listed("-", "authority", authority.tenant or "-", issuer, "Active", "")
        async for (application,), its in self.applications.entries():
            added = f"{its.added} of {its.limit} endpoints"
            yield Listed("-", "application", application, added, "Active" if its.limit else "Suspended", "")

    async def stored(self) -> AsyncIterator[tuple[str, Key, Credential]]:
        """Yield each credential with the name of its state and its key there."""
        for state, values in self._states.items():
            async for key, found in values.entries():
                yield state, key, found

    async def _find(self, id_: str) -> tuple[str, Key]:
        async for state, key, found in self.stored():
            if found.id == id_:
                return state, key
        raise ExtensionError(404, f"Nothing has the ID {id_}")

    async def _change(self, state: str, key: Key, change: Callable[[Any], Any]) -> Credential | None:
        changed: Credential | None = await self._states[state].change(
            *key, change=lambda found: None if found is None else change(found)
        )
        return changed

    async def _publish_revocation(self, state: str, key: Key, revoked: Credential) -> None:
        await self._publish(*revocation_event(self._instance, self._replica_id, state, key, revoked))


def _new_token(endpoint_id: str, token: str, expires: int | None = None) -> Token:
    return Token(
        token_id=f"t-{secrets.token_hex(6)}",
        endpoint_id=endpoint_id,
        shown=token[: min(SHOWN_CHARACTERS, len(token) // 2)],
        expires=expires,
    )


def _listed(credential: Credential, kind: str, scope: str, name: str) -> Listed:
    expires = credential.expires
    text = "" if expires is None else time.strftime(TIME_FORMAT, time.gmtime(expires / 1000))
    return Listed(credential.id, kind, scope, name, credential.current_status, text)
