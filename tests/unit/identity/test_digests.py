"""The digests by which credentials are found again."""

import pytest
from kaa_gateway.identity.digests import DIGEST_SIZE, digest_of
from kaa_gateway.wire.certificate import ClientCertificate

KEY = bytes(range(32))
CERTIFICATE = ClientCertificate("CN=ca", "17", "CN=device", "device", None)
USUAL = (KEY, "alice", b"secret", CERTIFICATE)


def test_the_same_credentials_have_the_same_digest() -> None:
    digest = digest_of(*USUAL)
    assert digest == digest_of(KEY, "alice", b"secret", ClientCertificate(*CERTIFICATE))
    assert len(digest) == DIGEST_SIZE


@pytest.mark.parametrize(
    "other",
    [
        (bytes(32), "alice", b"secret", CERTIFICATE),
        (KEY, "alic", b"esecret", CERTIFICATE),
        (KEY, "alicesecret", None, CERTIFICATE),
        (KEY, "alice", None, CERTIFICATE),
        (KEY, "alice", b"secret", None),
        *((KEY, "alice", b"secret", CERTIFICATE._replace(**{name: "x"})) for name in CERTIFICATE._fields),
        (KEY, "alice", b"secret", CERTIFICATE._replace(common_name=None, subject="CN=devicedevice")),
    ],
)
def test_credentials_that_differ_in_anything_have_another(
    other: tuple[bytes, str, bytes | None, ClientCertificate | None],
) -> None:
    assert digest_of(*other) != digest_of(*USUAL)
