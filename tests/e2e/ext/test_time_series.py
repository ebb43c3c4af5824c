"""14/TSTP on a real NATS server: epts transmits data points, and receivers that are written with the SDK answer.

A device hears 200 when the samples are stored and the receivers have acknowledged their data points.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kaa_ext import Extension, ExtensionError
from kaa_ext.messages import tstp
from kaa_ext.sdk.time_series import TimeSeries
from kaa_ext.services import dcx, epts
from kaa_ext.services.epts import Series
from kaa_ext.services.local_receivers import LocalReceivers
from kaa_ext.testing import Gateway, online, until

WEATHER = {"weather": Series(values={"temperature": "temp"}, timestamp="ts")}


class Receiver:
    """An extension that receives time series. It fails with `error` if that is set."""

    def __init__(self, name: str = "*") -> None:
        self.extension = Extension("receiver")
        self.received: list[TimeSeries] = []
        self.error: Exception | None = None

        @self.extension.on_time_series("epts", name)
        async def receive(series: TimeSeries) -> None:
            self.received.append(series)
            if self.error is not None:
                raise self.error


@asynccontextmanager
async def services(
    *receivers: Receiver, together: bool = True, **settings: Any
) -> AsyncIterator[tuple[Gateway, Extension]]:
    """dcx and epts, in one process or in two, and receivers."""
    extensions = [Extension("dcx"), Extension("epts")]
    local = LocalReceivers(["dcx"] if together else [])
    dcx.register(extensions[0], dcx.Settings(must_confirm=frozenset({"epts"})), local)
    epts.register(extensions[1], epts.Settings(**settings), local)
    async with online(*(each.extension for each in receivers), *extensions) as gateway:
        yield gateway, extensions[0]


@pytest.mark.parametrize("together", [True, False], ids=["one process", "two processes"])
async def test_data_points_are_acknowledged_before_the_device_hears_200(together: bool) -> None:
    receiver = Receiver()
    async with services(
        receiver, together=together, time_series=WEATHER, auto_extraction=True, acknowledgements=1
    ) as (gateway, _):
        answers = await gateway.listen("kaa.v1.replica.*.tstp.TimeSeriesProcessed")
        body = [{"temp": 21.5, "ts": 7, "name": "x"}, {"temp": 22}, 5]
        assert (await gateway.request("dcx", "/json", body)).status_code == 200
        by_name = {each.name: each for each in receiver.received}
        assert set(by_name) == {"weather", "auto~temp", "auto~ts"}
        weather = by_name["weather"]
        assert (weather.endpoint_id, weather.app_version_name) == ("endpoint", "app_v1")
        assert [point.values for point in weather.points] == [{"temperature": 21.5}, {"temperature": 22}]
        first, second = weather.points
        assert first.timestamp == 7
        assert second.timestamp == second.ingestion_timestamp == first.ingestion_timestamp > 0
        assert [dict(point.values) for point in by_name["auto~ts"].points] == [{"value": 7}]
        await until(lambda: len(answers) == 3, "the answers")
        assert {tstp.TIME_SERIES_PROCESSED.decode(each.data)["statusCode"] for each in answers} == {200}


async def test_a_receiver_of_one_time_series() -> None:
    receiver = Receiver("auto~a")
    async with services(receiver, auto_extraction=True) as (gateway, _):
        assert (await gateway.request("dcx", "/json", {"a": 1, "b": 2})).status_code == 200
        await until(lambda: len(receiver.received) == 1, "the data point")
        assert receiver.received[0].name == "auto~a"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ExtensionError(422, "Too hot"), 422, "Too hot"),
        (RuntimeError("secret"), 500, "Internal Server Error"),
    ],
)
async def test_what_a_receiver_refuses_the_device_hears(error: Exception, status: int, reason: str) -> None:
    receiver = Receiver()
    receiver.error = error
    async with services(receiver, auto_extraction=True, acknowledgements=1) as (gateway, dcx_extension):
        answer = await gateway.request("dcx", "/json", {"a": 1})
        assert (answer.status_code, answer.reason_phrase) == (status, reason)
        stream = await dcx_extension.jetstream().stream_info(epts.stream_name("epts"))
        assert stream.state.messages == 1
        receiver.error = None
        assert (await gateway.request("dcx", "/json", {"a": 1})).status_code == 200


async def test_receivers_that_are_not_there_or_silent() -> None:
    async with services(auto_extraction=True, acknowledgements=2, acknowledgement_timeout=0.2) as (
        gateway,
        _,
    ):
        answer = await gateway.request("dcx", "/json", {"a": 1})
        assert (answer.status_code, answer.reason_phrase) == (
            503,
            "No receiver of the time series is running",
        )
        events = await gateway.listen(tstp.event_subject("epts", "auto~a"))
        answer = await gateway.request("dcx", "/json", {"a": 1})
        assert (answer.status_code, answer.reason_phrase) == (
            504,
            "The time series was not acknowledged in time",
        )
        await until(lambda: len(events) == 1, "the event")
        # A sample without data points waits for nobody.
        assert (await gateway.request("dcx", "/json", {"a": "text"})).status_code == 200


async def test_without_acknowledgements_nobody_is_asked_for_one() -> None:
    async with services(auto_extraction=True) as (gateway, _):
        assert (await gateway.request("dcx", "/json", {"a": 1})).status_code == 200
        events = await gateway.listen(tstp.event_subject("epts", "*"))
        assert (await gateway.request("dcx", "/json", {"a": 1})).status_code == 200
        await until(lambda: len(events) == 1, "the event")
        assert events[0].reply == ""


async def test_nothing_is_transmitted_unless_it_is_configured() -> None:
    async with services() as (gateway, _):
        events = await gateway.listen("kaa.v1.events.epts.endpoint.data-collection.>")
        assert (await gateway.request("dcx", "/json", {"a": 1})).status_code == 200
        assert events == []
