"""12/CIP: how a service has a command executed by an endpoint, and hears what became of it.

Source: 12/CIP "Command Invocation Protocol".
"""

from kaa_gateway.bus import subjects

from kaa_ext.sdk.ism import INT, OPTIONAL_BYTES, OPTIONAL_STRING, STRING, MessageType

COMMAND_REQUEST = MessageType(
    "cip.gen.v1",
    "CommandInvocationRequest",
    endpointId=STRING,
    commandType=STRING,
    commandId=INT,
    payload=OPTIONAL_BYTES,
)
COMMAND_RESULT = MessageType(
    "cip.gen.v1",
    "CommandInvocationResult",
    appVersionName=STRING,
    endpointId=STRING,
    commandType=STRING,
    commandId=INT,
    statusCode=INT,
    reasonPhrase=OPTIONAL_STRING,
    payload=OPTIONAL_BYTES,
)

RESULT = "command-result"
"""Message type of results, the last token of a request's reply-to."""


def request_subject(agent: str) -> str:
    """Where an agent instance, such as cex, takes commands."""
    return subjects.service(agent, "cip", "command-request")
