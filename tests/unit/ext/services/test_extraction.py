"""epts: the time series in data samples, by configuration and by auto-extraction."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaa_ext.messages import tstp
from kaa_ext.sdk.time_series import TimeSeries
from kaa_ext.services import epts
from kaa_ext.services.epts.extraction import AUTO_SERIES_MAX, Extraction, Series

ARRIVED = 1_700_000_000_000
WEATHER = {
    "weather": Series(values={"temperature": "temp", "humidity": "air.humidity"}, timestamp="ts"),
    "location": Series(values={"where": "location"}),
}


def extracted(
    *samples: object, series: dict[str, Series] | None = None, auto: bool = False
) -> dict[str, list[tuple[int, Any]]]:
    """Time and values of the points by time series."""
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in samples]
    found = Extraction(series or {}, auto=auto).points(texts, ARRIVED)
    assert all(point.ingestion_timestamp == ARRIVED for points in found.values() for point in points)
    return {name: [(each.timestamp, each.values) for each in points] for name, points in found.items()}


def test_values_stand_at_paths() -> None:
    sample = {"ts": 5, "temp": 21.5, "air": {"humidity": 73}, "location": {"lat": 1.5, "lon": [2]}}
    assert extracted(sample, {"temp": None}, {"other": 1}, series=WEATHER) == {
        "weather": [(5, {"temperature": 21.5, "humidity": 73}), (ARRIVED, {"temperature": None})],
        "location": [(ARRIVED, {"where": '{"lat":1.5,"lon":[2]}'})],
    }


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (1_556_293_267_000, 1_556_293_267_000),
        (1_556_293_267_000.7, 1_556_293_267_000),
        ("2019-04-26T15:41:07+0000", 1_556_293_267_000),
        ("2019-04-26T15:41:07Z", 1_556_293_267_000),
        ("2019-04-26T17:41:07.250+02:00", 1_556_293_267_250),
        ("2019-04-26T15:41:07", 1_556_293_267_000),
        ("0001-01-01T00:00:00+23:59", ARRIVED),
        ("yesterday", ARRIVED),
        ("", ARRIVED),
        (True, ARRIVED),
        (None, ARRIVED),
        (-1, ARRIVED),
        (2**64, ARRIVED),
        ({}, ARRIVED),
    ],
)
def test_the_time_of_a_point(timestamp: Any, expected: int) -> None:
    found = extracted({"temp": 1, "ts": timestamp}, series=WEATHER)
    assert [time for time, _ in found["weather"]] == [expected]


def test_auto_extraction_takes_the_numbers_in_fields() -> None:
    samples = ({"t": 1, "h": 2.5, "on": True, "name": "x", "at": {"lat": 1}, "none": None}, {"t": 3}, 15, [1])
    assert extracted(*samples, auto=True) == {
        "auto~t": [(ARRIVED, {"value": 1}), (ARRIVED, {"value": 3})],
        "auto~h": [(ARRIVED, {"value": 2.5})],
    }


def test_both() -> None:
    assert set(extracted({"temp": 1}, series=WEATHER, auto=True)) == {"weather", "auto~temp"}


@pytest.mark.parametrize("field", ["a.b", "a b", "*", ">", "", "ä", "a\n", "x" * 129, "a~b"])
def test_a_field_that_cannot_be_in_a_subject_makes_no_time_series(field: str) -> None:
    assert extracted({field: 1}, auto=True) == {}


def test_auto_extraction_is_bounded() -> None:
    sample = {f"f{number}": number for number in range(AUTO_SERIES_MAX + 50)}
    assert len(extracted(sample, {"f0": 1}, {"late": 1}, auto=True)) == AUTO_SERIES_MAX


@pytest.mark.parametrize("sample", [b"{", b"", b'{"t": 1e999}', b"{" * 5000, b'{"a":' * 5000, b'"{}"'])
def test_what_is_no_object_has_no_points(sample: bytes) -> None:
    assert extracted(sample, {"t": 2}, auto=True) == {"auto~t": [(ARRIVED, {"value": 2})]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(samples=st.lists(st.binary(max_size=20) | JSON, max_size=5))
def test_all_that_is_extracted_can_be_transmitted(samples: list[Any]) -> None:
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in samples]
    series = {"any": Series(values={"a": "a", "b": "a.b"}, timestamp="t")}
    for name, points in Extraction(series, auto=True).points(texts, ARRIVED).items():
        datum = tstp.TIME_SERIES_EVENT.encode(
            appVersionName="app_v1",
            endpointId="e",
            timeSeriesName=name,
            dataPoints=[
                {"timestamp": each.timestamp, "values": each.values, "ingestionTimestamp": ARRIVED}
                for each in points
            ],
        )
        received = TimeSeries.of(tstp.TIME_SERIES_EVENT.decode(datum))
        assert (received.name, received.endpoint_id, len(received.points)) == (name, "e", len(points))
        for sent, got in zip(points, received.points, strict=True):
            assert sent.timestamp == got.timestamp
            assert sent.values == got.values


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"time_series": {"auto~x": Series(values={"a": "a"})}}, "time-series: expected names"),
        ({"time_series": {"a.b": Series(values={"a": "a"})}}, "time-series: expected names"),
        ({"acknowledgements": -1}, "acknowledgements: expected"),
        ({"acknowledgement_timeout": 0}, "acknowledgements: expected"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        epts.Settings(**settings)


@pytest.mark.parametrize("values", [{}, {"": "a"}, {"a": ""}])
def test_a_time_series_has_values(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="values: expected"):
        Series(values=values)
