"""Signals that come while a program still imports its modules."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.nats import POLL_S, START_TIMEOUT_S, NatsServer


@pytest.fixture
def launched(nats_server: NatsServer) -> GatewayProcess:
    return GatewayProcess(nats_server.url)


def wait_for_handler(pid: int, number: signal.Signals) -> None:
    """Wait until the process has a handler for a signal: its mask is in /proc, bit 0 is signal 1."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        if int(caught, 16) >> (number - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError(f"no handler for {number.name}")


def has_begun(gateway: GatewayProcess) -> bool:
    """Whether the native modules are there already."""
    return "kaa_gateway" in Path(f"/proc/{gateway.pid}/maps").read_text()


def test_sighup_does_not_end_it(launched: GatewayProcess) -> None:
    launched.launch()
    try:
        wait_for_handler(launched.pid, signal.SIGHUP)
        assert not has_begun(launched)
        os.kill(launched.pid, signal.SIGHUP)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not launched.ready():
            assert launched.running, launched.log
            assert time.monotonic() < deadline
            time.sleep(POLL_S)
        assert launched.stop() == 0
    finally:
        launched.close()


def test_sigterm_ends_it(launched: GatewayProcess) -> None:
    launched.launch()
    try:
        wait_for_handler(launched.pid, signal.SIGTERM)
        assert not has_begun(launched)
        assert launched.stop() == 0
        assert launched.log == ""
    finally:
        launched.close()


def test_sigterm_ends_an_extension(nats_server: NatsServer) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "kaa_ext", "run", "echo", "--nats", nats_server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for_handler(process.pid, signal.SIGTERM)
        assert "uvloop" not in Path(f"/proc/{process.pid}/maps").read_text(), "the commands are not there yet"
        process.terminate()
        output, _ = process.communicate(timeout=START_TIMEOUT_S)
        assert (process.returncode, output) == (0, b"")
    finally:
        process.kill()
        process.wait()
