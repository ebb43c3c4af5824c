"""The gateway's codecs and link in loops. See codecs.pyx."""

from kaa_gateway.bus.link import Link

def encode_client_data(
    correlation_id: str,
    app_version_name: str,
    endpoint_id: str,
    resource_path: str,
    payload: bytes,
    count: int,
) -> bytes: ...
def decode_extension_data(datum: bytes, count: int) -> int: ...
def publish(link: Link, head: bytes, payload: bytes, count: int) -> None: ...
