"""The identity provider `static`: tokens with their endpoints, and clients, from a file that is read at the start."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kaa_gateway.errors import IdentityError
from kaa_gateway.files import wait_if_fresh
from kaa_gateway.identity import passwords
from kaa_gateway.identity.client_provider import CREDENTIALS_REJECTED
from kaa_gateway.identity.clients import Client
from kaa_gateway.identity.provider import TOKEN_REJECTED, Identity
from kaa_gateway.identity.static_file import StaticFile, read_static_file

if TYPE_CHECKING:
    from pathlib import Path

    from kaa_gateway.bus.requests import Requests
    from kaa_gateway.identity.client_provider import Credentials

CHECKS_AT_ONCE = 2
"""Passwords that are checked at one time; each takes a thread, and its memory."""


async def _read_when_complete(path: Path) -> StaticFile:
    """Read a file, which may be being written at this moment."""
    await asyncio.to_thread(wait_if_fresh, path)
    return read_static_file(path)


class StaticProvider:
    """Accepts the tokens of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identities: dict[tuple[str, str], Identity] = {}

    async def start(self) -> None:
        """Read the file. Raises `ConfigError`, whose `detail` lists all that is wrong, one line each."""
        self._identities = (await _read_when_complete(self._path)).identities

    async def stop(self) -> None:
        """Forget the file."""
        self._identities = {}

    def scope(self, app_version_name: str) -> str:
        """Return the application version: the file lists tokens by it."""
        return app_version_name

    def known(self, scope: str, token: str) -> Identity:
        """Return the endpoint of a token in this application version."""
        identity = self._identities.get((scope, token))
        if identity is None:
            raise IdentityError(401, TOKEN_REJECTED)
        return identity

    async def resolve(self, scope: str, token: str) -> Identity:
        """Return the same as `known`."""
        return self.known(scope, token)


class StaticClients:
    """Admits the clients of a file."""

    requests: tuple[Requests, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = StaticFile({}, {}, {})
        self._threads = ThreadPoolExecutor(CHECKS_AT_ONCE, "password")
        # Checked for unknown user names, so that the time of a check does not tell which names are known.
        self._nobody = passwords.hashed(os.urandom(16))

    async def start(self) -> None:
        """Read the file, as `StaticProvider` does."""
        self._file = await _read_when_complete(self._path)

    async def stop(self) -> None:
        """Forget the file."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._file = StaticFile({}, {}, {})

    async def check(self, credentials: Credentials) -> Client:
        """Return the client of these credentials; a password is checked in a thread."""
        certificate = credentials.certificate
        if certificate is not None:
            found = self._file.certificates.get((certificate.issuer, certificate.serial_number))
            if found is None:
                raise IdentityError(401, CREDENTIALS_REJECTED)
            return Client(
                f"static:certificate {certificate.serial_number} of {certificate.issuer}", found.tenant
            )
        client = self._file.clients.get(credentials.user_name)
        hash_ = self._nobody if client is None else client.password_hash
        assert hash_ is not None
        right = await asyncio.get_running_loop().run_in_executor(
            self._threads, passwords.matches, credentials.password or b"", hash_
        )
        if client is None or not right:
            raise IdentityError(401, CREDENTIALS_REJECTED)
        return Client(f"static:user {credentials.user_name}", client.tenant)
