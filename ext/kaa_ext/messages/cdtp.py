"""6/CDTP: the messages by which a service gets endpoint configurations from their provider.

The events of the RFC name no configuration. Those of a named one have the name as another token of their subject, as
14/TSTP has it for time series: a service that knows default configurations only does not receive them.

Source: 6/CDTP "Configuration Data Transport Protocol".
"""

import base64

import msgspec
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
JSON_SUFFIX = "+json"
TEXT = "text/"
DEFAULT_NAME = ""
"""The name of the default configuration."""
ABSENT_ID = ""
"""The identifier for "no configuration" (7/CMP)."""
ABSENT = b"null"
"""The content for "no configuration"."""


def is_json(content_type: str) -> bool:
    """Return whether content of a type is JSON, perhaps of a more special type."""
    return _essence(content_type) == JSON or _essence(content_type).endswith(JSON_SUFFIX)


def as_json(content_type: str, content: bytes) -> bytes:
    """Return content as the JSON value that carries it in 7/CMP.

    JSON is as it is; text is a string; any other content is a string in Base64. Raise ValueError for text that is not
    UTF-8.
    """
    if is_json(content_type):
        return content
    is_text = _essence(content_type).startswith(TEXT)
    return msgspec.json.encode(content.decode() if is_text else base64.b64encode(content).decode())


def from_json(content_type: str, value: bytes) -> bytes:
    """Return the content that `as_json` has turned into a JSON value."""
    if is_json(content_type):
        return value
    text = msgspec.json.decode(value, type=str)
    return text.encode() if _essence(content_type).startswith(TEXT) else base64.b64decode(text)


def _essence(content_type: str) -> str:
    """Return a content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


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
