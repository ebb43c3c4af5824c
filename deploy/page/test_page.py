"""The live page in a real browser, over a real gateway with real devices: `make test-page` (needs Chromium).

With PAGE_SCREENSHOT it saves what it saw, which is how docs/live-page.png was made.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.page.chromium import page_of
from tests.support.cluster import Cluster
from tests.support.gateway import GatewayProcess
from tests.support.mqtt import MqttPeer, Publish, mqtt_client
from tests.support.nats import HOST, NatsServer

TOKEN = "a-token-of-24-characters"
TILES = "[...document.querySelectorAll('.tile')].map((tile) => tile.innerText)"


def publish(number: int) -> Publish:
    """A message of one of many endpoints; one in a hundred is for an application that there is not."""
    version = "app_v9" if number % 100 == 0 else "app_v1"
    return Publish(f"kp1/{version}/dcx/device-{number % 20}/json", b'{"temperature": 21.5}', 0, 0)


@asynccontextmanager
async def load(device: MqttPeer) -> AsyncIterator[None]:
    """A device that sends all the time."""

    async def send() -> None:
        number = 0
        while True:
            await device.send(*(publish(number + i) for i in range(50)))
            number += 50
            await asyncio.sleep(0.02)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_page_shows_what_happens(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        url = f"http://{HOST}:{gateway.admin_port}/"
        async with (
            Cluster(nats_server.url, "dcx"),
            mqtt_client(gateway.mqtt_port, "greenhouse-7") as device,
            mqtt_client(gateway.mqtt_port, "unwanted") as unwanted,
            page_of(url) as page,
        ):
            await page.until("document.getElementById('state').textContent === 'serving'")
            async with load(device):
                await page.until(f"{TILES}.length === 6")
                await page.until("Number.parseFloat(document.querySelector('#tile-in b').textContent) > 0")
                await page.until("/no_route/.test(document.getElementById('events').textContent)")
                await page.until("/ms|µs| s/.test(document.querySelector('#tile-confirmed b').textContent)")
                assert "mqtt" in await page.value("document.getElementById('protocols').textContent")
                if file := os.environ.get("PAGE_SCREENSHOT"):
                    await asyncio.sleep(40)
                    await page.value("document.querySelector('#find button').click()")
                    await page.until("/greenhouse-7/.test(document.getElementById('sessions').textContent)")
                    await page.screenshot(Path(file))
            # Sessions: find one, and end it.
            await page.value(
                "document.getElementById('by').value = 'client', document.getElementById('what').value = 'unwanted',"
                "document.querySelector('#find button').click()"
            )
            await page.until("document.querySelectorAll('#sessions button').length === 1")
            await page.value("document.querySelector('#sessions button').click()")
            assert await unwanted.until_closed() == []
            await page.until("document.querySelectorAll('#sessions button').length === 0")


async def test_the_page_asks_for_the_token(nats_server: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with GatewayProcess(nats_server.url, {"server": {"token-file": str(file)}}) as gateway:
        async with page_of(f"http://{HOST}:{gateway.admin_port}/") as page:
            await page.until("/token/.test(document.getElementById('complaint').textContent)")
            await page.value(
                f"document.getElementById('token').value = '{TOKEN}',"
                "document.querySelector('#find button').click()"
            )
            await page.until("document.getElementById('complaint').textContent === ''")
            await page.until("document.getElementById('sessions').textContent === 'none'")
