"""6/CDTP: how endpoint configurations go from the service that has them (provider) to the one that hands them out.

The RFC's events name no configuration. Those of a named one have the name as another token of their subject, as 14/TSTP
has it for time series; so who knows only default configurations hears of these only.

Source: 6/CDTP "Configuration Data Transport Protocol".
"""

import re

from kaa_gateway.bus import subjects

from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.ism import BYTES, INT, OPTIONAL_BYTES, OPTIONAL_STRING, STRING, MessageType

CONFIG_REQUEST = MessageType(
    "cdtp.gen.v1",
    "ConfigRequest",
    appVersionName=STRING,
    endpointId=STRING,
    configId=OPTIONAL_STRING,
    configName=OPTIONAL_STRING,
)
CONFIG_RESPONSE = MessageType(
    "cdtp.gen.v1",
    "ConfigResponse",
    appVersionName=STRING,
    endpointId=STRING,
    configId=OPTIONAL_STRING,
    contentType=STRING,
    content=OPTIONAL_BYTES,
    statusCode=INT,
    reasonPhrase=OPTIONAL_STRING,
)
CONFIG_UPDATED = MessageType(
    "event.gen.v1.endpoint.config",
    "ConfigUpdated",
    appVersionName=STRING,
    endpointId=STRING,
    configId=STRING,
    contentType=STRING,
    content=BYTES,
    originatorReplicaId=OPTIONAL_STRING,
)
CONFIG_APPLIED = MessageType(
    "event.gen.v1.endpoint.config",
    "ConfigApplied",
    appVersionName=STRING,
    endpointId=STRING,
    configId=STRING,
    originatorReplicaId=OPTIONAL_STRING,
    statusCode=INT,
    reasonPhrase=OPTIONAL_STRING,
)

JSON = "application/json"
DEFAULT_NAME = ""
"""The name of the default configuration, which has none."""
ABSENT_ID = ""
"""The identifier of the configuration of an endpoint that has none (7/CMP)."""
ABSENT = b"null"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def checked_name(name: str) -> str:
    """The name of a configuration, if it may be one. ExtensionError 400 if not."""
    if not _NAME.fullmatch(name):
        raise ExtensionError(
            400, "The name of a configuration has 1 to 128 letters, digits, dashes and underscores"
        )
    return name


def request_subject(provider: str) -> str:
    """Where a provider instance takes requests."""
    return subjects.service(provider, "cdtp", "request")


def updated_subject(provider: str, name: str = DEFAULT_NAME) -> str:
    """Subject of the events that tell of new configurations of this name; `*` for all named ones."""
    return _event(provider, "updated", name)


def applied_subject(consumer: str, name: str = DEFAULT_NAME) -> str:
    """Subject of the events that tell what endpoints have applied."""
    return _event(consumer, "applied", name)


def _event(instance: str, kind: str, name: str) -> str:
    subject = subjects.event(instance, "endpoint", "config", kind)
    return f"{subject}.{name}" if name else subject
