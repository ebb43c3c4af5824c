"""Credentials in an HTTP Authorization field."""

import pytest
from kaa_gateway.identity.clients import basic_credentials


@pytest.mark.parametrize(
    ("field", "credentials"),
    [
        (b"Basic YWxpY2U6c2VjcmV0", ("alice", b"secret")),
        (b"basic  YWxpY2U6OnM=", ("alice", b":s")),
        (b"Basic Og==", ("", b"")),
        (b"Bearer YWxpY2U6c2VjcmV0", (None, None)),
        (b"", (None, None)),
        (None, (None, None)),
    ],
)
def test_basic_credentials(field: bytes | None, credentials: tuple[str | None, bytes | None]) -> None:
    """RFC 7617."""
    assert basic_credentials(field) == credentials


@pytest.mark.parametrize("field", [b"Basic", b"Basic YWxpY2U=", b"Basic %%%", b"Basic /zo="])
def test_malformed_basic_credentials(field: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        basic_credentials(field)
