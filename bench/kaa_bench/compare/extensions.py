"""Runs an extension service for the bench: one of `kaa-ext run`, or one that does the same with other libraries.

All take the requests of the bench's extension instance, so only one may run at a time.
"""

import importlib.util
import sys

import yaml

from kaa_bench.packets import EXTENSION
from kaa_bench.processes import HOST, NatsServer, Server

READY = "ready"
"""The line that a service prints when it has subscribed."""


class ExtensionServer(Server):
    """The process of an extension service."""

    name = "extension"
    title: str

    def __init__(self, nats: NatsServer) -> None:
        super().__init__()
        self.nats_url = f"nats://{HOST}:{nats.ports[0]}"

    @staticmethod
    def is_installed() -> bool:
        """Return whether its libraries are installed."""
        return True

    def _ready(self) -> bool:
        return READY in self.output()


class KaaExt(ExtensionServer):
    """A reference service on the SDK."""

    title = "kaa-ext"

    def __init__(
        self,
        nats: NatsServer,
        kind: str,
        *beside: str,
        settings: dict[str, object] | None = None,
        durable: bool = False,
    ) -> None:
        """`beside` are services in the same process; `settings` is the file of `--settings`."""
        super().__init__(nats)
        self._services = (f"{EXTENSION}={kind}", *beside)
        self._settings = settings
        self._durable = durable

    def command(self) -> list[str]:
        """See `Server.command`."""
        options = ["--nats", self.nats_url, "--log-level", "warning"]
        if self._settings is not None:
            path = self.directory / "services.yml"
            path.write_text(yaml.safe_dump(self._settings))
            options += ["--settings", str(path)]
        if self._durable:
            options += ["--durable", EXTENSION]
        return [sys.executable, "-P", "-m", "kaa_ext", "run", *self._services, *options]


class PlainExtension(ExtensionServer):
    """A service without the SDK: one of the modules in kaa_bench/peers."""

    module: str

    def __init__(self, nats: NatsServer, kind: str, *, durable: bool = False) -> None:
        """`kind` is one of kaa_bench/peers/plain_services.py."""
        super().__init__(nats)
        self._arguments = [kind, *(["--durable"] if durable else [])]

    def command(self) -> list[str]:
        """See `Server.command`."""
        return [sys.executable, "-P", "-m", self.module, self.nats_url, EXTENSION, *self._arguments]


class NatsPyExtension(PlainExtension):
    """A service on nats-py and fastavro."""

    title = "nats-py + fastavro"
    module = "kaa_bench.peers.nats_extension"


class FastStreamExtension(PlainExtension):
    """A service on FastStream and fastavro."""

    title = "FastStream + fastavro"
    module = "kaa_bench.peers.faststream_extension"

    @staticmethod
    def is_installed() -> bool:
        """See `ExtensionServer.is_installed`."""
        return importlib.util.find_spec("faststream") is not None
