"""The time series in data samples: those that are configured, and those that the fields of samples make.

A configured time series has named values, each of which stands at a path in the sample, and perhaps a time. With
auto-extraction, each number in a field of a sample is a point of the time series `auto~<field>`, with the value name
`value`, as in Kaa's own service of this kind.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from kaa_ext.messages import tstp
from kaa_ext.sdk import payloads
from kaa_ext.sdk.time_series import DataPoint

AUTO = "auto~"
AUTO_VALUE = "value"
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What a time series is called: its name is part of a NATS subject. Devices name the fields of samples."""
AUTO_SERIES_MAX = 256
"""Time series that the samples of one message make by auto-extraction; further fields are left out."""
TIMESTAMP_MAX = 2**53
"""Larger numbers of milliseconds are not a time."""

_decode = msgspec.json.Decoder().decode


class Series(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A time series in samples that are JSON objects.

    `values` maps value names to paths in the sample, such as `location.lat`. `timestamp` is the path of the time, which
    is UNIX time in milliseconds or ISO 8601; without one that can be read, it is the time at which the sample arrived.
    """

    values: dict[str, str]
    timestamp: str | None = None

    def __post_init__(self) -> None:
        if not self.values or not all(self.values) or not all(self.values.values()):
            raise ValueError("values: expected names of values and their paths in a sample")


class Extraction:
    """Finds the time series in samples."""

    def __init__(self, series: Mapping[str, Series], *, auto: bool) -> None:
        self._series = [
            (
                name,
                [(value, path.split(".")) for value, path in each.values.items()],
                each.timestamp.split(".") if each.timestamp else None,
            )
            for name, each in series.items()
        ]
        self._auto = auto

    def points(self, samples: Iterable[bytes], arrived: int) -> dict[str, list[DataPoint]]:
        """Return the data points in samples by time series. `arrived` is the UNIX time in ms of their arrival.

        Samples that are not JSON objects have none.
        """
        found: dict[str, list[DataPoint]] = {}
        auto: dict[str, list[DataPoint]] = {}
        for sample in samples:
            if not sample.lstrip().startswith(b"{"):
                continue
            try:
                fields = _decode(sample)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            for name, paths, time_path in self._series:
                values = {
                    value: _value(each) for value, path in paths if (each := _at(fields, path)) is not _ABSENT
                }
                if values:
                    time = arrived if time_path is None else _time(_at(fields, time_path), arrived)
                    found.setdefault(name, []).append(DataPoint(time, values, arrived))
            if self._auto:
                _add_numbers(auto, fields, arrived)
        return found | auto


class _Absent:
    """The type of what is not in a sample."""


_ABSENT = _Absent()


def _at(fields: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(fields, dict) or name not in fields:
            return _ABSENT
        fields = fields[name]
    return fields


def _value(value: Any) -> tstp.Value:
    """Return a value as 14/TSTP carries it: what is composite becomes its JSON text."""
    if isinstance(value, dict | list):
        return payloads.encode(value).decode()
    scalar: tstp.Value = value
    return scalar


def _time(value: Any, arrived: int) -> int:
    """Return the time that a value of a sample gives, or that of the arrival."""
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
            value = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000
        except (ValueError, OverflowError):
            return arrived
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= TIMESTAMP_MAX:
        return int(value)
    return arrived


def _add_numbers(series: dict[str, list[DataPoint]], fields: dict[str, Any], arrived: int) -> None:
    for field, value in fields.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and NAME.fullmatch(field):
            name = AUTO + field
            points = series.get(name)
            if points is None:
                if len(series) >= AUTO_SERIES_MAX:
                    continue
                points = series[name] = []
            points.append(DataPoint(arrived, {AUTO_VALUE: value}, arrived))
