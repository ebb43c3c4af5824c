"""13/DSTP: the event by which a data collection service hands data samples to whoever receives them.

Source: 13/DSTP "Data Sample Transmission Protocol". Only the transmitter's side of the event is here.
"""

import io
from collections.abc import Sequence

import fastavro

from gateway.bus import subjects

DATA_SAMPLES_EVENT = fastavro.parse_schema(
    {
        "type": "record",
        "name": "org.kaaproject.ipc.dstp.gen.v1.DataSamplesEvent",
        "fields": [
            {"name": "correlationId", "type": "string"},
            {"name": "timestamp", "type": "long"},
            {"name": "timeout", "type": "long", "default": 0},
            {"name": "appVersionName", "type": "string"},
            {"name": "endpointId", "type": "string"},
            {"name": "contentType", "type": "string", "default": "application/json"},
            {"name": "dataSamples", "type": {"type": "array", "items": "bytes"}},
        ],
    }
)

DATA_SAMPLES_PROCESSED = "DataSamplesProcessed"
"""Message type of a receiver's answer, the last token of the event's reply-to."""


def event_subject(instance: str) -> str:
    """Subject of the events of a transmitter service instance."""
    return subjects.event(instance, "endpoint", "data-collection", "data-samples-received")


def reply_subject(replica_id: str) -> str:
    """Where receivers say that they have processed an event of this replica."""
    return subjects.replica(replica_id, "dstp", DATA_SAMPLES_PROCESSED)


def encode_data_samples_event(
    correlation_id: str,
    timestamp: int,
    app_version_name: str,
    endpoint_id: str,
    data_samples: Sequence[bytes],
    content_type: str = "application/json",
) -> bytes:
    """A DataSamplesEvent which never expires. `timestamp` is a UNIX time in milliseconds."""
    output = io.BytesIO()
    fastavro.schemaless_writer(
        output,
        DATA_SAMPLES_EVENT,
        {
            "correlationId": correlation_id,
            "timestamp": timestamp,
            "timeout": 0,
            "appVersionName": app_version_name,
            "endpointId": endpoint_id,
            "contentType": content_type,
            "dataSamples": data_samples,
        },
    )
    return output.getvalue()
