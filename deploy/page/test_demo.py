"""The demo page in a real browser, over real services with a real device: `make test-page` (needs Chromium).

With PAGE_SCREENSHOTS, a directory, it saves what it saw, which is how docs/demo-page*.png were made.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from kaa_gateway.tasks import end_tasks

from deploy.page.chromium import DESKTOP, PHONE, Page, needs_chromium, page_of
from tests.support.devices import MqttDevice, mqtt_device
from tests.support.extensions import APPLICATION, running
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer
from tests.support.rest import serving

pytestmark = needs_chromium

DEVICE = "greenhouse-7"
SERVICES = ("cex", "cmx", "dcx", "ecr", "epts")
TOKEN = "a-token-of-24-characters"
SCREENSHOTS = os.environ.get("PAGE_SCREENSHOTS")
SHOWN_S = 420 if SCREENSHOTS else 0
"""How long the device sends before a picture is taken."""
TEXT_OF = "((id) => document.getElementById(id).textContent)"
POINTS = "document.querySelector('#plot .line')?.getAttribute('points').split(' ').length ?? 0"


class Greenhouse:
    """A device that sends samples, applies its configuration and executes commands."""

    def __init__(self, device: MqttDevice) -> None:
        self._device = device
        self.config: Any = None

    async def send(self) -> None:
        number = 0
        while True:
            wave = math.sin(number / 25)
            sample = {
                "temperature": round(21.5 + 2.2 * wave, 2),
                "humidity": round(55 - 6 * wave, 1),
                "fan": wave > 0,
            }
            await self._device.ask("dcx", "/json", json.dumps(sample).encode())
            number += 1
            await asyncio.sleep(0.5)

    async def obey(self) -> None:
        while True:
            found = (await self._device.ask("cmx", "/config/json")).json()
            if found:
                self.config = found["config"]
                applied = {"configId": found["configId"], "statusCode": 200}
                await self._device.ask("cmx", "/applied/json", json.dumps(applied).encode())
            for command in (await self._device.ask("cex", "/command/ventilate")).json():
                result = {
                    "id": command["id"],
                    "statusCode": 200,
                    "payload": {"opened": command["payload"]["percent"]},
                }
                await self._device.ask("cex", "/result/ventilate", json.dumps(result).encode())
            await asyncio.sleep(0.2)


@asynccontextmanager
async def greenhouse(port: int) -> AsyncIterator[Greenhouse]:
    async with mqtt_device(port, DEVICE) as device:
        working = Greenhouse(device)
        tasks = [asyncio.create_task(working.send()), asyncio.create_task(working.obey())]
        try:
            yield working
        finally:
            await end_tasks(tasks)


async def fill(page: Page, **values: str) -> None:
    """Type into fields, as a person does."""
    for field, value in values.items():
        await page.value(
            f"(document.getElementById('{field}').value = {json.dumps(value)},"
            f"document.getElementById('{field}').dispatchEvent(new Event('input')))"
        )


async def refreshes(page: Page, count: int) -> None:
    """Return when the page has asked for the status of the configuration so many times more, and shown it."""
    await page.value(
        "(() => { const before = fetch; window.asked = 0; window.fetch = (url, ...rest) => {"
        " if (/configuration.status/.test(url)) window.asked += 1; return before(url, ...rest); }; })()"
    )
    await page.until(f"window.asked > {count}")


async def picture(page: Page, name: str, size: tuple[int, int], scheme: str) -> None:
    """Check that the page fits a window, and save what it shows if that is wanted."""
    await page.resize(size)
    await page.prefer(scheme)
    await asyncio.sleep(3)
    assert await page.value("document.documentElement.scrollWidth <= innerWidth"), name
    outside = "[...document.querySelectorAll('input, textarea, button, select, svg')].filter((each) =>"
    outside += " each.getBoundingClientRect().right > innerWidth).length"
    assert await page.value(outside) == 0, name
    if SCREENSHOTS:
        await page.screenshot(Path(SCREENSHOTS) / f"{name}.png")


async def test_a_device_is_seen_configured_and_commanded() -> None:
    with NatsServer(jetstream=True) as nats:
        async with running(*SERVICES, nats_url=nats.url), serving(nats.url) as (url, _):
            with GatewayProcess(nats.url, APPLICATION) as gateway:
                async with (
                    greenhouse(gateway.mqtt_port) as device,
                    page_of(f"{url}/demo#{DEVICE}/app_v1") as page,
                ):
                    # Data: a point for each period, the metrics that are numbers or booleans, the last values.
                    await page.until(f"{POINTS} >= 3")
                    assert await page.value("document.getElementById('guard').checkVisibility()") is False
                    names = "[...document.getElementById('metric').options].map((each) => each.value)"
                    assert await page.value(names) == ["fan", "humidity", "temperature"]
                    await page.value(
                        "(document.getElementById('metric').value = 'temperature',"
                        "document.getElementById('metric').dispatchEvent(new Event('change')))"
                    )
                    await page.until(
                        "/^Plot of temperature, /.test(document.getElementById('plot').ariaLabel)"
                    )
                    await page.until(f"/temperature\\d/.test({TEXT_OF}('last'))")
                    assert await page.value(f"{TEXT_OF}('status')") == "No configuration is set."
                    # Configuration: set, got and applied by the device.
                    await fill(page, config='{"interval": 5}')
                    await page.value("document.querySelector('#configuration button').click()")
                    await page.until(f"{TEXT_OF}('status') === 'The device has applied it.'")
                    assert device.config == {"interval": 5}
                    # A command, whose result is shown.
                    await fill(page, type="ventilate", payload='{"percent": 40}')
                    await page.value("document.querySelector('#command button').click()")
                    await page.until("/opened.*40/.test(document.getElementById('commands').textContent)")
                    assert await page.value(f"{TEXT_OF}('complaint')") == ""
                    await asyncio.sleep(SHOWN_S)
                    for name, size, scheme in (
                        ("demo-page", (1100, 860), "light"),
                        ("demo-page-dark", DESKTOP, "dark"),
                        ("demo-page-phone", PHONE, "light"),
                        ("demo-page-phone-dark", PHONE, "dark"),
                    ):
                        await picture(page, name, size, scheme)
                    # What is wrong is said.
                    await fill(page, config="{")
                    await page.value("document.querySelector('#configuration button').click()")
                    await page.until(f"/Invalid JSON/.test({TEXT_OF}('complaint'))")
                    await refreshes(page, 2)
                    assert await page.value(f"/Invalid JSON/.test({TEXT_OF}('complaint'))")
                    assert await page.value("document.getElementById('config').value") == "{"
                    # What is typed while a configuration is sent stays, and the complaint goes when one is taken.
                    await fill(page, config='{"interval": 6}')
                    await page.value(
                        "(document.querySelector('#configuration button').click(),"
                        "document.getElementById('config').value = '{\"interval\": 7',"
                        "document.getElementById('config').dispatchEvent(new Event('input')))"
                    )
                    await page.until(f"{TEXT_OF}('complaint') === ''")
                    await refreshes(page, 2)
                    assert await page.value("document.getElementById('config').value") == '{"interval": 7'


async def test_the_page_asks_for_the_token_and_runs_its_own_script_only(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with NatsServer(jetstream=True) as nats:
        async with (
            running(*SERVICES, nats_url=nats.url),
            serving(nats.url, "--token-file", str(file)) as (url, _),
            page_of(f"{url}/demo") as page,
        ):
            await page.until(f"/bearer token/.test({TEXT_OF}('complaint'))")
            assert await page.value("document.getElementById('guard').checkVisibility()") is True
            await fill(page, token=TOKEN)
            await page.value("document.querySelector('#device button').click()")
            await page.until(f"{TEXT_OF}('complaint') === ''")
            loaded = (
                "document.querySelectorAll('script[src], link:not([href^=\"data\"]), img, iframe').length"
            )
            assert await page.value(loaded) == 0
            await page.value(
                "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
                " document.body.append(script); })()"
            )
            assert await page.value("window.ran") is None
            async with httpx.AsyncClient() as http:
                policy = (await http.get(f"{url}/demo")).headers["Content-Security-Policy"]
            assert "unsafe" not in policy
