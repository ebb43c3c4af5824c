"""12/CIP: the messages by which a service has an endpoint execute a command, and learns of the result.

Source: 12/CIP "Command Invocation Protocol".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import OPTIONAL_BYTES, OPTIONAL_STRING, MessageType

NAMESPACE = "org.kaaproject.ipc.cip.gen.v1"

COMMAND_REQUEST = MessageType(
    NAMESPACE,
    "CommandInvocationRequest",
    endpointId="string",
    commandType="string",
    commandId="int",
    payload=OPTIONAL_BYTES,
)
COMMAND_RESULT = MessageType(
    NAMESPACE,
    "CommandInvocationResult",
    appVersionName="string",
    endpointId="string",
    commandType="string",
    commandId="int",
    statusCode="int",
    reasonPhrase=OPTIONAL_STRING,
    payload=OPTIONAL_BYTES,
)

RESULT = "command-result"
"""Message type of results, the last token of a request's reply-to."""


def request_subject(agent: str) -> str:
    """Return the subject on which an agent instance, such as cex, takes commands."""
    return subjects.service(agent, "cip", "command-request")
