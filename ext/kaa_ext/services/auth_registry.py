"""What a provider of 16/ECAP and 22/CAP knows: endpoint tokens and clients, in JetStream.

They are made and taken back here, by `kaa-ext auth` too: no replica of auth need run for that. Gateways are told by an
event of whatever is good no more, as both protocols demand. What does not live here: requests (`kaa_ext.services.auth`), and when
something's time is over (`kaa_ext.services.auth_expiry`).

State `tokens`: key (application, SHA-256 of the token); `clients`: (tenant, user name); `certificates`: (issuer, serial
number). A client without tenant has the tenant "", and is one of 16/ECAP.

Source: 16/ECAP "Endpoint and Client Authentication Protocol"; 22/CAP "Client Authentication Protocol".
"""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from kaa_gateway.bus import subjects

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.requests import now_ms
from kaa_ext.sdk.state import State
from kaa_ext.services import auth_messages as messages

TOKENS, CLIENTS, CERTIFICATES = "tokens", "clients", "certificates"
SHOWN_CHARACTERS = 4
"""How much of a token is kept, to be listed."""
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
SCRYPT = {"n": 2**14, "r": 8, "p": 1}

Status: TypeAlias = Literal["Inactive", "Active", "Suspended", "Revoked", "Expired"]
Key: TypeAlias = tuple[str, ...]


