"""Connects the link alone, without a worker: to a NATS server, with TLS and credentials."""

import asyncio
import base64
import binascii
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from kaa_gateway.bus.connector import Connector, TlsOptions
from kaa_gateway.bus.control import Control
from kaa_gateway.bus.credentials import SEED_PREFIX, USER_PREFIX, Credentials
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
    *urls: str, tls: TlsOptions | None = None, credentials: Credentials | None = None
) -> AsyncIterator[Control]:
    """Yield a control connection that is tried to the servers at `urls`."""
    control = Control(urls, name="test control", tls=tls or TlsOptions(), credentials=credentials)
    control.start()
    try:
        yield control
    finally:
        await control.stop()


async def up(link: Link) -> None:
    """Return when the link is connected."""
    await until(lambda: link.ready, "the connection")


def user_seed() -> tuple[str, Ed25519PublicKey]:
    """Return a new user seed, as `nsc` writes it, and the public key."""
    key = Ed25519PrivateKey.generate()
    return encode_seed(key, USER_PREFIX), key.public_key()


def encode_seed(key: Ed25519PrivateKey, prefix: int) -> str:
    """Return the seed of a private key, as nkeys writes it."""
    head = bytes([SEED_PREFIX | prefix >> 5, (prefix & 31) << 3])
    return encode_nkey(head + key.private_bytes_raw())


def encode_nkey(data: bytes) -> str:
    """Return prefix and key with their checksum, as nkeys writes them."""
    checksum = binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(data + checksum).rstrip(b"=").decode()


def write_creds(path: Path, jwt: str, seed: str) -> Path:
    """Write a credentials file as `nsc` does, and return its path."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return path
