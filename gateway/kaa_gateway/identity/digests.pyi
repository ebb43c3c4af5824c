"""Digests of credentials. See digests.pyx."""

from kaa_gateway.wire.certificate import ClientCertificate

DIGEST_SIZE: int

def digest_of(
    key: bytes, user_name: str, password: bytes | None, certificate: ClientCertificate | None
) -> bytes: ...
