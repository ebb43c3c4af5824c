"""The live page in a real browser, over a real gateway with real devices: `make test-page` (needs Chromium).

With PAGE_SCREENSHOTS, a directory, it saves what it saw, which is how docs/live-page*.png were made.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kaa_gateway.tasks import end_tasks

from deploy.page.chromium import DESKTOP, PHONE, Page, needs_chromium, page_of
from tests.support.cluster import Cluster
from tests.support.gateway import EXTENSIONS, GatewayProcess
from tests.support.mqtt import MqttPeer, Publish, mqtt_client
from tests.support.nats import HOST, NatsServer

pytestmark = needs_chromium

TOKEN = "a-token-of-24-characters"
TEXT_OF = "((id) => document.getElementById(id).textContent)"
LINE = "document.querySelector('#tile-in polyline').getAttribute('points')"
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
        await end_tasks([task])


async def test_the_page_shows_what_happens(nats_server: NatsServer) -> None:
    with (
        GatewayProcess(nats_server.url, replica("kpc-1")) as gateway,
        GatewayProcess(nats_server.url, replica("kpc-2")),
    ):
        url = f"http://{HOST}:{gateway.admin_port}/"
        async with (
            Cluster(nats_server.url, "dcx"),
            mqtt_client(gateway.mqtt_port, "greenhouse-7") as device,
            page_of(url) as page,
        ):
            await page.until(f"{TEXT_OF}('state') === 'serving'")
            async with load(device):
                await page.until(f"{TILES}.length === 6")
                await page.until("Number.parseFloat(document.querySelector('#tile-in b').textContent) > 0")
                await page.until(f"/no_route/.test({TEXT_OF}('events'))")
                await page.until("/ms|µs| s/.test(document.querySelector('#tile-confirmed b').textContent)")
                assert "mqtt" in await page.value(f"{TEXT_OF}('protocols')")
                assert await page.value("document.querySelectorAll('#health .good').length") >= 3
                # The history has a point after its first period.
                await page.until(f"hour.length > 0 && {LINE}.split(' ').length > 1")
                # A reason is explained where it stands.
                await page.value("document.querySelector('#events .reason').click()")
                assert "allowed-extension-instances" in await page.value(f"{TEXT_OF}('dialog')")
                await page.value("document.querySelector('#dialog button').click()")
                if directory := os.environ.get("PAGE_SCREENSHOTS"):
                    await take_screenshots(page, Path(directory))


async def take_screenshots(page: Page, directory: Path) -> None:
    """Save the page as docs/live-page.md shows it, at two sizes, light and dark."""
    await look_for(page, "greenhouse-7")
    await page.until("document.querySelectorAll('.session[open]').length === 1")
    for name, size in (("", DESKTOP), ("-phone", PHONE)):
        await page.resize(size)
        for scheme, ending in (("light", ""), ("dark", "-dark")):
            await page.prefer(scheme)
            await asyncio.sleep(0.5)
            await page.screenshot(directory / f"live-page{name}{ending}.png")


async def look_for(page: Page, client: str) -> None:
    """Look for a client, as a person does: write its name, press Find."""
    await page.value(
        f"document.getElementById('what').value = '{client}', document.querySelector('#find button').click()"
    )


async def test_a_session_is_ended_after_a_question(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        async with (
            mqtt_client(gateway.mqtt_port, "unwanted") as unwanted,
            page_of(f"http://{HOST}:{gateway.admin_port}/") as page,
        ):
            await look_for(page, "unwanted")
            await page.until("document.querySelectorAll('.session button').length === 1")
            details = await page.value(f"{TEXT_OF}('sessions')")
            assert "connected" in details
            assert HOST in details
            # No is no.
            await page.value("document.querySelector('.session button').click()")
            await page.value("document.querySelector('#dialog button').click()")
            await page.value("document.querySelector('.session button').click()")
            assert "Disconnect unwanted?" in await page.value(f"{TEXT_OF}('dialog')")
            await page.value("document.getElementById('dialog-yes').click()")
            assert await unwanted.until_closed() == []
            await page.until("document.querySelectorAll('.session').length === 0")


async def test_each_extension_has_a_mark(nats_server: NatsServer) -> None:
    """Grey before anything was sent, red while no replica runs, green when one has taken a message."""
    mark = "([...document.querySelectorAll('#health li')].find((each) => each.textContent.startsWith('dcx'))"
    with GatewayProcess(nats_server.url) as gateway:
        async with (
            mqtt_client(gateway.mqtt_port, "device") as device,
            page_of(f"http://{HOST}:{gateway.admin_port}/") as page,
        ):
            await page.until(f"{mark} || {{}}).className === 'idle'")
            names = "[...document.querySelectorAll('#health .idle')].map((each) => each.textContent.split(':')[0])"
            assert sorted(await page.value(names)) == sorted(EXTENSIONS)
            await device.send(publish(1))
            await page.until(f"{mark} || {{}}).className === 'bad'")
            async with Cluster(nats_server.url, "dcx"), load(device):
                await page.until(f"{mark} || {{}}).className === 'good'")
            assert await page.value("document.querySelectorAll('#health .bad').length") == 0


async def test_all_replicas_are_in_one_view(nats_server: NatsServer) -> None:
    """The page of one gateway shows the sessions of the other, which has two workers, and ends one of them."""
    with (
        GatewayProcess(nats_server.url, replica("kpc-1")) as gateway,
        GatewayProcess(nats_server.url, replica("kpc-2", workers=2)) as other,
    ):
        async with (
            mqtt_client(gateway.mqtt_port, "here"),
            mqtt_client(other.mqtt_port, "there") as there,
            page_of(f"http://{HOST}:{gateway.admin_port}/") as page,
        ):
            rows = "[...document.querySelectorAll('#replicas tr')].map((row) => row.cells[0].textContent)"
            await page.until(f"{rows}.join() === 'kpc-1,kpc-2-0,kpc-2-1'")
            assert await page.value("document.querySelectorAll('#replicas .good').length") == 3
            await page.until("document.querySelectorAll('.session').length === 2")
            await look_for(page, "there")
            await page.until("document.querySelectorAll('.session[open]').length === 1")
            assert re.search(r"Replicakpc-2-[01]", await page.value(f"{TEXT_OF}('sessions')"))
            await page.value("document.querySelector('.session button').click()")
            await page.value("document.getElementById('dialog-yes').click()")
            assert await there.until_closed() == []
            await page.until("document.querySelectorAll('.session').length === 0")
            # Why it has ended is known too, and where.
            await look_for(page, "there")
            ended = f"/kpc-2-[01]disconnected_by_operator/.test({TEXT_OF}('endings'))"
            await page.until(f"document.getElementById('ended').open && {ended}")
            # A gateway that has ended is left out.
            other.terminate()
            await page.until(f"{rows}.join() === 'kpc-1'")


def replica(name: str, workers: int = 1) -> dict[str, Any]:
    """The configuration of a replica with this name."""
    return {"service": {"instance": {"replica": {"id": name}}}, "kaa": {"kpc": {"workers": workers}}}


async def test_it_says_why_a_device_is_not_connected(nats_server: NatsServer) -> None:
    """Three clicks: Find, the reason, and that was it."""
    with GatewayProcess(nats_server.url) as gateway:
        async with page_of(f"http://{HOST}:{gateway.admin_port}/") as page:
            async with (
                mqtt_client(gateway.mqtt_port, "pump-3", clean_session=False) as first,
                mqtt_client(gateway.mqtt_port, "pump-3", clean_session=False),
            ):
                await first.until_closed()
            # Its connection has ended a moment ago, which the gateway may not have noticed at the first try.
            async with asyncio.timeout(30):
                while not await page.value(f"/not connected/.test({TEXT_OF}('found'))"):
                    await look_for(page, "pump-3")
                    await asyncio.sleep(0.5)
            await page.until(
                f"document.getElementById('ended').open && /mqtt_taken_over/.test({TEXT_OF}('endings'))"
            )
            await page.value(
                "[...document.querySelectorAll('#endings .reason')]"
                ".find((each) => each.textContent === 'mqtt_taken_over').click()"
            )
            assert "with the same client identifier" in await page.value(f"{TEXT_OF}('dialog')")


async def test_more_sessions_are_added_below(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(60):
                await stack.enter_async_context(mqtt_client(gateway.mqtt_port, f"many-{number}"))
            page = await stack.enter_async_context(page_of(f"http://{HOST}:{gateway.admin_port}/"))
            await page.until("document.querySelectorAll('.session').length === 50")
            await page.value("document.getElementById('more').click()")
            await page.until("document.querySelectorAll('.session').length === 60")
            assert await page.value("document.getElementById('more').hidden")


async def test_it_fits_a_phone(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url) as gateway:
        async with (
            mqtt_client(gateway.mqtt_port, "x" * 200),
            page_of(f"http://{HOST}:{gateway.admin_port}/") as page,
        ):
            await page.resize(PHONE)
            await page.until(f"{TILES}.length === 6 && document.querySelectorAll('.session').length === 1")
            await page.value("document.querySelector('.session').open = true")
            assert await page.value("document.documentElement.scrollWidth") <= PHONE[0]


async def test_the_page_asks_for_the_token(nats_server: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with GatewayProcess(nats_server.url, {"server": {"token-file": str(file)}}) as gateway:
        async with page_of(f"http://{HOST}:{gateway.admin_port}/") as page:
            await page.until(f"/token/.test({TEXT_OF}('complaint'))")
            await page.value(
                f"document.getElementById('token').value = '{TOKEN}',"
                "document.querySelector('#find button').click()"
            )
            await page.until(f"{TEXT_OF}('complaint') === ''")
            await page.until(f"{TEXT_OF}('found') === 'No sessions.'")
