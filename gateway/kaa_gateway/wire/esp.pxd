from libc.stdint cimport int32_t, int64_t, uint8_t

from kaa_gateway.wire.avro cimport Status
from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    CORRELATION_ID_SIZE = 36  # characters of a UUID


cdef struct ClientDataView:
    # Slices borrow from the datum. A null union is a slice whose data is NULL; a null request ID has has_request_id 0.
    Slice correlation_id
    int64_t timestamp          # ms since the epoch
    int64_t timeout            # ms after timestamp, 0 = never expires
    Slice app_version_name
    Slice endpoint_id
    Slice resource_path
    bint has_request_id
    int32_t request_id
    Slice payload
    Slice config_name


cdef struct ExtensionDataView:
    # As ClientDataView.
    Slice address              # the encoded fields from app_version_name to the request ID: for whom it is, and what of
    Slice correlation_id
    int64_t timestamp
    int64_t timeout
    Slice app_version_name
    Slice extension_instance_name
    Slice endpoint_id
    Slice resource_path
    bint has_request_id
    int32_t request_id
    Slice payload
    int32_t status_code
    Slice reason_phrase


cdef Status read_client_data(const uint8_t* data, Py_ssize_t size, ClientDataView* view) noexcept nogil
cdef Status read_extension_data(const uint8_t* data, Py_ssize_t size, ExtensionDataView* view) noexcept nogil

# ClientData in three parts, so that a route encodes the middle one once: head (per message), middle (per route),
# tail (per message). Sizes are upper bounds for the reserve; the writers return the position behind what they wrote.
cdef enum:
    HEAD_SIZE_MAX = 1 + CORRELATION_ID_SIZE + 10 + 10
    TAIL_OVERHEAD_MAX = 1 + 5 + 10 + 1  # and the payload

# ExtensionData that answers a ClientData.
cdef Py_ssize_t answer_size_max(
    const ClientDataView* request, Slice instance, Slice payload, Slice reason_phrase
) noexcept nogil
cdef uint8_t* put_answer(
    uint8_t* at, const ClientDataView* request, int64_t timestamp, Slice instance, Slice payload,
    int32_t status_code, Slice reason_phrase
) noexcept nogil

cdef bytes encode_middle(bytes app_version_name, bytes endpoint_id, bytes resource_path)
cdef bytes encode_config_name(bytes config_name)
cdef uint8_t* put_head(uint8_t* at, const char* correlation_id, int64_t timestamp, int64_t timeout) noexcept nogil
cdef uint8_t* put_tail(
    uint8_t* at, bint has_request_id, int32_t request_id, const uint8_t* payload, Py_ssize_t payload_size
) noexcept nogil
