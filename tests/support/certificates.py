"""Certificate authorities of a test, and what they issue: PEM files, as an operator has them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


class Issued(NamedTuple):
    """A certificate and its key, as files."""

    cert_file: Path
    key_file: Path
    certificate: x509.Certificate

    @property
    def serial_number(self) -> str:
        """Base 10."""
        return str(self.certificate.serial_number)


class Authority:
    """A certificate authority whose files are in `directory`, and begin with its name.

    With `parent`, it is an intermediate one; its certificate is not in `parent.file`.
    """

    def __init__(
        self, directory: Path, name: str = "devices-ca", *, parent: "Authority | None" = None
    ) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        issuer = parent or self
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(issuer._key, hashes.SHA256())
        )
        self.certificate = certificate
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.crl_file = directory / f"{name}.crl"
        self.revoke()

    def issue(
        self, name: str, *, expired: bool = False, weak: bool = False, hosts: Sequence[str] = ("localhost",)
    ) -> Issued:
        """Return a certificate for `name`, good for clients, and for servers at `hosts` and loopback addresses."""
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(ec.SECP256R1())
        if weak:
            key = rsa.generate_private_key(65537, 1024)
        now = datetime.now(UTC)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now - DAY if expired else now + 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        *(x509.DNSName(each) for each in hosts),
                        *(x509.IPAddress(ip_address(each)) for each in ("127.0.0.1", "::1")),
                    ]
                ),
                critical=False,
            )
            .add_extension(authority_key, critical=False)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        issued = Issued(self._directory / f"{name}.pem", self._directory / f"{name}.key", certificate)
        issued.cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        issued.key_file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
        return issued

    def revoke(self, *revoked: Issued) -> None:
        """Write the revocation list anew, with these certificates on it."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now - DAY)
            .next_update(now + 10 * DAY)
        )
        for each in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(each.certificate.serial_number)
                .revocation_date(now - DAY)
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        self.crl_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def nats_tls_config(
    authority: Authority, *, verify: bool = False, optional: bool = False, first: bool = False
) -> str:
    """Return the configuration of a nats-server with TLS.

    It wants a certificate (`verify`), lets clients in without TLS too (`optional`), or has TLS before INFO (`first`).
    """
    server = authority.issue("server", hosts=())
    return (
        f"allow_non_tls: {str(optional).lower()}\n"
        f'tls {{\n cert_file: "{server.cert_file}"\n key_file: "{server.key_file}"\n ca_file: "{authority.file}"\n'
        f" verify: {str(verify).lower()}\n handshake_first: {str(first).lower()}\n}}\n"
    )
