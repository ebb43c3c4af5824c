"""14/TSTP: the event that carries data points of a time series to their receivers, and the receivers' answers.

Source: 14/TSTP "Time Series Transmission Protocol".
"""

from typing import TypeAlias

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import OPTIONAL_STRING, MessageType

NAMESPACE = "org.kaaproject.ipc.tstp.gen.v1"

Value: TypeAlias = bool | int | float | str | bytes | None
"""The value of a data point. Composite ones are encoded, here as JSON text."""

TIME_SERIES_EVENT = MessageType(
    NAMESPACE,
    "TimeSeriesEvent",
    appVersionName="string",
    endpointId="string",
    timeSeriesName="string",
    dataPoints={
        "type": "array",
        "items": {
            "type": "record",
            "name": f"{NAMESPACE}.DataPoint",
            "fields": [
                {"name": "ingestionTimestamp", "type": "long", "default": 0},
                {"name": "timestamp", "type": "long"},
                {
                    "name": "values",
                    "type": {
                        "type": "map",
                        "values": ["boolean", "int", "long", "float", "double", "string", "bytes", "null"],
                    },
                },
            ],
        },
    },
)
TIME_SERIES_PROCESSED = MessageType(
    NAMESPACE, "TimeSeriesProcessed", statusCode="int", reasonPhrase=OPTIONAL_STRING
)

ANY = "*"


def event_subject(transmitter: str, name: str) -> str:
    """Return the subject of a transmitter's events of a time series; ANY stands for all of them."""
    return f"{subjects.event(transmitter, 'endpoint', 'data-collection', 'data-points-received')}.{name}"


def reply_subject(replica_id: str) -> str:
    """Return the subject on which a transmitter replica takes the answers to its events."""
    return subjects.replica(replica_id, "tstp", "TimeSeriesProcessed")
