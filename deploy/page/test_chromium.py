"""A test ends when its browser has died or hangs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.page import chromium
from deploy.page.chromium import ChromiumError, needs_chromium, page_of
from tests.support.esp import until

pytestmark = needs_chromium

HOLD = """
import asyncio
from deploy.page.chromium import page_of

async def hold() -> None:
    async with page_of("about:blank") as page:
        print(page.browser.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_the_death_of_chromium_ends_a_wait() -> None:
    async with page_of("about:blank") as page:
        os.kill(page.browser.pid, signal.SIGKILL)
        with pytest.raises((ChromiumError, ConnectionError)):
            await page.until("false")


async def test_a_chromium_that_hangs_ends_a_wait_and_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "END_TIMEOUT_S", 1.0)
    async with page_of("about:blank") as page:
        monkeypatch.setattr(chromium, "STEP_TIMEOUT_S", 1.0)
        os.kill(page.browser.pid, signal.SIGSTOP)
        with pytest.raises(AssertionError, match="not true within"):
            await page.until("true")
    assert not is_running(page.browser.pid)


async def test_a_chromium_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "PROGRAM", "false")
    with pytest.raises(ChromiumError, match="ended with 1"):
        async with page_of("about:blank"):
            pass


async def test_chromium_dies_with_the_tests() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        assert is_running(pid)
        holder.kill()
    await until(lambda: not is_running(pid), "Chromium to end")
