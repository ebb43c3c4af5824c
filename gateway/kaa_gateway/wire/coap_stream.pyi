"""CoAP messages over reliable transports. See coap_stream.pyx."""

from kaa_gateway.wire.coap import Message

STREAM_REASONS: tuple[str, ...]

def decode_stream(data: bytes) -> tuple[list[Message], bytes]: ...
def encode_stream(message: Message, has_length: bool = True) -> bytes: ...
