"""The codec of 4/ESP: ClientData and ExtensionData as bare Avro datums.

Native callers write ClientData in three parts straight into the output of the NATS link, and read ExtensionData as a
view of borrowed slices. The Python functions do both directions of both messages for the SDK, the bench and the tests.

Bytes behind the datum are ignored: that is how an Avro reader sees a record that a newer writer has extended.

Source: 4/ESP "Extension Service Protocol", schemas 0004-client-data and 0004-extension-data.
"""

from typing import NamedTuple

from libc.string cimport memcpy

from kaa_gateway.wire.avro cimport (
    GOOD, LONG_SIZE_MAX, Reader, get_branch, get_bytes, get_int, get_long, get_optional_bytes, put_bytes, put_long,
    raise_malformed,
)
from kaa_gateway.wire.buffer cimport Buffer, to_bytes

from kaa_gateway.errors import MalformedAvro

cdef enum:
    ANSWER_OVERHEAD_MAX = 7 * (1 + LONG_SIZE_MAX) + 4 * LONG_SIZE_MAX + 1  # sizes and branches, and the numbers

# Index of null in each union of the schemas; the order of branches is part of the wire format.
cdef enum:
    NULL_FIRST = 0
    NULL_SECOND = 1


class ClientData(NamedTuple):
    """A message of a device to an extension. Times are in milliseconds."""

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
    """A message of an extension to a device. Times are in milliseconds."""

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


cdef Status read_client_data(const uint8_t* data, Py_ssize_t size, ClientDataView* view) noexcept nogil:
    """Fill the view from a datum. Hot path: the slices borrow from `data`, which the caller holds."""
    cdef Reader reader = Reader(data, data + size)
    cdef Status status = GOOD
    get_bytes(&reader, &view.correlation_id, &status)
    view.timestamp = get_long(&reader, &status)
    view.timeout = get_long(&reader, &status)
    get_bytes(&reader, &view.app_version_name, &status)
    get_optional_bytes(&reader, NULL_SECOND, &view.endpoint_id, &status)
    get_bytes(&reader, &view.resource_path, &status)
    view.has_request_id = get_branch(&reader, NULL_SECOND, &status)
    if view.has_request_id:
        view.request_id = get_int(&reader, &status)
    get_bytes(&reader, &view.payload, &status)
    get_optional_bytes(&reader, NULL_FIRST, &view.config_name, &status)
    return status


cdef Status read_extension_data(const uint8_t* data, Py_ssize_t size, ExtensionDataView* view) noexcept nogil:
    """Fill the view from a datum. Hot path: the slices borrow from `data`, which the caller holds."""
    cdef Reader reader = Reader(data, data + size)
    cdef Status status = GOOD
    get_bytes(&reader, &view.correlation_id, &status)
    view.timestamp = get_long(&reader, &status)
    view.timeout = get_long(&reader, &status)
    view.address.data = reader.at
    get_optional_bytes(&reader, NULL_SECOND, &view.app_version_name, &status)
    get_optional_bytes(&reader, NULL_SECOND, &view.extension_instance_name, &status)
    get_optional_bytes(&reader, NULL_SECOND, &view.endpoint_id, &status)
    get_bytes(&reader, &view.resource_path, &status)
    view.has_request_id = get_branch(&reader, NULL_SECOND, &status)
    if view.has_request_id:
        view.request_id = get_int(&reader, &status)
    view.address.size = reader.at - view.address.data
    get_optional_bytes(&reader, NULL_SECOND, &view.payload, &status)
    view.status_code = get_int(&reader, &status)
    get_optional_bytes(&reader, NULL_FIRST, &view.reason_phrase, &status)
    return status


cdef bytes encode_middle(bytes app_version_name, bytes endpoint_id, bytes resource_path):
    """Return the fields of ClientData that a route fixes: appVersionName, endpointId (None for null), resourcePath."""
    cdef Buffer out = Buffer()
    append_string(out, app_version_name)
    append_optional(out, NULL_SECOND, endpoint_id)
    append_string(out, resource_path)
    return out.copy()


cdef bytes encode_config_name(bytes config_name):
    """Return the last field of ClientData, which takes the place of the null that put_tail writes."""
    cdef Buffer out = Buffer()
    append_optional(out, NULL_FIRST, config_name)
    return out.copy()


cdef uint8_t* put_head(uint8_t* at, const char* correlation_id, int64_t timestamp, int64_t timeout) noexcept nogil:
    """Write correlationId (36 characters, borrowed), timestamp and timeout: at most HEAD_SIZE_MAX bytes. Hot path."""
    at[0] = CORRELATION_ID_SIZE << 1
    memcpy(at + 1, correlation_id, CORRELATION_ID_SIZE)
    at = put_long(at + 1 + CORRELATION_ID_SIZE, timestamp)
    return put_long(at, timeout)


cdef uint8_t* put_tail(
    uint8_t* at, bint has_request_id, int32_t request_id, const uint8_t* payload, Py_ssize_t payload_size
) noexcept nogil:
    """Write requestId, payload (borrowed) and a null configName: TAIL_OVERHEAD_MAX + payload_size bytes. Hot path."""
    if has_request_id:
        at[0] = 0
        at = put_long(at + 1, request_id)
    else:
        at[0] = NULL_SECOND << 1
        at += 1
    at = put_bytes(at, payload, payload_size)
    at[0] = 0
    return at + 1


cdef Py_ssize_t answer_size_max(
    const ClientDataView* request, Slice instance, Slice payload, Slice reason_phrase
) noexcept nogil:
    """Return an upper bound of what put_answer writes."""
    return (
        ANSWER_OVERHEAD_MAX + request.correlation_id.size + request.app_version_name.size + request.endpoint_id.size
        + request.resource_path.size + instance.size + payload.size + reason_phrase.size
    )


