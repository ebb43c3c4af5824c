"""Certificates and keys of the listeners that encrypt: reads their files, and reads them again when they change.

What lives here: checks of certificates, keys, authorities and revocation lists, whose errors name the key of the
configuration; the watch over the files. What does not: the contexts of OpenSSL (`kaa_gateway.net.stream_context`,
`kaa_gateway.net.dtls_context`), and connections.

A connection keeps the context that it began with, so new files disturb no connection.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from kaa_gateway.errors import ConfigError
from kaa_gateway.files import PAUSE, FileState, states_of
from kaa_gateway.net.tenant_authorities import shared_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

log = structlog.get_logger("gateway.transports")

WATCH_PERIOD = 5.0
"""Seconds between two looks at the files. Their directories may be mounts, which report no changes."""

_REVOCATION_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

Context = TypeVar("Context")


class CertificateFiles(Protocol):
    """The files of a listener, or of one of its tenants."""

    @property
    def cert_file(self) -> Path | None:
        """The certificate and its intermediate ones."""

    @property
    def key_file(self) -> Path | None:
        """The private key."""

    @property
    def ca_file(self) -> Path | None:
        """The authorities of client certificates."""

    @property
    def crl_file(self) -> Path | None:
        """Their revocation lists."""


class AuthoritySettings(CertificateFiles, Protocol):
    """The settings of a tenant of a listener, as its section of the configuration has them."""

    @property
    def server_names(self) -> tuple[str, ...]:
        """The server names of the tenant. Its certificate, if it has one, is for them."""


class ServerSettings(CertificateFiles, Protocol):
    """The settings of a listener that encrypts, as its section of the configuration has them."""

    @property
    def tenants(self) -> Mapping[str, AuthoritySettings]:
        """Tenants with authorities of their own."""

    @property
    def client_certificate(self) -> str:
        """`off`, `optional` or `required`."""

    @property
    def ciphers(self) -> str:
        """Cipher suites, as in openssl-ciphers(1)."""


def unusable(key: str, message: str) -> ConfigError:
    """Return the error for a file or setting that cannot be used."""
    return ConfigError("tls_unusable", f"{key}: {message}")


class FileContents:
    """A certificate with its key, and authorities of clients, which fit together. Raises ConfigError otherwise."""

    def __init__(self, key: str, settings: ServerSettings | AuthoritySettings, *, verifies: bool) -> None:
        self.chain: list[x509.Certificate] = []
        self.private_key: PrivateKeyTypes | None = None
        self.authorities: list[x509.Certificate] = []
        self.revocations: list[x509.CertificateRevocationList] = []
        if settings.cert_file is not None and settings.key_file is not None:
            self.chain = _certificates(f"{key}.cert-file", settings.cert_file)
            self.private_key = _private_key(f"{key}.key-file", settings.key_file)
            if _public_bytes(self.private_key.public_key()) != _public_bytes(self.chain[0].public_key()):
                message = f"{settings.key_file}: is not the key of the certificate in {settings.cert_file}"
                raise unusable(f"{key}.key-file", message)
        if verifies and settings.ca_file is not None:
            self.authorities = _certificates(f"{key}.ca-file", settings.ca_file)
        if verifies and settings.crl_file is not None:
            self.revocations = _revocations(f"{key}.crl-file", settings.crl_file)


class TenantMaterial(FileContents):
    """The contents of a tenant's files."""

    def __init__(self, key: str, settings: AuthoritySettings) -> None:
        super().__init__(key, settings, verifies=True)
        self.server_names = settings.server_names


class Material(FileContents):
    """The contents of a listener's files, those of its tenants included."""

    def __init__(self, key: str, settings: ServerSettings) -> None:
        verifies = settings.client_certificate != "off"
        super().__init__(key, settings, verifies=verifies)
        self.tenants: dict[str, TenantMaterial] = {}
        if verifies:
            for name, its in settings.tenants.items():
                self.tenants[name] = TenantMaterial(f"{key}.tenants.{name}", its)
        shared = shared_authority(self)
        if shared is not None:
            tenant, other = shared
            whose = f"the tenant {other}" if other else f"{key}.ca-file"
            message = f"has an authority of {whose} too; then both tenants need server-names"
            raise unusable(f"{key}.tenants.{tenant}.ca-file", message)


