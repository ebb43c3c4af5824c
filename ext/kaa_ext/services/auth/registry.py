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
    Status,
    Token,
    digest_of,
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
        publish: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        self._instance = instance
        self._replica_id = replica_id
        self.tokens = tokens
        self.clients = clients
        self.certificates = certificates
        self._states: dict[str, State[Any]] = {CLIENTS: clients, CERTIFICATES: certificates, TOKENS: tokens}
        self._publish = publish

    async def add_token(
        self, application: str, endpoint_id: str, token: str | None = None, *, expires: int | None = None
    ) -> tuple[str, str]:
        """Add a token of an endpoint, by default a random one. Return the token and its ID.

        Raise ExtensionError 409 if the token exists.
        """
        token = token or secrets.token_urlsafe(16)
        added = Token(
            token_id=f"t-{secrets.token_hex(6)}",
            endpoint_id=endpoint_id,
            shown=token[: min(SHOWN_CHARACTERS, len(token) // 2)],
            expires=expires,
        )

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


def _listed(credential: Credential, kind: str, scope: str, name: str) -> Listed:
    expires = credential.expires
    text = "" if expires is None else time.strftime(TIME_FORMAT, time.gmtime(expires / 1000))
    return Listed(credential.id, kind, scope, name, credential.current_status, text)
