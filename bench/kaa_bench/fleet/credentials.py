"""How the clients of a fleet soak authenticate: half of them not at all, a quarter each by password and certificate.

All certificates have one key, and the hashes of the passwords are cheap: what they cost is not the soak's matter.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kaa_bench.certificate import client_context
from kaa_bench.fleet.names import token_of

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["anonymous", "password", "certificate"]
KINDS: tuple[Kind, ...] = ("anonymous", "password", "anonymous", "certificate")
"""By the number of a client modulo four."""
TENANT = "fleet"
LIFETIME = timedelta(days=2)


class Access(NamedTuple):
    """Where a client connects, and with what."""

    ports: list[int]
    """By gateway."""
    user_name: str | None = None
    password: bytes | None = None
    certificate: str | None = None
    """The file of certificate and key; the ports are of TLS then."""

    def context(self) -> ssl.SSLContext | None:
        """Return a context for one connection, so that each has a full handshake; None without TLS."""
        if self.certificate is None:
            return None
        context = client_context()
        context.load_cert_chain(self.certificate)
        return context


def kind_of(client: int) -> Kind:
    """Return how a client authenticates."""
    return KINDS[client % len(KINDS)]


class Credentials:
    """The files in `directory` with which the clients below a number and the gateways agree."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def users(self) -> Path:
        """The file of the provider `static`."""
        return self._directory / "clients.yml"

    @property
    def authority(self) -> Path:
        """The certificate of the tenant's authority."""
        return self._directory / "authority.pem"

    def issue(self, clients: int) -> None:
        """Write the files. This takes a second for some thousand clients."""
        users = {
            token_of(client): {"password": _hash(_password(client))}
            for client in range(clients)
            if kind_of(client) == "password"
        }
        self.users.write_text(yaml.safe_dump({"clients": users}))
        key = ec.generate_private_key(ec.SECP256R1())
        authority = _signed("fleet authority", "fleet authority", key, is_authority=True)
        self.authority.write_bytes(authority)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for client in range(clients):
            if kind_of(client) == "certificate":
                certificate = _signed(token_of(client), "fleet authority", key, is_authority=False)
                self._certificate(client).write_bytes(certificate + private)

    def access(self, client: int, ports: list[int], tls_ports: list[int]) -> Access:
        """Return where a client connects, and with what."""
        kind = kind_of(client)
        if kind == "password":
            return Access(ports, token_of(client), _password(client))
        if kind == "certificate":
            return Access(tls_ports, certificate=str(self._certificate(client)))
        return Access(ports)

    def _certificate(self, client: int) -> Path:
        return self._directory / f"{token_of(client)}.pem"


def _password(client: int) -> bytes:
    return b"password of client %d" % client


def _hash(password: bytes) -> str:
    """Return the hash of a password as the provider `static` reads it, with the least work."""
    salt = b"a fleet soak"
    key = hashlib.scrypt(password, salt=salt, n=2, r=1, p=1, dklen=32)
    return ":".join(["scrypt", "2", "1", "1", *(base64.b64encode(part).decode() for part in (salt, key))])


def _signed(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> bytes:
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
