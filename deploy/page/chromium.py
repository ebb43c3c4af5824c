"""A headless Chromium, driven over the Chrome DevTools Protocol."""

import asyncio
import base64
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

START_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 60.0
POLL_S = 0.1
DESKTOP = (1200, 1000)
PHONE = (390, 844)
"""Sizes of windows, in pixels."""


class Page:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while True:
                answer = await self._socket.receive_json()
                if answer.get("id") == number:
                    assert "error" not in answer, answer["error"]
                    result: dict[str, Any] = answer["result"]
                    return result

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth now; an exception in it fails."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while not await self.value(expression):
                await asyncio.sleep(POLL_S)

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
    """A Chromium that shows `url`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            "chromium",
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
            *(
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                f"--window-size={DESKTOP[0]},{DESKTOP[1]}",
            ),
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _debugging_port(Path(profile))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    targets = await response.json()
                target = next(each for each in targets if each["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    await page.resize(DESKTOP)
                    await page.call("Page.navigate", url=url)
                    await page.until(f"document.readyState === 'complete' && location.href === {url!r}")
                    yield page
        finally:
            process.terminate()
            await process.wait()


async def _debugging_port(profile: Path) -> int:
    """The port that Chromium has chosen and written down."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(START_TIMEOUT_S):
        while not file.exists() or not file.read_text():
            await asyncio.sleep(POLL_S)
    return int(file.read_text().splitlines()[0])
