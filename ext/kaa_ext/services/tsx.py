"""tsx, time synchronization: gives a device the time of the server, on every resource path.

The request is empty, or `{"timezone": "<IANA name>"}`. The response is `{"timestamp": <UNIX time in ms>}`; with a time
zone it also has `time`, the ISO 8601 time there, and `offset`, its seconds east of UTC, unless that is zero.

Source: "TSX" in Kaa's documentation; `time` is ours.
"""

from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from kaa_gateway.bus.messages import now_ms

from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.requests import Request


class TimeRequest(msgspec.Struct):
    """The payload of a request."""

    timezone: str | None = None


class Time(msgspec.Struct, omit_defaults=True):
    """The payload of a response. `timestamp` is in milliseconds, `offset` in seconds."""

    timestamp: int
    time: str | None = None
    offset: int = 0


_decode = payloads.decoder(TimeRequest)
_timezones = cache(available_timezones)
_zone = cache(ZoneInfo)


def time_at(timestamp: int, timezone: str | None) -> Time:
    """Return the response at a UNIX time in milliseconds. Raise ExtensionError 400 for an unknown time zone."""
    if timezone is None:
        return Time(timestamp)
    # Only known names reach ZoneInfo, which reads files by name, and the cache, which keeps every name.
    if timezone not in _timezones():
        raise ExtensionError(400, "Unknown time zone")
    seconds, milliseconds = divmod(timestamp, 1000)
    there = datetime.fromtimestamp(seconds, _zone(timezone)).replace(microsecond=milliseconds * 1000)
    offset = there.utcoffset()
    return Time(
        timestamp, there.isoformat(timespec="milliseconds"), int(offset.total_seconds()) if offset else 0
    )


def register(extension: Extension) -> None:
    """Make the extension a time service."""

    @extension.handler("*")
    def tell_time(request: Request) -> Time:
        return time_at(now_ms(), _decode(request.payload.strip()).timezone)
