"""Time series by name, over REST and in the shell: data points are found in the samples that epts keeps."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.support.devices import http_device
from tests.support.extensions import APPLICATION, kaa_ext, running
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer
from tests.support.rest import Api, serving

TIMEOUT_S = 30.0
SETTINGS = """
epts:
  time-series:
    weather:
      values: {temperature: temp, humidity: air.humidity, raining: rain}
      timestamp: ts
  auto-extraction: true
"""
SENT = [
    {"ts": 1000, "temp": 20, "air": {"humidity": 40}},
    {"ts": "1970-01-01T00:00:02Z", "temp": 22.5, "rain": True},
    {"other": "text"},
    {"temp": 24},
]


async def test_data_points_by_rest_and_in_the_shell(tmp_path: Path) -> None:
    settings = tmp_path / "services.yml"
    settings.write_text(SETTINGS)
    with NatsServer(jetstream=True) as nats:
        async with (
            running("dcx", "epts", "--settings", str(settings), nats_url=nats.url),
            serving(nats.url) as (url, _),
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http,
        ):
            api = await Api.read(http)
            with GatewayProcess(nats.url, APPLICATION) as gateway:
                async with http_device(gateway.http_port, "ep") as device:
                    for body in (SENT[:3], SENT[3]):
                        assert (await device.ask("dcx", "/json", json.dumps(body).encode())).status == 200
            await _rest(api)
            shell = ("data", "points", "ep", "--series")
            code, output, _ = await kaa_ext(*shell, "weather", "--last", "2", nats_url=nats.url)
            lines = output.splitlines()
            assert (code, len(lines)) == (0, 2)
            assert lines[0] == '1970-01-01T00:00:02.000Z app_v1 ep {"temperature":22.5,"raining":true}'
            assert lines[1].endswith(' app_v1 ep {"temperature":24}')
            for name, said in (("absent", "no time series absent"), ("auto~none", "no sample found has")):
                code, _, errors = await kaa_ext(*shell, name, nats_url=nats.url)
                assert (code, said in errors) == (1, True)


async def _rest(api: Api) -> None:
    definitions = await api.ok("listTimeSeries")
    (weather,) = definitions["timeSeries"]
    assert (weather["name"], weather["timestamp"]) == ("weather", "ts")
    assert weather["values"] == {"temperature": "temp", "humidity": "air.humidity", "raining": "rain"}
    assert definitions["autoExtraction"] is True

    where = {"endpoint": "ep", "series": "weather"}
    async with asyncio.timeout(TIMEOUT_S):
        while len((await api.ok("queryDataPoints", **where))["points"]) < 3:
            await asyncio.sleep(0.05)
    first_page = await api.ok("queryDataPoints", limit=2, **where)
    assert [(each["timestamp"], each["values"]) for each in first_page["points"]] == [
        (1000, {"temperature": 20, "humidity": 40}),
        (2000, {"temperature": 22.5, "raining": True}),
    ]
    second_page = await api.ok("queryDataPoints", start=first_page["next"], **where)
    (third,) = second_page["points"]
    assert second_page["next"] is None
    assert third["values"] == {"temperature": 24}
    assert third["timestamp"] == third["ingestionTimestamp"]
    assert third["appVersion"] == "app_v1"
    assert await api.ok("getLastDataPoint", **where) == third
    after = third["ingestionTimestamp"] + 1
    assert (await api.ok("queryDataPoints", from_=after, **where))["points"] == []

    begin = first_page["points"][0]["ingestionTimestamp"]
    span = {"from_": begin, "period": 3_600_000, **where}
    (period,) = (await api.ok("downsampleDataPoints", value="temperature", **span))["periods"]
    assert (period["count"], period["minimum"], period["maximum"]) == (3, 20, 24)
    assert period["average"] == pytest.approx(66.5 / 3)
    (period,) = (await api.ok("downsampleDataPoints", value="raining", **span))["periods"]
    assert (period["count"], period["average"]) == (1, 1)

    automatic = await api.ok("queryDataPoints", endpoint="ep", series="auto~temp")
    assert [each["values"] for each in automatic["points"]] == [{"value": 20}, {"value": 22.5}, {"value": 24}]
    # Texts make no time series by themselves.
    other = await api.ok("queryDataPoints", endpoint="ep", series="auto~other")
    assert other["points"] == []
    assert (await api.call("getLastDataPoint", endpoint="ep", series="auto~other")).status_code == 404
    problem = (await api.call("queryDataPoints", endpoint="ep", series="absent")).json()
    assert (problem["status"], problem["detail"]) == (404, "epts has no time series of this name")


async def test_without_auto_extraction_there_is_no_automatic_time_series() -> None:
    with NatsServer(jetstream=True) as nats:
        async with (
            serving(nats.url) as (url, _),
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http,
        ):
            api = await Api.read(http)
            assert (await api.call("listTimeSeries")).status_code == 503
            async with running("epts", nats_url=nats.url):
                assert await api.ok("listTimeSeries") == {"timeSeries": [], "autoExtraction": False}
                where = {"endpoint": "ep", "series": "auto~temp"}
                assert (await api.call("queryDataPoints", **where)).status_code == 404
