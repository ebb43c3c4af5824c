from libc.stdint cimport int32_t, uint8_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef struct ResourcePath:
    # The parts of kp1/<application version>/<extension instance>/<rest>; slices borrow from the topic.
    Slice app_version
    Slice extension
    Slice rest           # what follows the extension instance, from its slash on; may be empty


cdef enum:
    CLEAN_TEXT_SIZE_MAX = 120  # bytes; longer ones are looked at each time


cdef struct CleanText:
    # What is_clean_topic was true for last.
    Py_ssize_t size
    uint8_t[CLEAN_TEXT_SIZE_MAX] bytes


cdef bint split_request_id(Slice topic, Py_ssize_t* base_size, int32_t* request_id) noexcept nogil
cdef bint is_kp1(Slice topic) noexcept nogil
cdef bint split_resource_path(Slice topic, ResourcePath* path) noexcept nogil
cdef bint split_token(Slice rest, Slice* token, Slice* path) noexcept nogil
cdef bint is_clean(Slice text) noexcept
cdef bint is_clean_topic_again(CleanText* last, Slice text) noexcept
cdef int append_topic(
    Buffer out, Slice app_version, Slice extension, Slice token, Slice path, bint has_request_id, int32_t request_id,
    Slice suffix,
) except -1
