"""Endpoint tokens and clients of an authentication provider (16/ECAP, 22/CAP)."""

from kaa_ext.operations.session import Session
from kaa_ext.services.auth import credentials
from kaa_ext.services.auth.registry import Registry

ORIGINATOR = "kaa-ext"
"""The replica that revocation events name."""


async def registry(session: Session, provider: str) -> Registry:
    """Return the tokens and clients of a provider instance."""
    return Registry(
        provider,
        ORIGINATOR,
        await session.state(provider, credentials.TOKENS, credentials.Token),
        await session.state(provider, credentials.CLIENTS, credentials.ClientCredentials),
        await session.state(provider, credentials.CERTIFICATES, credentials.ClientCredentials),
        await session.state(provider, credentials.AUTHORITIES, credentials.ProvisioningAuthority),
        await session.state(provider, credentials.APPLICATIONS, credentials.ProvisioningApplication),
        session.publish,
    )