class Kept(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What tokens and credentials have in common. They are good while Inactive (not used yet) or Active."""

    status: Status
    expires: int | None = None
    """When they are good no more, as a UNIX time in milliseconds."""

    @property
    def id(self) -> str:
        """What commands and events name it by."""
        raise NotImplementedError

    @property
    def status_now(self) -> Status:
        """Its status, also if nobody has noted yet that its time is over."""
        over = self.expires is not None and self.expires <= now_ms()
        return "Expired" if over and self.status in ("Inactive", "Active") else self.status

    @property
    def is_good(self) -> bool:
        """Whether a device may use it."""
        return self.status_now in ("Inactive", "Active")


class Token(Kept, frozen=True, kw_only=True):
    """An endpoint token."""

    token_id: str
    endpoint_id: str
    shown: str
    status: Status = "Inactive"

    @property
    def id(self) -> str:
        """The token ID of 16/ECAP."""
        return self.token_id


class Credentials(Kept, frozen=True, kw_only=True):
    """Those of a client: a password, or a certificate, whose tenant is here because its key does not name it."""

    credentials_id: str
    tenant: str = ""
    salt: bytes = b""
    password_hash: bytes = b""
    status: Status = "Active"

    @property
    def id(self) -> str:
        """The credential(s) ID of 16/ECAP and 22/CAP."""
        return self.credentials_id


AnyKept = TypeVar("AnyKept", bound=Kept)


class Listed(NamedTuple):
    """One line of a list."""

    id: str
    kind: str
    scope: str
    name: str
    status: str
    expires: str
    """As ISO 8601 writes it; empty for never."""


class Registry:
    """What an instance of auth knows. `publish` sends an event; `replica_id` is whose it is."""

    def __init__(
        self,
        instance: str,
        replica_id: str,
        tokens: State[Token],
        clients: State[Credentials],
        certificates: State[Credentials],
        publish: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        self._instance = instance
        self._replica_id = replica_id
        self.tokens = tokens
        self.clients = clients
        self.certificates = certificates
        self._states: dict[str, State[Any]] = {CLIENTS: clients, CERTIFICATES: certificates, TOKENS: tokens}
        self._publish = publish

    # ------------------------------------------------------------ made and taken back

    async def add_token(
        self, application: str, endpoint_id: str, token: str | None = None, *, expires: int | None = None
    ) -> tuple[str, str]:
        """A token of an endpoint, a random one by default: the token and its ID. ExtensionError 409 if it exists."""
        token = token or secrets.token_urlsafe(16)
        made = Token(
            token_id=f"t-{secrets.token_hex(6)}",
            endpoint_id=endpoint_id,
            shown=token[: min(SHOWN_CHARACTERS, len(token) // 2)],
            expires=expires,
        )

        def change(found: Token | None) -> Token:
            if found is not None:
                raise ExtensionError(409, f"This token is of {found.endpoint_id} already")
            return made

        await self.tokens.change(application, digest_of(token), change=change)
        return token, made.token_id

    async def add_client(
        self, tenant: str, user_name: str, password: str | None = None, *, expires: int | None = None
    ) -> tuple[str, str]:
        """A client, or another password of one: the password, a random one by default, and its credentials' ID."""
        password = password or secrets.token_urlsafe(16)
        salt = os.urandom(16)
        made = Credentials(
            credentials_id=f"c-{secrets.token_hex(6)}",
            tenant=tenant,
            salt=salt,
            password_hash=await asyncio.to_thread(_hash, password, salt),
            expires=expires,
        )
        former = await self.clients.get(tenant, user_name)
        await self.clients.put(tenant, user_name, value=made)
        if former is not None:
            await self._tell(CLIENTS, (tenant, user_name), former)
        return password, made.credentials_id

    async def add_certificate(
        self, tenant: str, issuer: str, serial_number: str, *, expires: int | None = None
    ) -> str:
        """A client by its certificate, in place of what was said of it before: the ID of its credentials."""
        made = Credentials(credentials_id=f"x-{secrets.token_hex(6)}", tenant=tenant, expires=expires)
        former = await self.certificates.get(issuer, serial_number)
        await self.certificates.put(issuer, serial_number, value=made)
        if former is not None:
            await self._tell(CERTIFICATES, (issuer, serial_number), former)
        return made.credentials_id

    async def set_status(self, id_: str, status: Status) -> None:
        """Suspend, revoke or resume what has this ID, and tell gateways if it is good no more.

        ExtensionError 404 if nothing has the ID, 409 if it is to be resumed and its time is over.
        """

        def change(found: AnyKept) -> AnyKept:
            changed = msgspec.structs.replace(found, status=status)
            if changed.status_now == "Expired":
                raise ExtensionError(409, "It has expired; `kaa-ext auth expire` gives it more time")
            return changed

        kind, key = await self._place_of(id_)
        changed = await self._change(kind, key, change)
        if changed is not None and not changed.is_good:
            await self._tell(kind, key, changed)

    async def set_expiry(self, id_: str, expires: int | None) -> None:
        """Say anew when what has this ID expires; one that has is good again if that is later. 404 as above."""

        def change(found: AnyKept) -> AnyKept:
            status: Status = "Active" if found.status == "Expired" else found.status
            return msgspec.structs.replace(found, expires=expires, status=status)

        kind, key = await self._place_of(id_)
        await self._change(kind, key, change)

    async def end_expired(self, kind: str, key: Key) -> None:
        """If the time of what is there is over, tell gateways, and note that they were told."""
        found = await self._states[kind].get(*key)
        if found is None or found.status_now != "Expired" or found.status == "Expired":
            return
        # In this order, so that nobody is never told: two replicas that tell them do no harm.
        await self._tell(kind, key, found)
        await self._change(
            kind, key, lambda now: msgspec.structs.replace(now, status="Expired") if now == found else now
        )

    async def entries(self) -> AsyncIterator[Listed]:
        """All that there is."""
        async for (application, _), token in self.tokens.entries():
            yield _listed(token, "token", application, f"{token.endpoint_id} ({token.shown}…)")
        async for (tenant, user_name), client in self.clients.entries():
            yield _listed(client, "client", tenant or "-", user_name)
        async for (issuer, serial_number), client in self.certificates.entries():
            yield _listed(client, "certificate", client.tenant or "-", f"{serial_number} of {issuer}")

    async def kept(self) -> AsyncIterator[tuple[str, Key, Kept]]:
        """The same as it is kept: by the name of its state and its key there."""
        for kind, state in self._states.items():
            async for key, found in state.entries():
                yield kind, key, found

    async def _place_of(self, id_: str) -> tuple[str, Key]:
        async for kind, key, found in self.kept():
            if found.id == id_:
                return kind, key
        raise ExtensionError(404, f"Nothing has the ID {id_}")

    async def _change(self, kind: str, key: Key, change: Callable[[Any], Any]) -> Kept | None:
        changed: Kept | None = await self._states[kind].change(
            *key, change=lambda found: None if found is None else change(found)
        )
        return changed

    # ------------------------------------------------------------ told to gateways

    async def _tell(self, kind: str, key: Key, ended: Kept) -> None:
        """Say that something which was good is so no more."""
        if isinstance(ended, Token):
            subject = subjects.event(self._instance, "endpoint", "token", "revoked")
            event = messages.TOKEN_REVOKED.encode(
                appName=key[0],
                endpointId=ended.endpoint_id,
                tokenIds=[ended.token_id],
                originatorReplicaId=self._replica_id,
            )
        elif isinstance(ended, Credentials) and ended.tenant:
            group = "certificate" if kind == CERTIFICATES else "basic"
            subject = subjects.event(self._instance, "client-credentials", group, "revoked")
            event = messages.CAP_CREDENTIALS_REVOKED.encode(
                tenantId=ended.tenant, credentialsId=ended.id, originatorReplicaId=self._replica_id
            )
        else:
            subject = subjects.event(self._instance, "client", "credential", "revoked")
            event = messages.ECAP_CREDENTIAL_REVOKED.encode(
                credentialId=ended.id, originatorReplicaId=self._replica_id
            )
        await self._publish(subject, event)

    # ------------------------------------------------------------ asked by gateways

    async def validate_token(self, request: dict[str, Any]) -> dict[str, Any]:
        """16/ECAP: whose token it is."""
        found = await self.tokens.get(request["appName"], digest_of(request["token"]))
        if found is None:
            return {"statusCode": 404, "reasonPhrase": "No such token"}
        if not found.is_good:
            return {"statusCode": 403, "reasonPhrase": f"The token is {found.status_now.lower()}"}
        return {"statusCode": 200, "tokenId": found.token_id, "endpointId": found.endpoint_id}

    async def move_token(self, request: dict[str, Any]) -> dict[str, Any]:
        """16/ECAP: a token that was not used yet becomes active; it can be made nothing else from outside."""
        if request["targetStatus"] != "Active":
            return {"statusCode": 400, "reasonPhrase": "Only Active can be asked for"}

        def change(found: Token | None) -> Token | None:
            if found is None:
                raise ExtensionError(404, "No such token")
            if not found.is_good:
                raise ExtensionError(409, f"The token is {found.status_now.lower()}")
            return msgspec.structs.replace(found, status="Active")

        try:
            await self.tokens.change(request["appName"], digest_of(request["token"]), change=change)
        except ExtensionError as error:
            return {"statusCode": error.status_code, "reasonPhrase": error.reason_phrase}
        return {"statusCode": 200}

    async def check_password(self, tenant: str, user_name: str, password: str) -> Credentials | None:
        """The credentials of a client, if they are right."""
        found = await self.clients.get(tenant, user_name)
        if found is None or not found.is_good:
            return None
        hash_ = await asyncio.to_thread(_hash, password, found.salt)
        return found if hmac.compare_digest(hash_, found.password_hash) else None

    async def check_certificate(self, request: dict[str, Any]) -> Credentials | None:
        """The credentials of a client, if its certificate is known."""
        found = await self.certificates.get(request["issuer"], request["serialNumber"])
        return found if found is not None and found.is_good else None


def digest_of(token: str) -> str:
    """What a token is kept under."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **SCRYPT)


def _listed(kept: Kept, kind: str, scope: str, name: str) -> Listed:
    expires = "" if kept.expires is None else time.strftime(TIME_FORMAT, time.gmtime(kept.expires / 1000))
    return Listed(kept.id, kind, scope, name, kept.status_now, expires)
