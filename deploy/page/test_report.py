"""The report of kaa-sim in a real browser: `make test-page` (needs Chromium).

With PAGE_SCREENSHOTS, a directory, it saves what it saw, which is how docs/simulator-report*.png were made.
"""

import math
import os
from pathlib import Path

from kaa_bench.sim.html import page as report
from kaa_bench.sim.run import Result, Second
from kaa_bench.sim.scenario import parse
from kaa_bench.sim.tally import Tally

from deploy.page.chromium import DESKTOP, PHONE, needs_chromium, page_of

pytestmark = needs_chromium

SCENARIO = """\
name: a small town
duration: 10m
criteria: {errors: 20}
target: {host: gateway.iot.svc.cluster.local}
fleets:
  - {name: meters, protocol: mqtt, devices: 6000, interval: 10s, payload: {energy: {kind: counter}}}
  - name: lamps-with-a-rather-long-name
    protocol: coap
    devices: 900
    interval: 30s
    payload: {dimmed: {kind: counter}}
"""
SECONDS = 600


def result() -> Result:
    """A run with two fleets and some errors."""
    scenario = parse(SCENARIO, "town.yml")
    tallies, by_fleet = {}, {}
    for fleet in scenario.fleets:
        rate = fleet.devices / fleet.interval
        tally = Tally(fleet.devices, fleet.devices, fleet.devices + 7, int(rate * SECONDS))
        tally.errors["connection refused by the other side"] = 7
        for number in range(tally.sent):
            tally.done(0.0, 0.002 + 0.004 * (number % 100) / 100)
        tallies[fleet.name] = tally
        by_fleet[fleet.name] = [
            Second(
                float(at),
                fleet.devices,
                wave := rate * (1 + 0.2 * math.sin(at / 30)),
                wave,
                7,
                3000.0,
                5900.0,
            )
            for at in range(1, SECONDS)
        ]
    seconds = [
        Second(
            a.at,
            a.connected + b.connected,
            a.sent_rate + b.sent_rate,
            a.sent_rate + b.sent_rate,
            14,
            3e3,
            5.9e3,
        )
        for a, b in zip(*by_fleet.values(), strict=True)
    ]
    return Result(
        scenario, 2, tallies, seconds=seconds, by_fleet=by_fleet, elapsed=SECONDS, cpu=9.0, cpu_busiest=5.0
    )


async def test_the_report_fits_a_phone_and_a_desk(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report(result(), SCENARIO), encoding="utf-8")
    async with page_of(file.as_uri()) as page:
        for name, size in (("", DESKTOP), ("-phone", PHONE)):
            await page.resize(size)
            # Nothing is wider than the window, or has to be pushed aside.
            assert await page.value("document.documentElement.scrollWidth") <= size[0]
            too_wide = (
                "[...document.querySelectorAll('body *')].filter((each) => each instanceof HTMLElement"
                " && each.clientWidth && each.scrollWidth > each.clientWidth + 1).length"
            )
            assert await page.value(too_wide) == 0
            heights = "[...document.querySelectorAll('svg text')].map((each) => each.getBoundingClientRect().height)"
            smallest = f"Math.min(...{heights}.filter(Boolean))"
            assert await page.value(smallest) >= 9
            for scheme in ("light", "dark"):
                await page.prefer(scheme)
                if directory := os.environ.get("PAGE_SCREENSHOTS"):
                    ending = "" if scheme == "light" else f"-{scheme}"
                    await page.screenshot(Path(directory) / f"simulator-report{name}{ending}.png")
