"""A push as a JSON object, for responses that have several. The payload is a text in it, because the gateway does not
look into payloads.

Source: docs/devices.md, "Several pushes in one response".
"""

from base64 import b64encode

import msgspec

from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    ID_SIZE_MAX = 128   # bytes


cdef str text_of(Slice text):
    return text.data[:text.size].decode("utf-8", "replace") if text.size else ""


cdef bytes encode_push(const ExtensionDataView* data):
    """Return the JSON object of a push, without a line break."""
    cdef dict fields = {"resourcePath": text_of(data.resource_path), "statusCode": data.status_code}
    cdef bytes payload = data.payload.data[:data.payload.size] if data.payload.size else b""
    if data.reason_phrase.size:
        fields["reasonPhrase"] = text_of(data.reason_phrase)
    try:
        fields["payload"] = payload.decode()
    except UnicodeDecodeError:
        fields["payloadBase64"] = b64encode(payload).decode()
    return msgspec.json.encode(fields)


cdef bytes event_id(const ExtensionDataView* data):
    """Return the correlation ID of a push if it can name an event: it is printable ASCII, and not long. Else None."""
    cdef Py_ssize_t at
    cdef Slice name = data.correlation_id
    if not 0 < name.size <= ID_SIZE_MAX:
        return None
    for at in range(name.size):
        if not 0x20 < name.data[at] < 0x7F:
            return None
    return name.data[:name.size]
