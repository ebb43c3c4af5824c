"""A headless Chromium, driven over the Chrome DevTools Protocol. No wait for it is without a limit."""

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PROGRAM = "chromium"
START_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
POLL_S = 0.1
LOG_SHOWN = 2000
DESKTOP = (1200, 1000)
PHONE = (390, 844)
"""Sizes of windows, in pixels."""

needs_chromium = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason="Chromium is not installed (apt-get install chromium)"
)


class ChromiumError(AssertionError):
    """Chromium has ended, or closed its connection, while a test needs it."""


class Browser:
    """The process."""

    def __init__(self, profile: Path) -> None:
        self._log = profile / "log"
        self._profile = profile
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    # The kernel ends it when the tests' process dies.
                    *(
                        "setpriv",
                        "--pdeathsig",
                        "KILL",
                        PROGRAM,
                        "--headless=new",
                        "--no-sandbox",
                        "--disable-gpu",
                    ),
                    *("--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
                    *(
                        f"--user-data-dir={profile}",
                        f"--window-size={DESKTOP[0]},{DESKTOP[1]}",
                        "about:blank",
                    ),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def check(self) -> None:
        """Raise ChromiumError if it does not run any more."""
        if (code := self._process.poll()) is not None:
            log = self._log.read_text(errors="replace")[-LOG_SHOWN:]
            raise ChromiumError(f"Chromium has ended with {code}:\n{log}")

    async def debugging_port(self) -> int:
        """Return the port that it has chosen and written down."""
        file = self._profile / "DevToolsActivePort"
        async with asyncio.timeout(START_TIMEOUT_S):
            while not file.exists() or not file.read_text():
                self.check()
                await asyncio.sleep(POLL_S)
        return int(file.read_text().splitlines()[0])

    def end(self) -> None:
        """End it, by SIGKILL if SIGTERM does not help. Blocks for as long as that takes."""
        self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_TIMEOUT_S)


class Page:
    """One page."""

    def __init__(self, browser: Browser, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.browser = browser
        self._socket = socket
        self._ids = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a command of the protocol, and return its result."""
        number = next(self._ids)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await self._socket.send_json({"id": number, "method": method, "params": parameters})
            while True:
                message = await self._socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    self.browser.check()
                    raise ChromiumError(f"Chromium has closed the connection: {message}")
                answer = message.json()
                if answer.get("id") == number:
                    assert "error" not in answer, answer["error"]
                    result: dict[str, Any] = answer["result"]
                    return result

    async def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; an exception in it fails."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                while not await self.value(expression):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"not true within {STEP_TIMEOUT_S:g} s: {expression}") from None

    async def resize(self, size: tuple[int, int]) -> None:
        """Give the window another size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=size == PHONE,
        )  # fmt: skip

    async def prefer(self, scheme: str) -> None:
        """Prefer the colour scheme "light" or "dark"."""
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    async def screenshot(self, file: Path) -> None:
        """Save what the window shows, as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def page_of(url: str) -> AsyncIterator[Page]:
    """Yield a page that shows `url`, in a Chromium of its own."""
    limit = aiohttp.ClientTimeout(total=STEP_TIMEOUT_S)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        try:
            port = await browser.debugging_port()
            async with aiohttp.ClientSession(timeout=limit) as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    targets = await response.json()
                target = next(each for each in targets if each["type"] == "page")
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    socket = await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
                page = Page(browser, socket)
                await page.resize(DESKTOP)
                await page.call("Page.navigate", url=url)
                await page.until(f"document.readyState === 'complete' && location.href === {url!r}")
                yield page
        finally:
            # Without the closing handshake of the WebSocket, for which Chromium would have to be in order.
            browser.end()
