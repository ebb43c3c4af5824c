"""Connects the link alone, without a worker: to a NATS server, with TLS and credentials."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kaa_gateway.bus.connector import Connector, Credentials, TlsOptions
from kaa_gateway.bus.control import Control
from kaa_gateway.bus.link import Link

from tests.support.esp import until


@asynccontextmanager
async def connecting(
    *urls: str, tls: TlsOptions | None = None, credentials: Credentials | None = None
) -> AsyncIterator[tuple[Link, Connector]]:
    """Yield a link that a connector tries to connect to one of `urls`, in this order."""
    link = Link(
        asyncio.get_running_loop(),
        ("subject",),
        1024 * 1024,
        10.0,
        lambda sentence: connector.on_lost(sentence),  # noqa: PLW0108 - there is no connector yet
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "shuffle", lambda servers: None)
        connector = Connector(link, urls, name="test", tls=tls or TlsOptions(), credentials=credentials)
    connector.start()
    try:
        yield link, connector
    finally:
        await connector.stop()


@asynccontextmanager
async def control_of(
    *urls: str, tls: TlsOptions | None = None, credentials_file: Path | None = None
) -> AsyncIterator[Control]:
    """Yield a control connection that is tried to the servers at `urls`."""
    control = Control(urls, name="test control", tls=tls or TlsOptions(), credentials_file=credentials_file)
    control.start()
    try:
        yield control
    finally:
        await control.stop()


async def up(link: Link) -> None:
    """Return when the link is connected."""
    await until(lambda: link.ready, "the connection")


def user_key() -> tuple[str, Any]:
    """Return a new user seed, as `nsc` writes it, and the key pair."""
    private = Ed25519PrivateKey.generate().private_bytes_raw()
    data = bytes([nkeys.PREFIX_BYTE_SEED | nkeys.PREFIX_BYTE_USER >> 5, (nkeys.PREFIX_BYTE_USER & 31) << 3])
    data += private
    seed = base64.b32encode(data + nkeys.crc16(data).to_bytes(2, "little")).rstrip(b"=")
    return seed.decode(), nkeys.from_seed(bytearray(seed))


def write_creds(path: Path, jwt: str, seed: str) -> Path:
    """Write a credentials file as `nsc` does, and return its path."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return path
