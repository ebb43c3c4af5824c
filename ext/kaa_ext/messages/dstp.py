"""13/DSTP: the event that carries data samples to their receivers, and the receivers' confirmations.

Source: 13/DSTP "Data Sample Transmission Protocol".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import OPTIONAL_STRING, MessageType

NAMESPACE = "org.kaaproject.ipc.dstp.gen.v1"

DATA_SAMPLES_EVENT = MessageType(
    NAMESPACE,
    "DataSamplesEvent",
    appVersionName="string",
    endpointId="string",
    contentType="string",
    dataSamples={"type": "array", "items": "bytes"},
)
DATA_SAMPLES_PROCESSED = MessageType(
    NAMESPACE,
    "DataSamplesProcessed",
    receiverServiceInstanceName="string",
    statusCode="int",
    reasonPhrase=OPTIONAL_STRING,
)

JSON = "application/json"


def event_subject(instance: str) -> str:
    """Return the subject of a transmitter instance's events; `*` for all instances."""
    return subjects.event(instance, "endpoint", "data-collection", "data-samples-received")


def reply_subject(replica_id: str) -> str:
    """Return the subject on which a transmitter replica takes the confirmations of its events."""
    return subjects.replica(replica_id, "dstp", "DataSamplesProcessed")
