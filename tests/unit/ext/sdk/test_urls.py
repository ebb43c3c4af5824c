"""NATS URLs of an extension: what is accepted, and what a log line may show."""

import pytest
from kaa_ext.sdk.urls import masked, nats_urls


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("nats://nats:4222", ["nats://nats:4222"]),
        ("nats://a:1, tls://u:p@b:2 ,", ["nats://a:1", "tls://u:p@b:2"]),
        ("localhost:4222,[::1]:4222", ["nats://localhost:4222", "nats://[::1]:4222"]),
        ("nats://token@host", ["nats://token@host"]),
    ],
)
def test_lists_of_urls(text: str, urls: list[str]) -> None:
    assert nats_urls(text) == urls


@pytest.mark.parametrize(
    "text", ["", " , ", "nats://", "http://u:pw@host", "nats://u:pw@host:x", "nats://h:99999"]
)
def test_refused_urls_are_named_without_credentials(text: str) -> None:
    with pytest.raises(ValueError, match="NATS URL") as caught:
        nats_urls(text)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://user:p@ss@host:4222", "nats://***@host:4222"),
        ("nats://token@host", "nats://***@host"),
        ("user:pw@host", "***@host"),
        ("tls://host:4222", "tls://host:4222"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
