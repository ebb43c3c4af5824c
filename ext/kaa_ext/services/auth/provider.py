"""Answers the requests of gateways: is this token, password or certificate valid, and whose is it.

Source: 16/ECAP "Endpoint and Client Authentication Protocol"; 22/CAP "Client Authentication Protocol".
"""

import asyncio
import hmac
from functools import partial

import msgspec
from kaa_gateway.bus import cap, ecap

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.targeted import Fields, serve
from kaa_ext.services.auth.credentials import (
    APPLICATIONS,
    AUTHORITIES,
    CERTIFICATES,
    CLIENTS,
    TOKENS,
    ClientCredentials,
    ProvisioningApplication,
    ProvisioningAuthority,
    Token,
    digest_of,
    hash_of,
)
from kaa_ext.services.auth.expiry import ExpiryWatch
from kaa_ext.services.auth.registry import Registry


class Provider:
    """Answers requests from the tokens and clients of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def validate_token(self, request: Fields) -> Fields:
        """16/ECAP: return the endpoint of a token."""
        found = await self._registry.provision_token(request["appName"], request["token"])
        if found is None:
            return {"statusCode": 404, "reasonPhrase": "No such token"}
        if not found.is_valid:
            return {"statusCode": 403, "reasonPhrase": f"The token is {found.current_status.lower()}"}
        return {"statusCode": 200, "tokenId": found.token_id, "endpointId": found.endpoint_id}

    async def activate_token(self, request: Fields) -> Fields:
        """16/ECAP: make a token active at its first use. Gateways may ask for no other status."""
        if request["targetStatus"] != "Active":
            return {"statusCode": 400, "reasonPhrase": "Only Active can be asked for"}

        def change(found: Token | None) -> Token | None:
            if found is None:
                raise ExtensionError(404, "No such token")
            if not found.is_valid:
                raise ExtensionError(409, f"The token is {found.current_status.lower()}")
            return msgspec.structs.replace(found, status="Active")

        try:
            await self._registry.tokens.change(request["appName"], digest_of(request["token"]), change=change)
        except ExtensionError as error:
            return {"statusCode": error.status_code, "reasonPhrase": error.reason_phrase}
        return {"statusCode": 200}

    async def ecap_password(self, request: Fields) -> Fields:
        """16/ECAP: check a user name and a password."""
        user_name, password = request["username"] or "", request["password"] or ""
        return _client("credentialId", await self._by_password("", user_name, password), user_name)

    async def ecap_certificate(self, request: Fields) -> Fields:
        """16/ECAP: check a certificate."""
        return _client("credentialId", await self._by_certificate(request), request["serialNumber"])

    async def cap_basic(self, request: Fields) -> Fields:
        """22/CAP: check a user name and a password of a tenant."""
        tenant, user_name, password = request["tenantId"], request["username"], request["password"]
        return _client("credentialsId", await self._by_password(tenant, user_name, password), user_name)

    async def cap_certificate(self, request: Fields) -> Fields:
        """22/CAP: check a certificate, and return its tenant."""
        found = await self._by_certificate(request)
        if found is not None and not found.tenant:
            found = None
        return _client("credentialsId", found, request["serialNumber"]) | (
            {"tenantId": found.tenant} if found else {}
        )

    async def _by_password(self, tenant: str, user_name: str, password: str) -> ClientCredentials | None:
        found = await self._registry.clients.get(tenant, user_name)
        if found is None or not found.is_valid:
            return None
        hash_ = await asyncio.to_thread(hash_of, password, found.salt)
        return found if hmac.compare_digest(hash_, found.password_hash) else None

    async def _by_certificate(self, request: Fields) -> ClientCredentials | None:
        found = await self._registry.provision_certificate(request["issuer"], request["serialNumber"])
        return found if found is not None and found.is_valid else None


def register(extension: Extension) -> None:
    """Make the extension a provider of tokens and clients."""
    expiries = ExpiryWatch()
    registry = Registry(
        extension.name,
        extension.replica_id,
        extension.state(TOKENS, Token, changed=partial(expiries.note, TOKENS)),
        extension.state(CLIENTS, ClientCredentials, changed=partial(expiries.note, CLIENTS)),
        extension.state(CERTIFICATES, ClientCredentials, changed=partial(expiries.note, CERTIFICATES)),
        extension.state(AUTHORITIES, ProvisioningAuthority),
        extension.state(APPLICATIONS, ProvisioningApplication),
        extension.publish,
    )

    async def watch_expiries() -> None:
        await expiries.read(registry)
        extension.spawn(expiries.run(registry))

    extension.on_start(watch_expiries)

    provider = Provider(registry)
    for protocol, exchange, answer in (
        (ecap.PROTOCOL, ecap.TOKEN_VALIDATION, provider.validate_token),
        (ecap.PROTOCOL, ecap.TOKEN_TRANSITION, provider.activate_token),
        (ecap.PROTOCOL, ecap.CLIENT_PASSWORD, provider.ecap_password),
        (ecap.PROTOCOL, ecap.CLIENT_CERTIFICATE, provider.ecap_certificate),
        (cap.PROTOCOL, cap.BASIC, provider.cap_basic),
        (cap.PROTOCOL, cap.CERTIFICATE, provider.cap_certificate),
    ):
        serve(extension, protocol, exchange, answer)


def _client(id_field: str, found: ClientCredentials | None, client_id: str) -> Fields:
    """Return the answer about credentials; the ID of a client is its user name or its certificate's serial number."""
    if found is None:
        return {"statusCode": 401, "reasonPhrase": "Wrong credentials"}
    return {"statusCode": 200, id_field: found.credentials_id, "clientId": client_id}
