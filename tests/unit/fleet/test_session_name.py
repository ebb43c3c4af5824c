"""The name of a session in the directory: all workers, whatever their version, must give a client the same one."""

import hashlib

import pytest
from kaa_gateway.fleet.directory import session_name


@pytest.mark.parametrize(
    ("kind", "parts", "text"),
    [
        ("session", ("", "c"), b"session 0,1 c"),
        ("session", ("alice", "meter-17"), b"session 5,8 alicemeter-17"),
        ("session", ("käse", "\U0001f600"), "session 4,1 käse\U0001f600".encode()),
        ("session", ("", "\ud800"), b"session 0,1 \xed\xa0\x80"),
        ("will", ("c", "app_v1", "token"), b"will 1,6,5 capp_v1token"),
        ("session", ("p" * 1000, "c" * 65535), b"session 1000,65535 " + b"p" * 1000 + b"c" * 65535),
    ],
)
def test_it_is_a_digest_of_the_sizes_and_the_parts(kind: str, parts: tuple[str, ...], text: bytes) -> None:
    assert session_name(kind, *parts) == hashlib.blake2b(text, digest_size=16).hexdigest()
