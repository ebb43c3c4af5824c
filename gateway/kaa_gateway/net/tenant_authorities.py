"""The authorities of a listener's tenants: which tenant a verified certificate belongs to.

A tenant is found by the server name that a client asks for (SNI), and by the chain of the client's certificate. Where
both tell it, they must agree.

What lives here: names, authorities and the certificates of resumed sessions. What does not: the files
(`kaa_gateway.net.certificates`), and the contexts of OpenSSL (`stream_context`, `dtls_context`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from kaa_gateway.errors import HandshakeError
from kaa_gateway.net.handshakes import verification_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography import x509

    from kaa_gateway.net.certificates import Material, TenantMaterial

INTERMEDIATES_MAX = 100
"""Intermediate authorities of one tenant that are remembered for resumed sessions."""

WRONG_TENANT = "tls_wrong_tenant"


class TenantAuthorities:
    """The authorities of a listener: its own, which belong to no tenant, and those of its tenants."""

    def __init__(self, material: Material) -> None:
        self._owners: dict[bytes, set[str | None]] = {}
        """The tenants of each authority, by fingerprint; None among them if it is one of the listener's own."""
        self._tenant_by_name: dict[str, str] = {}
        self._intermediates: dict[str | None, dict[bytes, crypto.X509]] = {}
        self._store = crypto.X509Store()
        self._add(None, material.authorities, material.revocations)
        for tenant, its in material.tenants.items():
            self._add(tenant, its.authorities, its.revocations)
            self._tenant_by_name.update(dict.fromkeys(map(str.lower, its.server_names), tenant))
        self._store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)

    def named(self, server_name: str | None) -> str | None:
        """Return the tenant of a server name, which may be one of a wildcard `*.example.com`; or None."""
        name = (server_name or "").lower()
        return self._tenant_by_name.get(name) or self._tenant_by_name.get("*." + name.partition(".")[2])

    def tenant_of(self, leaf: bytes, chain: list[bytes] | None, asked: str | None) -> str | None:
        """Return the tenant of a client's certificate; None if its authority belongs to no tenant.

        `chain` is what was verified, the client's certificate first; None for a resumed session, whose certificate is
        verified again. `asked` is the tenant whose server name the client has asked for. Raises HandshakeError if the
        certificate is another tenant's.
        """
        chain = chain or self._verify(leaf)
        fingerprints = [hashlib.sha256(each).digest() for each in chain]
        at = next((at for at, each in enumerate(fingerprints) if each in self._owners), None)
        if at is None:
            raise HandshakeError("tls_unknown_ca", "the authority is not in the files that were read")
        owners = self._owners[fingerprints[at]]
        if asked is not None and asked not in owners:
            raise HandshakeError(WRONG_TENANT, f"the certificate is not one of the tenant {asked}")
        if asked is None and len(owners) > 1:
            raise HandshakeError(
                WRONG_TENANT, "the authority has several tenants, and the client asked for no server name"
            )
        tenant = next(iter(owners)) if asked is None else asked
        self._remember(tenant, zip(fingerprints[1:at], chain[1:at], strict=True))
        return tenant

    def _add(
        self,
        tenant: str | None,
        authorities: list[x509.Certificate],
        revocations: list[x509.CertificateRevocationList],
    ) -> None:
        for authority in authorities:
            self._owners.setdefault(_fingerprint(authority), set()).add(tenant)
            self._store.add_cert(crypto.X509.from_cryptography(authority))
        for each in revocations:
            self._store.add_crl(each)
        if revocations:
            self._store.set_flags(crypto.X509StoreFlags.CRL_CHECK)

    def _verify(self, leaf: bytes) -> list[bytes]:
        """Return the chain of a certificate that was good when its session began."""
        known = [each for its in self._intermediates.values() for each in its.values()]
        certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, leaf)
        try:
            chain = crypto.X509StoreContext(self._store, certificate, known).get_verified_chain()
        except crypto.X509StoreContextError as error:
            code, _, text = error.errors
            raise HandshakeError(verification_reason(code), str(text)) from None
        return [crypto.dump_certificate(crypto.FILETYPE_ASN1, each) for each in chain]

    def _remember(self, tenant: str | None, intermediates: Iterable[tuple[bytes, bytes]]) -> None:
        for fingerprint, der in intermediates:
            its = self._intermediates.setdefault(tenant, {})
            if fingerprint not in its:
                its[fingerprint] = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
                if len(its) > INTERMEDIATES_MAX:
                    del its[next(iter(its))]


def shared_authority(material: Material) -> tuple[str, str] | None:
    """Return two tenants (or a tenant and "") with an authority in common that no server name tells apart, or None."""
    seen: dict[bytes, str] = dict.fromkeys(map(_fingerprint, material.authorities), "")
    for tenant, its in material.tenants.items():
        for authority in its.authorities:
            other = seen.setdefault(_fingerprint(authority), tenant)
            if other != tenant and not (_is_named(material.tenants, other) and its.server_names):
                return tenant, other
    return None


def _is_named(tenants: Mapping[str, TenantMaterial], tenant: str) -> bool:
    return tenant != "" and bool(tenants[tenant].server_names)


def _fingerprint(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
