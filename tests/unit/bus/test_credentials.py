"""Seeds of nkeys: the one that NATS's documentation shows, and texts that are none."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kaa_gateway.bus.credentials import USER_PREFIX, user_key

from tests.support.links import encode_nkey, encode_seed, user_seed

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
ACCOUNT_PREFIX = 0


def test_the_example_of_the_documentation() -> None:
    public = user_key(SEED).public_key().public_bytes_raw()
    assert encode_nkey(bytes([USER_PREFIX]) + public) == PUBLIC


def test_a_seed_of_our_own() -> None:
    seed, public = user_seed()
    assert seed.startswith("SU")
    assert user_key(seed).public_key() == public


@pytest.mark.parametrize(
    "seed",
    [
        "",
        "SU",
        SEED[:-1],
        SEED + "A",
        SEED.replace("H", "I"),
        SEED.lower(),
        SEED.replace("A", "1"),
        PUBLIC,
        encode_seed(Ed25519PrivateKey.from_private_bytes(bytes(32)), ACCOUNT_PREFIX),
        base64.b32encode(bytes(36)).decode(),
    ],
)
def test_what_is_no_seed_of_a_user(seed: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - base64's own is one as well
        user_key(seed)
