"""Tokens and client credentials as JetStream holds them.

State `tokens`: key (application, SHA-256 of the token); `clients`: (tenant, user name); `certificates`: (issuer, serial
number). A client of 16/ECAP has no tenant: "". What devices may add themselves stands in `authorities`, by issuer, and
in `applications`, by application.
"""

import base64
import hashlib
from typing import Literal, TypeAlias
from uuid import UUID, uuid5

import msgspec
from kaa_gateway.bus.messages import now_ms

TOKENS, CLIENTS, CERTIFICATES = "tokens", "clients", "certificates"
AUTHORITIES, APPLICATIONS = "authorities", "applications"
"""The names of the states."""
SHOWN_CHARACTERS = 4
"""Characters of a token that are stored, for lists."""
ENDPOINTS = UUID("5f2f0c56-6c0e-5e0b-9d0f-6f6a1f1a7c11")
"""The namespace of endpoint IDs that are made of tokens (RFC 9562)."""
SCRYPT = {"n": 2**14, "r": 8, "p": 1}

Status: TypeAlias = Literal["Inactive", "Active", "Suspended", "Revoked", "Expired"]
Key: TypeAlias = tuple[str, ...]


class Credential(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The common part of tokens and client credentials. They are valid while Inactive (not used yet) or Active."""

    status: Status
    expires: int | None = None
    """UNIX time in milliseconds at which the credential stops being valid; None for never."""

    @property
    def id(self) -> str:
        """The ID that commands and events give."""
        raise NotImplementedError

    @property
    def current_status(self) -> Status:
        """The status, Expired as soon as the time is over, even if that is not stored yet."""
        over = self.expires is not None and self.expires <= now_ms()
        return "Expired" if over and self.status in ("Inactive", "Active") else self.status

    @property
    def is_valid(self) -> bool:
        """Return whether a device may use it."""
        return self.current_status in ("Inactive", "Active")


class Token(Credential, frozen=True, kw_only=True):
    """An endpoint token. `shown` is its beginning, for lists."""

    token_id: str
    endpoint_id: str
    shown: str
    status: Status = "Inactive"

    @property
    def id(self) -> str:
        """The token ID of 16/ECAP."""
        return self.token_id


class ClientCredentials(Credential, frozen=True, kw_only=True):
    """The password or the certificate of a client.

    The tenant stands here because the key of a certificate does not name it.
    """

    credentials_id: str
    tenant: str = ""
    salt: bytes = b""
    password_hash: bytes = b""
    status: Status = "Active"

    @property
    def id(self) -> str:
        """The credential(s) ID of 16/ECAP and 22/CAP."""
        return self.credentials_id


class ProvisioningAuthority(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An authority whose certificates become clients of a tenant when they are first asked for."""

    tenant: str = ""


class ProvisioningApplication(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An application in which unknown tokens become endpoints, `limit` at most."""

    limit: int
    added: int = 0


def endpoint_of(application: str, token: str) -> str:
    """Return the endpoint ID of a token that a device has brought: the same however often it is made."""
    return str(uuid5(ENDPOINTS, f"{application}/{token}"))


def digest_of(token: str) -> str:
    """Return the part of its key that a token is stored under."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


def hash_of(password: str, salt: bytes) -> bytes:
    """Return the scrypt hash of a password. Takes milliseconds: call it in a thread."""
    return hashlib.scrypt(password.encode(), salt=salt, **SCRYPT)