cdef uint8_t* put_answer(
    uint8_t* at, const ClientDataView* request, int64_t timestamp, Slice instance, Slice payload,
    int32_t status_code, Slice reason_phrase
) noexcept nogil:
    """Write the ExtensionData that answers a ClientData: at most answer_size_max bytes. Hot path."""
    at = put_bytes(at, request.correlation_id.data, request.correlation_id.size)
    at = put_long(at, timestamp)
    at = put_long(at, 0)
    at = put_optional(at, NULL_SECOND, request.app_version_name)
    at = put_optional(at, NULL_SECOND, instance)
    at = put_optional(at, NULL_SECOND, request.endpoint_id)
    at = put_bytes(at, request.resource_path.data, request.resource_path.size)
    if request.has_request_id:
        at = put_long(put_long(at, 1 - NULL_SECOND), request.request_id)
    else:
        at = put_long(at, NULL_SECOND)
    at = put_optional(at, NULL_SECOND, payload)
    at = put_long(at, status_code)
    return put_optional(at, NULL_FIRST, reason_phrase)


cdef uint8_t* put_optional(uint8_t* at, int null_branch, Slice value) noexcept nogil:
    if value.data == NULL:
        return put_long(at, null_branch)
    return put_bytes(put_long(at, 1 - null_branch), value.data, value.size)


cdef int append_long(Buffer out, int64_t value) except -1:
    out.size = put_long(out.reserve(LONG_SIZE_MAX), value) - out.data
    return 0


cdef int append_string(Buffer out, bytes value) except -1:
    append_long(out, len(value))
    return out.append(<const uint8_t*>value, len(value))


cdef int append_optional(Buffer out, int null_branch, bytes value) except -1:
    append_long(out, null_branch if value is None else 1 - null_branch)
    if value is not None:
        append_string(out, value)
    return 0


cdef int append_optional_int(Buffer out, value) except -1:
    cdef int32_t number
    append_long(out, NULL_SECOND if value is None else 0)
    if value is not None:
        number = value
        append_long(out, number)
    return 0


cdef bytes utf8(str value):
    return None if value is None else value.encode()


cdef str text(Slice value):
    if value.data == NULL:
        return None
    try:
        return value.data[:value.size].decode()
    except UnicodeDecodeError as error:
        raise MalformedAvro("avro_not_utf8") from error


def encode_client_data(
    str correlation_id not None, int64_t timestamp, int64_t timeout, str app_version_name not None, str endpoint_id,
    str resource_path not None, request_id, bytes payload not None, str config_name=None,
):
    """Return a ClientData datum; request_id is None or a signed 32-bit integer (OverflowError otherwise)."""
    cdef Buffer out = Buffer()
    append_string(out, utf8(correlation_id))
    append_long(out, timestamp)
    append_long(out, timeout)
    append_string(out, utf8(app_version_name))
    append_optional(out, NULL_SECOND, utf8(endpoint_id))
    append_string(out, utf8(resource_path))
    append_optional_int(out, request_id)
    append_string(out, payload)
    append_optional(out, NULL_FIRST, utf8(config_name))
    return out.copy()


def decode_client_data(const uint8_t[::1] datum not None):
    """Return the ClientData in a bytes-like object. Raise MalformedAvro if there is none."""
    cdef ClientDataView view
    cdef const uint8_t* data = &datum[0] if datum.shape[0] else NULL
    cdef Status status = read_client_data(data, datum.shape[0], &view)
    if status != GOOD:
        raise_malformed(status)
    return ClientData(
        text(view.correlation_id), view.timestamp, view.timeout, text(view.app_version_name), text(view.endpoint_id),
        text(view.resource_path), view.request_id if view.has_request_id else None, to_bytes(view.payload),
        text(view.config_name),
    )


def encode_extension_data(
    str correlation_id not None, int64_t timestamp, int64_t timeout, str app_version_name, str extension_instance_name,
    str endpoint_id, str resource_path not None, request_id, bytes payload, int32_t status_code,
    str reason_phrase=None,
):
    """Return an ExtensionData datum; request_id is None or a signed 32-bit integer (OverflowError otherwise)."""
    cdef Buffer out = Buffer()
    append_string(out, utf8(correlation_id))
    append_long(out, timestamp)
    append_long(out, timeout)
    append_optional(out, NULL_SECOND, utf8(app_version_name))
    append_optional(out, NULL_SECOND, utf8(extension_instance_name))
    append_optional(out, NULL_SECOND, utf8(endpoint_id))
    append_string(out, utf8(resource_path))
    append_optional_int(out, request_id)
    append_optional(out, NULL_SECOND, payload)
    append_long(out, status_code)
    append_optional(out, NULL_FIRST, utf8(reason_phrase))
    return out.copy()


def decode_extension_data(const uint8_t[::1] datum not None):
    """Return the ExtensionData in a bytes-like object. Raise MalformedAvro if there is none."""
    cdef ExtensionDataView view
    cdef const uint8_t* data = &datum[0] if datum.shape[0] else NULL
    cdef Status status = read_extension_data(data, datum.shape[0], &view)
    if status != GOOD:
        raise_malformed(status)
    return ExtensionData(
        text(view.correlation_id), view.timestamp, view.timeout, text(view.app_version_name),
        text(view.extension_instance_name), text(view.endpoint_id), text(view.resource_path),
        view.request_id if view.has_request_id else None, to_bytes(view.payload), view.status_code,
        text(view.reason_phrase),
    )
