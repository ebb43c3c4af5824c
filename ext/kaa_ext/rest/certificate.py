"""The certificate of the REST API, which is read again when its files change. A connection keeps what it began with."""

import asyncio
import ssl
from pathlib import Path

import structlog
from kaa_gateway.errors import ConfigError
from kaa_gateway.files import complete, states_of

log = structlog.get_logger()

WATCH_PERIOD_S = 5.0
"""Seconds between two looks at the files."""


class Certificate:
    """A certificate and its private key, in PEM files. Raise ConfigError if they cannot be used."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._files = [certificate, key]
        self._states = states_of(self._files)
        self.context = self._read()

    async def watch(self) -> None:
        """Read the files again whenever they change, until cancelled. Files that cannot be used are logged."""
        while True:
            await asyncio.sleep(WATCH_PERIOD_S)
            if states_of(self._files) == self._states:
                continue
            self._states = await complete(self._files)
            try:
                self._read()
            except ConfigError as error:
                log.error("changed files cannot be used; going on with the old ones", error=error.detail)
                continue
            # The server keeps its context, and new handshakes use what is loaded into it.
            self.context.load_cert_chain(self._certificate, self._key)
            log.info("read the changed certificate")

    def _read(self) -> ssl.SSLContext:
        """Return a new context with the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
        except ssl.SSLError as error:
            reason = "expected a certificate and its private key without a passphrase, in PEM form"
            raise self._unusable(reason) from error
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        return context

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError("tls_unusable", f"--tls-cert {self._certificate} --tls-key {self._key}: {reason}")


def _no_passphrase() -> str:
    """Keep OpenSSL from asking on the terminal."""
    return ""
