"""4/ESP messages: ClientData and ExtensionData. See esp.pyx."""

from typing import NamedTuple

from kaa_gateway.errors import MalformedAvro as MalformedAvro

class ClientData(NamedTuple):
    correlation_id: str
    timestamp: int
    timeout: int
    app_version_name: str
    endpoint_id: str | None
    resource_path: str
    request_id: int | None
    payload: bytes
    config_name: str | None

class ExtensionData(NamedTuple):
    correlation_id: str
    timestamp: int
    timeout: int
    app_version_name: str | None
    extension_instance_name: str | None
    endpoint_id: str | None
    resource_path: str
    request_id: int | None
    payload: bytes | None
    status_code: int
    reason_phrase: str | None

def encode_client_data(
    correlation_id: str,
    timestamp: int,
    timeout: int,
    app_version_name: str,
    endpoint_id: str | None,
    resource_path: str,
    request_id: int | None,
    payload: bytes,
    config_name: str | None = None,
) -> bytes: ...
def decode_client_data(datum: bytes | bytearray | memoryview) -> ClientData: ...
def encode_extension_data(
    correlation_id: str,
    timestamp: int,
    timeout: int,
    app_version_name: str | None,
    extension_instance_name: str | None,
    endpoint_id: str | None,
    resource_path: str,
    request_id: int | None,
    payload: bytes | None,
    status_code: int,
    reason_phrase: str | None = None,
) -> bytes: ...
def decode_extension_data(datum: bytes | bytearray | memoryview) -> ExtensionData: ...