def read(key: str, path: Path) -> bytes:
    """Return the content of a file. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unusable(key, f"{path}: cannot be read: {error.strerror}") from None


def _read_pem(key: str, path: Path) -> bytes:
    """Return the content of a file with PEM blocks, none of which is cut off."""
    content = read(key, path)
    if content.count(b"-----BEGIN ") != content.count(b"-----END ") or (
        content.rfind(b"-----END ") > content.rfind(b"-----", content.rfind(b"-----END ") + len(b"-----END "))
    ):
        raise unusable(key, f"{path}: is cut off: a PEM block has no end")
    return content


def _certificates(key: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read_pem(key, path))
    except ValueError:
        raise unusable(key, f"{path}: holds no certificate in PEM form") from None


def _private_key(key: str, path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_read_pem(key, path), None)
    except TypeError:
        raise unusable(key, f"{path}: the key has a passphrase; one without is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        raise unusable(key, f"{path}: holds no private key in PEM form") from None


def _revocations(key: str, path: Path) -> list[x509.CertificateRevocationList]:
    found = _REVOCATION_LIST.findall(_read_pem(key, path))
    try:
        lists = [x509.load_pem_x509_crl(each) for each in found]
    except ValueError:
        lists = []
    if not lists:
        raise unusable(key, f"{path}: holds no certificate revocation list in PEM form")
    return lists


def _public_bytes(public_key: object) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


class ServerCredentials(Generic[Context]):
    """The OpenSSL context of one listener, and the files that it is made of. Raises ConfigError.

    `key` is that of the listener's section. `make` makes a context from the contents of the files; it may take some
    milliseconds.
    """

    def __init__(self, key: str, settings: ServerSettings, make: Callable[[Material], Context]) -> None:
        self.key = key
        self._settings = settings
        self._make = make
        files: list[Path | None] = [getattr(settings, "psk_file", None), *_files_of(settings)]
        for tenant in settings.tenants.values():
            files += _files_of(tenant)
        self._files = [file for file in files if file is not None]
        self._seen = self._state()
        self.read_again()

    def changed(self) -> bool:
        """Return whether the files have changed since they were read."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        return True

    def read_again(self) -> None:
        """Make a new context from the files. If that raises ConfigError, the old context stays."""
        material = Material(self.key, self._settings)
        self.context = self._make(material)
        self.certificate = material.chain[0] if material.chain else None
        """The server's own certificate; None if there are only pre-shared keys."""
        if self.certificate is not None and self.certificate.not_valid_after_utc < datetime.now(UTC):
            log.warning("the certificate has expired", key=f"{self.key}.cert-file")

    def _state(self) -> list[FileState]:
        return states_of(self._files)


def _files_of(settings: ServerSettings | AuthoritySettings) -> list[Path | None]:
    return [settings.cert_file, settings.key_file, settings.ca_file, settings.crl_file]


async def watch(
    all_credentials: Iterable[ServerCredentials[Any]], period: float = WATCH_PERIOD, pause: float = PAUSE
) -> None:
    """Read files again whenever they change, until cancelled. Files that cannot be used are logged."""
    while True:
        await asyncio.sleep(period)
        for credentials in all_credentials:
            if not credentials.changed():
                continue
            while True:
                # A file that is being written is read when it is complete.
                await asyncio.sleep(pause)
                if not credentials.changed():
                    break
            try:
                await asyncio.to_thread(credentials.read_again)
            except ConfigError as error:
                log.error("changed files cannot be used; going on with the old ones", error=error.detail)
            else:
                log.info("read changed files", key=credentials.key)
