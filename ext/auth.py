"""auth, a provider of 16/ECAP and 22/CAP: endpoint tokens and clients that are in JetStream.

They are made and taken back through `Registry`, which `kaa-ext auth` uses: no replica of auth need run for that. Those
that run answer the requests of gateways.

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
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from nats.aio.msg import Msg

from ext import auth_messages as messages
from ext.errors import ExtensionError
from ext.ism import expired
from ext.service import Extension
from ext.state import State
from gateway.bus import subjects

TOKENS, CLIENTS, CERTIFICATES = "tokens", "clients", "certificates"
SHOWN_CHARACTERS = 4
"""How much of a token is kept, to be listed."""
SCRYPT = {"n": 2**14, "r": 8, "p": 1}

Status: TypeAlias = Literal["Inactive", "Active", "Suspended", "Revoked"]


class Token(msgspec.Struct, frozen=True, rename="camel"):
    """An endpoint token; it is good while it is Inactive (not used yet) or Active."""

    token_id: str
    endpoint_id: str
    shown: str
    status: Status = "Inactive"


class Credentials(msgspec.Struct, frozen=True, rename="camel"):
    """Those of a client: a password, or a certificate, whose tenant is here because its key does not name it."""

    credentials_id: str
    tenant: str = ""
    salt: bytes = b""
    password_hash: bytes = b""
    status: Status = "Active"


class Listed(NamedTuple):
    """One line of a list."""

    id: str
    kind: str
    scope: str
    name: str
    status: str


Change = Callable[[Any], Any]


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
        self._publish = publish

    # ------------------------------------------------------------ made and taken back

    async def add_token(
        self, application: str, endpoint_id: str, token: str | None = None
    ) -> tuple[str, str]:
        """A token of an endpoint, a random one by default: the token and its ID. ExtensionError 409 if it exists."""
        token = token or secrets.token_urlsafe(16)
        made = Token(
            f"t-{secrets.token_hex(6)}", endpoint_id, token[: min(SHOWN_CHARACTERS, len(token) // 2)]
        )

        def change(found: Token | None) -> Token:
            if found is not None:
                raise ExtensionError(409, f"This token is of {found.endpoint_id} already")
            return made

        await self.tokens.change(application, _digest(token), change=change)
        return token, made.token_id

    async def add_client(self, tenant: str, user_name: str, password: str | None = None) -> tuple[str, str]:
        """A client, or another password of one: the password, a random one by default, and its credentials' ID."""
        password = password or secrets.token_urlsafe(16)
        salt = os.urandom(16)
        hash_ = await asyncio.to_thread(_hash, password, salt)
        made = Credentials(f"c-{secrets.token_hex(6)}", tenant, salt, hash_)
        former = await self.clients.get(tenant, user_name)
        await self.clients.put(tenant, user_name, value=made)
        if former is not None:
            await self._tell_of_client("basic", former)
        return password, made.credentials_id

    async def add_certificate(self, tenant: str, issuer: str, serial_number: str) -> str:
        """A client by its certificate: the ID of its credentials."""
        made = Credentials(f"x-{secrets.token_hex(6)}", tenant)
        await self.certificates.put(issuer, serial_number, value=made)
        return made.credentials_id

    async def set_status(self, id_: str, status: Status) -> None:
        """Suspend, revoke or resume what has this ID, and tell gateways if it is good no more. 404 if nothing has."""
        for state, kind in ((self.clients, "basic"), (self.certificates, "certificate")):
            async for key, credentials in state.entries():
                if credentials.credentials_id == id_:
                    changed = await state.change(*key, change=_with_status(status))
                    if status != "Active" and changed is not None:
                        await self._tell_of_client(kind, changed)
                    return
        async for (application, digest), token in self.tokens.entries():
            if token.token_id == id_:
                await self.tokens.change(application, digest, change=_with_status(status))
                if status != "Active":
                    event = messages.TOKEN_REVOKED.encode(
                        appName=application,
                        endpointId=token.endpoint_id,
                        tokenIds=[token.token_id],
                        originatorReplicaId=self._replica_id,
                    )
                    await self._publish(subjects.event(self._instance, "endpoint", "token", "revoked"), event)
                return
        raise ExtensionError(404, f"Nothing has the ID {id_}")

    async def entries(self) -> AsyncIterator[Listed]:
        """All that there is."""
        async for (application, _), token in self.tokens.entries():
            yield Listed(
                token.token_id, "token", application, f"{token.endpoint_id} ({token.shown}…)", token.status
            )
        async for (tenant, user_name), client in self.clients.entries():
            yield Listed(client.credentials_id, "client", tenant or "-", user_name, client.status)
        async for (issuer, serial_number), client in self.certificates.entries():
            name = f"{serial_number} of {issuer}"
            yield Listed(client.credentials_id, "certificate", client.tenant or "-", name, client.status)

    async def _tell_of_client(self, kind: str, credentials: Credentials) -> None:
        if credentials.tenant:
            subject = subjects.event(self._instance, "client-credentials", kind, "revoked")
            event = messages.CAP_CREDENTIALS_REVOKED.encode(
                tenantId=credentials.tenant,
                credentialsId=credentials.credentials_id,
                originatorReplicaId=self._replica_id,
            )
        else:
            subject = subjects.event(self._instance, "client", "credential", "revoked")
            event = messages.ECAP_CREDENTIAL_REVOKED.encode(
                credentialId=credentials.credentials_id, originatorReplicaId=self._replica_id
            )
        await self._publish(subject, event)

    # ------------------------------------------------------------ asked by gateways

    async def validate_token(self, request: dict[str, Any]) -> dict[str, Any]:
        """16/ECAP: whose token it is."""
        found = await self.tokens.get(request["appName"], _digest(request["token"]))
        if found is None:
            return {"statusCode": 404, "reasonPhrase": "No such token"}
        if found.status not in ("Inactive", "Active"):
            return {"statusCode": 403, "reasonPhrase": f"The token is {found.status.lower()}"}
        return {"statusCode": 200, "tokenId": found.token_id, "endpointId": found.endpoint_id}

    async def move_token(self, request: dict[str, Any]) -> dict[str, Any]:
        """16/ECAP: a token that was not used yet becomes active; it can be made nothing else from outside."""
        if request["targetStatus"] != "Active":
            return {"statusCode": 400, "reasonPhrase": "Only Active can be asked for"}

        def change(found: Token | None) -> Token | None:
            if found is None:
                raise ExtensionError(404, "No such token")
            if found.status not in ("Inactive", "Active"):
                raise ExtensionError(409, f"The token is {found.status.lower()}")
            return msgspec.structs.replace(found, status="Active")

        try:
            await self.tokens.change(request["appName"], _digest(request["token"]), change=change)
        except ExtensionError as error:
            return {"statusCode": error.status_code, "reasonPhrase": error.reason_phrase}
        return {"statusCode": 200}

    async def check_password(self, tenant: str, user_name: str, password: str) -> Credentials | None:
        """The credentials of a client, if they are right."""
        found = await self.clients.get(tenant, user_name)
        if found is None or found.status != "Active":
            return None
        hash_ = await asyncio.to_thread(_hash, password, found.salt)
        return found if hmac.compare_digest(hash_, found.password_hash) else None

    async def check_certificate(self, request: dict[str, Any]) -> Credentials | None:
        """The credentials of a client, if its certificate is known."""
        found = await self.certificates.get(request["issuer"], request["serialNumber"])
        return found if found is not None and found.status == "Active" else None


