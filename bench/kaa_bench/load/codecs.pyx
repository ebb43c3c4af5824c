"""Loops over the gateway's codecs and its NATS link, which are called natively as in the gateway.

fastavro and nats-py, which they are compared with, are in probes/codecs.py.

Source: 4/ESP, ClientData and ExtensionData.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kaa_gateway.bus.link cimport Link
from kaa_gateway.wire.avro cimport GOOD
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport (
    CORRELATION_ID_SIZE, HEAD_SIZE_MAX, TAIL_OVERHEAD_MAX, ExtensionDataView, encode_middle, put_head, put_tail,
    read_extension_data,
)

from kaa_bench.errors import BenchError


def encode_client_data(
    str correlation_id, str app_version_name, str endpoint_id, str resource_path, bytes payload, int64_t count
):
    """Encode a ClientData `count` times, with the constant part prepared once as by a route. Return the last one."""
    cdef bytes identifier = correlation_id.encode()
    cdef bytes middle = encode_middle(app_version_name.encode(), endpoint_id.encode(), resource_path.encode())
    cdef const char* identifier_data = identifier
    cdef const uint8_t* middle_data = middle
    cdef const uint8_t* payload_data = payload
    cdef Py_ssize_t middle_size = len(middle), payload_size = len(payload)
    cdef uint8_t* out
    cdef uint8_t* at = NULL
    cdef int64_t number, timestamp = 1_700_000_000_000
    if len(identifier) != CORRELATION_ID_SIZE:
        raise ValueError("a correlation ID is a UUID")
    out = <uint8_t*>malloc(<size_t>(HEAD_SIZE_MAX + middle_size + TAIL_OVERHEAD_MAX + payload_size))
    if out == NULL:
        raise MemoryError
    try:
        with nogil:
            for number in range(count):
                at = put_head(out, identifier_data, timestamp + number, 0)
                memcpy(at, middle_data, <size_t>middle_size)
                at = put_tail(at + middle_size, True, <int>(number & 0xFFFF), payload_data, payload_size)
        return out[:at - out] if count else b""
    finally:
        free(out)


def decode_extension_data(bytes datum, int64_t count):
    """Read an ExtensionData `count` times as a view. Return the sum of its status codes."""
    cdef ExtensionDataView view
    cdef const uint8_t* data = datum
    cdef Py_ssize_t size = len(datum)
    cdef int64_t _, statuses = 0
    for _ in range(count):
        if read_extension_data(data, size, &view) != GOOD:
            raise BenchError("the datum is not an ExtensionData")
        statuses += view.status_code
    return statuses


def publish(Link link not None, bytes head, bytes payload, int count):
    """Put `count` publications into the link's block, which is written at the end of the tick."""
    cdef Slice body = Slice(<const uint8_t*>payload, len(payload))
    cdef int _
    for _ in range(count):
        link.publish(head, Slice(NULL, 0), body)
