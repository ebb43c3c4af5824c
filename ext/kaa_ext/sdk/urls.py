"""The URLs of NATS servers, as users give them."""

import os
from urllib.parse import urlsplit

DEFAULT_NATS_URL = "nats://localhost:4222"


def nats_urls(text: str) -> list[str]:
    """Return the server URLs in a comma-separated list.

    Raise ValueError, whose message does not show credentials, for a list that is empty or wrong.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("no NATS URL given")
    urls = [name if "://" in name else f"nats://{name}" for name in names]
    for url in urls:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(f"NATS URL {masked(url)}: expected nats://host:port or tls://host:port")
    return urls


def urls_of_environment() -> list[str]:
    """Return the servers in NATS_URLS; without it, the server of this machine."""
    return nats_urls(os.environ.get("NATS_URLS") or DEFAULT_NATS_URL)


def masked(url: str) -> str:
    """Return the URL without its credentials, for a log line."""
    scheme, separator, rest = url.rpartition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{'***' if credentials else ''}{at}{host}"
