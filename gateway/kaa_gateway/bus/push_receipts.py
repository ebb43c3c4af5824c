"""The report of a gateway about one push: whether it reached its device.

What lives here: the message, and the words in it. What does not: who asks for it (`kaa_ext.sdk`), and who sends it
(`kaa_gateway.kp.receipts`). An extension asks by the header RECEIPT_HEADER of an ExtensionData; 4/ESP does not know it.

Source: docs/extensions.md, "Receipts"; 3/ISM for the header fields of the message.
"""

from typing import Final

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import OPTIONAL_STRING, MessageType

RECEIPT_HEADER = "Kaa-Receipt-To"
"""The header of a push that asks for receipts. Its value is the subject that they go to."""

RECEIPT_SUBJECT = r"\Akaa\.v1\.replica\.[A-Za-z0-9_-]{1,128}\.esp\.PushReceipt\Z"
"""The pattern of subjects that receipts may go to: a message on NATS may not choose any other."""

PUSH_RECEIPT = MessageType(
    "org.kaaproject.ipc.esp.gen.v1",
    "PushReceipt",
    endpointId="string",
    gatewayReplicaId="string",
    session=OPTIONAL_STRING,
    outcome="string",
    reason=OPTIONAL_STRING,
)
"""`correlationId` is that of the push. `session` names a session of the endpoint; it is null for `no-session`."""

ACCEPTED: Final = "accepted"
"""A session has the push and sends it, or keeps it for its client. Another receipt of this session follows."""
DELIVERED: Final = "delivered"
"""The device has acknowledged the push."""
SENT: Final = "sent"
"""The push was sent, and its protocol has no acknowledgement of it."""
DROPPED: Final = "dropped"
"""A session has not delivered the push; `reason` says why."""
REPEATED: Final = "repeated"
"""The session got this push before, so it was not sent again."""
NO_SESSION: Final = "no-session"
"""No device of the endpoint is connected to this worker, and none will come back to it for the push."""


def receipt_subject(replica_id: str) -> str:
    """Return the subject of the receipts for a replica of an extension."""
    return subjects.replica(replica_id, "esp", "PushReceipt")
