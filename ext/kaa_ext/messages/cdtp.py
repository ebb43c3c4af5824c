"""6/CDTP: the messages by which a service gets endpoint configurations from their provider.

The events of the RFC name no configuration. Those of a named one have the name as another token of their subject, as
14/TSTP has it for time series: a service that knows default configurations only does not receive them.

Source: 6/CDTP "Configuration Data Transport Protocol".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import OPTIONAL_BYTES, OPTIONAL_STRING, MessageType

NAMESPACE = "org.kaaproject.ipc.cdtp.gen.v1"
EVENT_NAMESPACE = "org.kaaproject.ipc.event.gen.v1.endpoint.config"

CONFIG_REQUEST = MessageType(
    NAMESPACE,
    "ConfigRequest",
    appVersionName="string",
    endpointId="string",
    configId=OPTIONAL_STRING,
    configName=OPTIONAL_STRING,
)
CONFIG_RESPONSE = MessageType(
    NAMESPACE,
    "ConfigResponse",
    appVersionName="string",
    endpointId="string",
    configId=OPTIONAL_STRING,
    contentType="string",
    content=OPTIONAL_BYTES,
    statusCode="int",
    reasonPhrase=OPTIONAL_STRING,
)
CONFIG_UPDATED = MessageType(
    EVENT_NAMESPACE,
    "ConfigUpdated",
    appVersionName="string",
    endpointId="string",
    configId="string",
    contentType="string",
    content="bytes",
    originatorReplicaId=OPTIONAL_STRING,
)
CONFIG_APPLIED = MessageType(
    EVENT_NAMESPACE,
    "ConfigApplied",
    appVersionName="string",
    endpointId="string",
    configId="string",
    originatorReplicaId=OPTIONAL_STRING,
    statusCode="int",
    reasonPhrase=OPTIONAL_STRING,
)

JSON = "application/json"
DEFAULT_NAME = ""
"""The name of the default configuration."""
ABSENT_ID = ""
"""The identifier for "no configuration" (7/CMP)."""
ABSENT = b"null"
"""The content for "no configuration"."""


def request_subject(provider: str) -> str:
    """Return the subject on which a provider instance takes requests."""
    return subjects.service(provider, "cdtp", "request")


def updated_subject(provider: str, name: str = DEFAULT_NAME) -> str:
    """Return the subject of a provider's events about new configurations of this name; `*` for all named ones."""
    return _event(provider, "updated", name)


def applied_subject(consumer: str, name: str = DEFAULT_NAME) -> str:
    """Return the subject of a consumer's events about what endpoints have applied."""
    return _event(consumer, "applied", name)


def _event(instance: str, kind: str, name: str) -> str:
    subject = subjects.event(instance, "endpoint", "config", kind)
    return f"{subject}.{name}" if name else subject
