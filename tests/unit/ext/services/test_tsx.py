"""tsx: the time that a device is told."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext import Extension, Response
from kaa_ext.services.tsx import Time, register, time_at
from kaa_ext.testing import offline
from kaa_gateway.bus.messages import now_ms

SUMMER = 1_530_464_400_123
"""2018-07-01T17:00:00.123Z."""


async def ask(payload: bytes, resource_path: str = "") -> Response:
    extension = Extension("tsx")
    register(extension)
    async with offline(extension) as gateway:
        return await gateway.request("tsx", resource_path, payload)


@pytest.mark.parametrize(
    ("timezone", "time", "offset"),
    [
        ("Pacific/Easter", "2018-07-01T11:00:00.123-06:00", -21_600),
        ("Europe/Berlin", "2018-07-01T19:00:00.123+02:00", 7_200),
        ("Asia/Kathmandu", "2018-07-01T22:45:00.123+05:45", 20_700),
        ("UTC", "2018-07-01T17:00:00.123+00:00", 0),
    ],
)
def test_time_in_a_zone(timezone: str, time: str, offset: int) -> None:
    assert time_at(SUMMER, timezone) == Time(SUMMER, time, offset)


def test_offset_follows_daylight_saving_time() -> None:
    half_a_year_ms = 182 * 24 * 3600 * 1000
    assert time_at(SUMMER + half_a_year_ms, "Europe/Berlin").offset == 3_600


@pytest.mark.parametrize("resource_path", ["", "/", "/time", "/json/deep"])
@pytest.mark.parametrize("payload", [b"", b" \n", b"{}", b'{"timezone": null}', b'{"other": 1}'])
async def test_without_time_zone_the_timestamp_only(payload: bytes, resource_path: str) -> None:
    before = now_ms()
    answer = json.loads((await ask(payload, resource_path)).payload or b"")
    assert list(answer) == ["timestamp"]
    assert before <= answer["timestamp"] <= now_ms()


async def test_utc_has_no_offset() -> None:
    assert set(json.loads((await ask(b'{"timezone": "UTC"}')).payload or b"")) == {"timestamp", "time"}


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"5",
        b'{"timezone": 5}',
        b'{"timezone": "Mars/Olympus"}',
        b'{"timezone": ""}',
        b'{"timezone": "../../etc/passwd"}',
        b'{"timezone": "Europe"}',
        b'{"timezone": "\\u0000"}',
        b'{"timezone": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
async def test_refused_requests(payload: bytes) -> None:
    assert (await ask(payload)).status_code == 400


@given(payload=st.binary())
def test_any_bytes_are_answered_or_refused(payload: bytes) -> None:
    answer = asyncio.run(ask(payload))
    assert answer.status_code == 400 or json.loads(answer.payload or b"")["timestamp"] > 0
