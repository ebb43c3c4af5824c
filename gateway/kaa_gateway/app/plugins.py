"""The classes and settings of plug-ins, from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.app import bridge
from kaa_gateway.config import load
from kaa_gateway.errors import ConfigError
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.plugins.loading import load_protocol, read_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from kaa_gateway.config import Config
    from kaa_gateway.config.keys import PluginProtocol, Transports
    from kaa_gateway.identity.clients import Authenticator
    from kaa_gateway.plugins.protocol import DeviceProtocol
    from kaa_gateway.plugins.server import PluginServer
    from kaa_gateway.wire.certificate import ClientCertificate


def class_of(name: str, settings: PluginProtocol) -> type[DeviceProtocol]:
    """Return the class of a protocol. Raises ConfigError."""
    return load_protocol(f"kaa.kpc.transports.protocols.{name}.protocol", settings.protocol or name)


def options_of(name: str, settings: PluginProtocol) -> Mapping[str, Any]:
    """Return the options of a protocol, with their defaults. Raises ConfigError."""
    return read_options(
        f"kaa.kpc.transports.protocols.{name}.options", class_of(name, settings), settings.options
    )


def apply_settings(server: PluginServer, settings: PluginProtocol) -> None:
    """Give a server its settings. Raises ConfigError."""
    server.configure(
        options_of(server.name, settings),
        app_version=settings.app_version or "",
        max_message_size=settings.max_message_size,
        login_timeout=settings.login_timeout,
        idle_timeout=settings.idle_timeout,
    )


def certificate_clients(authenticator: Authenticator) -> Callable[[ClientCertificate | None], Client]:
    """Return the function that makes a client of a certificate: its endpoint is identified by a token."""

    def client_of(certificate: ClientCertificate | None) -> Client:
        # No transport of this name demands credentials, so nobody is asked.
        client = authenticator.authenticate(Presentation("plugin", certificate=certificate))
        assert isinstance(client, Client)
        return client

    return client_of


def dtls_clients(authenticator: Authenticator) -> Callable[[str | None, ClientCertificate | None], Client]:
    """Return the function that admits the client of a DTLS session: its key or certificate is good."""
    client_of = certificate_clients(authenticator)
    return lambda psk_identity, certificate: (
        Client(f"psk:{psk_identity}") if psk_identity is not None else client_of(certificate)
    )


def load_checked(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Load a configuration whose protocols and bridge can be used. Raises ConfigError."""
    config = load(path, environ)
    if found := [*problems(config.transports), *bridge.problems(config.bridge)]:
        raise ConfigError("config_invalid", "\n".join(found))
    return config


def problems(transports: Transports) -> list[str]:
    """Return what is wrong with the protocols of plug-ins: at most one line for each."""
    found = []
    for name, settings in transports.protocols.items():
        try:
            options_of(name, settings)
        except ConfigError as error:
            found.append(error.detail)
    return found
