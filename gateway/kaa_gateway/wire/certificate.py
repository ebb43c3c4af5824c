"""What an X.509 certificate says about the client that it was issued to.

Source: RFC 5280; RFC 4514 for how names are written.
"""

from typing import NamedTuple

from cryptography import x509


class ClientCertificate(NamedTuple):
    """A client's certificate, whose chain TLS or DTLS has verified."""

    issuer: str
    """Name of the issuer as RFC 4514 writes it: `CN=Devices CA,O=Example`."""
    serial_number: str
    """In base 10, as 16/ECAP and 22/CAP have it."""
    subject: str
    """Name of the client, written like the issuer's."""


def read_client_certificate(der: bytes) -> ClientCertificate:
    """Decode a certificate in DER form. Raises ValueError if it is malformed."""
    certificate = x509.load_der_x509_certificate(der)
    return ClientCertificate(
        issuer=certificate.issuer.rfc4514_string(),
        serial_number=str(certificate.serial_number),
        subject=certificate.subject.rfc4514_string(),
    )