def register(extension: Extension) -> None:
    """Make the extension a provider of tokens and clients."""
    registry = Registry(
        extension.name,
        extension.replica_id,
        extension.state(TOKENS, Token),
        extension.state(CLIENTS, Credentials),
        extension.state(CERTIFICATES, Credentials),
        extension.publish,
    )

    async def ecap_password(request: dict[str, Any]) -> dict[str, Any]:
        user_name, password = request["username"] or "", request["password"] or ""
        return _client("credentialId", await registry.check_password("", user_name, password))

    async def ecap_certificate(request: dict[str, Any]) -> dict[str, Any]:
        return _client("credentialId", await registry.check_certificate(request))

    async def cap_basic(request: dict[str, Any]) -> dict[str, Any]:
        tenant, user_name, password = request["tenantId"], request["username"], request["password"]
        return _client("credentialsId", await registry.check_password(tenant, user_name, password))

    async def cap_certificate(request: dict[str, Any]) -> dict[str, Any]:
        found = await registry.check_certificate(request)
        if found is not None and not found.tenant:
            found = None
        return _client("credentialsId", found) | ({"tenantId": found.tenant} if found else {})

    for exchange, answer in (
        (messages.TOKEN_VALIDATION, registry.validate_token),
        (messages.TOKEN_TRANSITION, registry.move_token),
        (messages.ECAP_PASSWORD, ecap_password),
        (messages.ECAP_CERTIFICATE, ecap_certificate),
        (messages.CAP_BASIC, cap_basic),
        (messages.CAP_CERTIFICATE, cap_certificate),
    ):
        _serve(extension, exchange, answer)


def _serve(
    extension: Extension,
    exchange: messages.Exchange,
    answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
) -> None:
    schema: Any = exchange.answer.schema
    names = [field["name"] for field in schema["fields"] if field["type"] == messages.NAMED]

    async def receive(message: Msg) -> None:
        request = exchange.request.decode(message.data)
        if message.reply and not expired(request):
            fields = dict.fromkeys(names) | await answer(request)
            datum = exchange.answer.encode(correlationId=request["correlationId"], **fields)
            await extension.publish(message.reply, datum)

    extension.subscribe(f"kaa.v1.service.{extension.name}.{exchange.subject}", receive, shared=True)


def _client(name: str, found: Credentials | None) -> dict[str, Any]:
    if found is None:
        return {"statusCode": 401, "reasonPhrase": "Wrong credentials"}
    return {"statusCode": 200, name: found.credentials_id}


def _with_status(status: Status) -> Change:
    return lambda found: None if found is None else msgspec.structs.replace(found, status=status)


def _digest(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **SCRYPT)
