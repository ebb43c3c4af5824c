"""Nobody reads what a process logs: it goes on, whatever the cause, at its start and later."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, POLL_S, START_TIMEOUT_S, NatsServer

REDIRECTIONS = ["2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full"]
NatsRestart = Callable[[], None]


class Redirected(GatewayProcess):
    """A gateway whose output goes where a shell's redirection says, or into a pipe of the test's."""

    def __init__(self, nats_url: str, redirection: str, workers: int) -> None:
        super().__init__(nats_url, {"kaa": {"kpc": {"workers": workers}}})
        self._redirection = redirection

    def launch(self) -> None:
        command = f'exec "$0" -P -m kaa_gateway run {self._redirection}'
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command, sys.executable],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout


def refused(gateway: GatewayProcess) -> int:
    """The status of a request that is logged."""
    url = f"http://{HOST}:{gateway.http_port}/kp1/unknown/dcx/token/json"
    return httpx.post(url, content=b"{}", timeout=20).status_code


def goes_on(gateway: GatewayProcess, nats_server: NatsServer) -> None:
    """It answers, and is ready again after NATS was away."""
    assert refused(gateway) == 404
    nats_server.kill()
    until(lambda: not gateway.ready())
    nats_server.start()
    until(gateway.ready)
    assert refused(gateway) == 404
    assert gateway.running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_a_gateway_without_a_log(nats_server: NatsServer, redirection: str, workers: int) -> None:
    with Redirected(nats_server.url, redirection, workers) as gateway:
        goes_on(gateway, nats_server)
        assert gateway.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_whose_log_reader_goes_away(nats_server: NatsServer, workers: int) -> None:
    with Redirected(nats_server.url, "", workers) as gateway:
        gateway.output.close()
        goes_on(gateway, nats_server)
        if workers == 1:
            assert gateway.count("log_lines_dropped") > 0
        assert gateway.stop() == 0


def test_a_gateway_whose_log_reader_reads_nothing(nats_server: NatsServer) -> None:
    with Redirected(nats_server.url, "", 1) as gateway:
        # The pipe is filled by its other end, which the test has as well.
        descriptor = os.open(f"/proc/self/fd/{gateway.output.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(descriptor, b"x" * select.PIPE_BUF)
            goes_on(gateway, nats_server)
            assert gateway.count("log_lines_dropped") > 0
            assert gateway.stop() == 0
        finally:
            os.close(descriptor)


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(redirection: str, *words: str) -> subprocess.Popen[bytes]:
        line = f'exec "$0" "$@" {redirection}'
        program = Path(sys.executable).parent / words[0]
        process = subprocess.Popen(
            ["/bin/sh", "-c", line, program, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("redirection", ["", *REDIRECTIONS])
def test_extensions_and_a_simulator_go_on(
    shared_nats: NatsServer,
    shared_gateway: GatewayProcess,
    command: Callable[..., subprocess.Popen[bytes]],
    redirection: str,
) -> None:
    extension = command(redirection, "kaa-ext", "run", "echo", "--nats", shared_nats.url)
    if not redirection:
        assert extension.stdout is not None
        extension.stdout.close()
    url = f"http://{HOST}:{shared_gateway.http_port}/kp1/app_v1/echo/token"
    with httpx.Client(timeout=20) as client:
        until(lambda: client.post(url, content=b"{}").status_code == 200)
    simulator = command(
        redirection,
        *("kaa-sim", "load", "mqtt", "--host", HOST, "--port", str(shared_gateway.mqtt_port)),
        *("--connections", "2", "--messages", "10", "--rate", "100"),
        *("--app-version", "app_v1", "--extension", "echo"),
    )
    if not redirection:
        assert simulator.stdout is not None
        simulator.stdout.close()
    assert simulator.wait(60) == 0
    extension.send_signal(signal.SIGTERM)
    assert extension.wait(60) == 0
