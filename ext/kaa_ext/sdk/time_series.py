"""The receiver of time series: the event of 14/TSTP as an extension sees it, and the answer to it.

Source: 14/TSTP "Time Series Transmission Protocol", receiver.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
from nats.aio.msg import Msg

from kaa_ext.messages import tstp
from kaa_ext.sdk.errors import ExtensionError

if TYPE_CHECKING:
    from kaa_ext.sdk.extension import Extension

log: Any = structlog.get_logger("extension")


class DataPoint(msgspec.Struct, frozen=True, rename="camel"):
    """Named values at a time. Times are UNIX times in milliseconds; that of ingestion is 0 if it is not known."""

    timestamp: int
    values: Mapping[str, tstp.Value]
    ingestion_timestamp: int = 0


class TimeSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Data points of a time series of an endpoint."""

    name: str
    endpoint_id: str
    app_version_name: str
    points: list[DataPoint]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "TimeSeries":
        """Return the data points that an event has in its fields."""
        return cls(
            name=fields["timeSeriesName"],
            endpoint_id=fields["endpointId"],
            app_version_name=fields["appVersionName"],
            points=[
                DataPoint(each["timestamp"], each["values"], each["ingestionTimestamp"])
                for each in fields["dataPoints"]
            ],
        )


AnyTimeSeriesHandler = TypeVar("AnyTimeSeriesHandler", bound=Callable[[TimeSeries], Awaitable[None]])


def listen(
    extension: "Extension", transmitter: str, name: str, handle: AnyTimeSeriesHandler
) -> AnyTimeSeriesHandler:
    """Call a function for each event of a transmitter, on one of the extension's replicas. Return it.

    If the transmitter wants an answer, it is 200, the status of an ExtensionError, or 500 for any other exception.
    """

    async def receive(message: Msg) -> None:
        fields = tstp.TIME_SERIES_EVENT.decode(message.data)
        if extension.has_expired(fields):
            return
        status, reason = 200, None
        try:
            await handle(TimeSeries.of(fields))
        except ExtensionError as error:
            status, reason = error.status_code, error.reason_phrase
        except Exception:
            extension.stats["failed"] += 1
            log.exception("data points were not handled", extension=extension.name)
            status, reason = 500, HTTPStatus.INTERNAL_SERVER_ERROR.phrase
        if message.reply:
            datum = tstp.TIME_SERIES_PROCESSED.encode(
                correlation_id=fields["correlationId"], statusCode=status, reasonPhrase=reason
            )
            await extension.publish(message.reply, datum)

    extension.subscribe(tstp.event_subject(transmitter, name), receive, shared=True)
    return handle
