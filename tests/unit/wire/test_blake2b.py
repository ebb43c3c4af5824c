"""BLAKE2b beside hashlib, which has it too."""

import hashlib

import pytest
from kaa_gateway.wire import blake2b


def test_the_example_of_its_specification() -> None:
    # RFC 7693 appendix A
    assert blake2b.digest(b"abc", 64).hex() == (
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )


@pytest.mark.parametrize("size", [*range(260), 1000, 1024, 65_535])
def test_messages_of_all_sizes_around_a_block(size: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(size))
    for digest_size in (1, 16, 32, 63, 64):
        assert blake2b.digest(data, digest_size) == hashlib.blake2b(data, digest_size=digest_size).digest()


@pytest.mark.parametrize("digest_size", [0, 65, -1])
def test_a_digest_of_another_size_is_refused(digest_size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        blake2b.digest(b"", digest_size)
