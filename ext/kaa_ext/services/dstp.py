"""13/DSTP: the event by which data samples go to whoever receives them, and the receivers' confirmations.

Source: 13/DSTP "Data Sample Transmission Protocol".
"""

from kaa_gateway.bus import subjects

from kaa_ext.sdk.ism import BYTES, INT, OPTIONAL_STRING, STRING, MessageType

DATA_SAMPLES_EVENT = MessageType(
    "dstp.gen.v1",
    "DataSamplesEvent",
    appVersionName=STRING,
    endpointId=STRING,
    contentType=STRING,
    dataSamples={"type": "array", "items": BYTES},
)
DATA_SAMPLES_PROCESSED = MessageType(
    "dstp.gen.v1",
    "DataSamplesProcessed",
    receiverServiceInstanceName=STRING,
    statusCode=INT,
    reasonPhrase=OPTIONAL_STRING,
)

JSON = "application/json"


def event_subject(instance: str) -> str:
    """Subject of the events of a transmitter service instance; `*` for all of them."""
    return subjects.event(instance, "endpoint", "data-collection", "data-samples-received")


def reply_subject(replica_id: str) -> str:
    """Where receivers say that they have processed an event of this replica."""
    return subjects.replica(replica_id, "dstp", "DataSamplesProcessed")
