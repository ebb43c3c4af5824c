"""What an X.509 certificate says about the client that it was issued to.

Source: RFC 5280; RFC 4514 for how names are written.
"""

from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID


class ClientCertificate(NamedTuple):
    """A client's certificate, whose chain TLS or DTLS has verified."""

    issuer: str
    """Name of the issuer as RFC 4514 writes it: `CN=Devices CA,O=Example`."""
    serial_number: str
    """In base 10, as 16/ECAP and 22/CAP have it."""
    subject: str
    """Name of the client, written like the issuer's."""
    common_name: str | None = None
    """The common name in the subject; None if it has none, or several."""
    tenant: str | None = None
    """The tenant whose authority has issued it; None if the authority belongs to no tenant."""


def read_client_certificate(der: bytes, tenant: str | None = None) -> ClientCertificate:
    """Decode a certificate in DER form. Raises ValueError if it is malformed."""
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return ClientCertificate(
        issuer=certificate.issuer.rfc4514_string(),
        serial_number=str(certificate.serial_number),
        subject=certificate.subject.rfc4514_string(),
        common_name=str(names[0].value) if len(names) == 1 else None,
        tenant=tenant,
    )
