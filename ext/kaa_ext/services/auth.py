"""auth, a provider of 16/ECAP and 22/CAP: answers the requests of gateways.

What it knows, and how that is changed, is in `kaa_ext.services.auth_registry`; what happens when something's time is over in
`kaa_ext.services.auth_expiry`.

Source: 16/ECAP "Endpoint and Client Authentication Protocol"; 22/CAP "Client Authentication Protocol".
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nats.aio.msg import Msg

from kaa_ext.sdk.ism import expired
from kaa_ext.sdk.service import Extension
from kaa_ext.services import auth_messages as messages
from kaa_ext.services.auth_expiry import Expiries
from kaa_ext.services.auth_registry import CERTIFICATES, CLIENTS, TOKENS, Credentials, Registry, Token


def register(extension: Extension) -> None:
    """Make the extension a provider of tokens and clients."""
    expiries = Expiries()
    registry = Registry(
        extension.name,
        extension.replica_id,
        extension.state(TOKENS, Token, changed=partial(expiries.note, TOKENS)),
        extension.state(CLIENTS, Credentials, changed=partial(expiries.note, CLIENTS)),
        extension.state(CERTIFICATES, Credentials, changed=partial(expiries.note, CERTIFICATES)),
        extension.publish,
    )

    async def watch_expiries() -> None:
        await expiries.read(registry)
        extension.spawn(expiries.keep(registry))

    extension.on_start(watch_expiries)

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
