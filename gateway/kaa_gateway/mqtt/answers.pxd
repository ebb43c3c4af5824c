from libc.stdint cimport int64_t

from kaa_gateway.kp.session cimport Delivery
from kaa_gateway.wire.buffer cimport Slice


cdef enum:
    REASON_PHRASE_SIZE_MAX = 1024  # bytes of an extension's reason phrase; the rest is cut off


cdef inline int64_t deadline_of(const Delivery* delivery) noexcept nogil:
    # Return when a message expires, in ms since the epoch, or 0. Hot path.
    if delivery.data.timeout <= 0 or delivery.data.timestamp > (<int64_t>1 << 62) - delivery.data.timeout:
        return 0
    return delivery.data.timestamp + delivery.data.timeout


cdef bytes error_payload(int status, str reason_phrase)
cdef str phrase_of(int status, Slice reason_phrase)
