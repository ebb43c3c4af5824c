"""Resource paths of 1/KP: reads them, checks them, and writes response topics.

    kp1/<application version>/<extension instance>/[<endpoint token>/]<extension specific>[/<request ID>]

What the parts mean (whether a version exists, whether an extension has endpoints) is the router's.

Source: 1/KP "Kaa Protocol", sections on resource paths and request IDs.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from kaa_gateway.wire.text cimport put_decimal

cdef enum:
    REQUEST_ID_DIGITS_MAX = 10  # of an Avro int, leading zeros included
    REQUEST_ID_MAX = 0x7FFFFFFF
    PREFIX_SIZE = 4  # of "kp1/"


cdef bint split_request_id(Slice topic, Py_ssize_t* base_size, int32_t* request_id) noexcept nogil:
    """Return whether the last level is a request ID. `base_size` is then the size before its slash. Hot path.

    A number that does not fit an Avro int is an ordinary path level.
    """
    cdef Py_ssize_t at = topic.size
    cdef int64_t value = 0, scale = 1
    base_size[0] = topic.size
    while at > 0 and c"0" <= topic.data[at - 1] <= c"9":
        at -= 1
        if topic.size - at > REQUEST_ID_DIGITS_MAX:
            return False
        value += scale * (topic.data[at] - c"0")
        scale *= 10
    if at == topic.size or at == 0 or topic.data[at - 1] != c"/" or value > REQUEST_ID_MAX:
        return False
    base_size[0] = at - 1
    request_id[0] = <int32_t>value
    return True


cdef bint is_kp1(Slice topic) noexcept nogil:
    """Return whether the first level is kp1."""
    return topic.size >= PREFIX_SIZE and memcmp(topic.data, b"kp1/", PREFIX_SIZE) == 0


cdef bint take_level(Slice text, Py_ssize_t at, Slice* level) noexcept nogil:
    """Find the level that starts at offset `at`. Return whether it is not empty."""
    cdef const uint8_t* end = <const uint8_t*>memchr(text.data + at, c"/", <size_t>(text.size - at))
    level.data = text.data + at
    level.size = (end if end != NULL else text.data + text.size) - level.data
    return level.size > 0


cdef bint split_resource_path(Slice topic, ResourcePath* path) noexcept nogil:
    """Find the two names after kp1 and the rest of a topic. Return whether they are there; what is not is empty."""
    cdef Py_ssize_t at = PREFIX_SIZE
    path.app_version = path.extension = path.rest = Slice(NULL, 0)
    if not is_kp1(topic) or not take_level(topic, at, &path.app_version):
        return False
    at += path.app_version.size + 1
    if at >= topic.size or not take_level(topic, at, &path.extension):
        return False
    at += path.extension.size
    path.rest = Slice(topic.data + at, topic.size - at)
    return True


cdef bint split_token(Slice rest, Slice* token, Slice* path) noexcept nogil:
    """Split `/<token>[/<path>]`. Return whether there is a token; if not, both are empty.

    The path keeps its leading slash and may be empty.
    """
    token[0] = path[0] = Slice(NULL, 0)
    if rest.size < 2 or not take_level(rest, 1, token):
        return False
    path[0] = Slice(rest.data + 1 + token.size, rest.size - 1 - token.size)
    return True


cdef inline bint are_printable(uint64_t eight) noexcept nogil:
    """Return whether eight bytes are all printable ASCII.

    A subtraction borrows into the top bit of a byte below 0x20, an addition carries into that of 0x7F; bytes from 0x80
    on have it anyway, so whatever a carry into a neighbour does, that word is found.
    """
    return (
        (eight - <uint64_t>0x2020202020202020) | (eight + <uint64_t>0x0101010101010101) | eight
    ) & <uint64_t>0x8080808080808080 == 0


cdef bint is_printable(Slice text) noexcept nogil:
    """Return whether a text is printable ASCII, as almost every path is. Hot path."""
    cdef uint64_t eight
    cdef Py_ssize_t at = 0
    while at + 8 <= text.size:
        memcpy(&eight, text.data + at, 8)
        if not are_printable(eight):
            return False
        at += 8
    while at < text.size:
        if not 0x20 <= text.data[at] < 0x7F:
            return False
        at += 1
    return True


cdef bint is_clean(Slice text) noexcept:
    """Return whether a text is UTF-8 without control characters (C0, DEL, C1), which a terminal would obey."""
    cdef Py_ssize_t i
    if is_printable(text):
        return True
    for i in range(text.size):
        if text.data[i] < 0x20 or text.data[i] == 0x7F:
            return False
    try:
        decoded = text.data[:text.size].decode("utf-8")
    except UnicodeDecodeError:
        return False
    for character in decoded:
        if 0x80 <= ord(character) < 0xA0:
            return False
    return True


cdef bint is_clean_topic(Slice text) noexcept:
    """Return whether a text is clean and without MQTT wildcards, so that it may stand in a topic name. Hot path."""
    return is_clean(text) and not has_wildcard(text)


cdef bint is_clean_topic_again(CleanText* last, Slice text) noexcept:
    """Return the same as is_clean_topic, fast for the text for which that was true last. Hot path."""
    if text.size and text.size == last.size and memcmp(text.data, last.bytes, <size_t>text.size) == 0:
        return True
    if not is_clean_topic(text):
        return False
    if 0 < text.size <= CLEAN_TEXT_SIZE_MAX:
        memcpy(last.bytes, text.data, <size_t>text.size)
        last.size = text.size
    return True


cdef bint has_wildcard(Slice text) noexcept nogil:
    return (
        memchr(text.data, c"+", <size_t>text.size) != NULL or memchr(text.data, c"#", <size_t>text.size) != NULL
    )


cdef inline uint8_t* put(uint8_t* at, Slice text) noexcept nogil:
    memcpy(at, text.data, <size_t>text.size)
    return at + text.size


cdef int append_topic(
    Buffer out, Slice app_version, Slice extension, Slice token, Slice path, bint has_request_id, int32_t request_id,
    Slice suffix,
) except -1:
    """Append kp1/<version>/<extension>[/<token>]<path>[/<request ID>]<suffix>. An absent token has data NULL.

    Hot path. A path without its leading slash is given one; the suffix is "/status" or "/error".
    """
    cdef uint8_t* at = out.reserve(
        PREFIX_SIZE + app_version.size + extension.size + token.size + path.size + suffix.size + 24
    )
    memcpy(at, b"kp1/", PREFIX_SIZE)
    at = put(at + PREFIX_SIZE, app_version)
    at[0] = c"/"
    at = put(at + 1, extension)
    if token.data != NULL:
        at[0] = c"/"
        at = put(at + 1, token)
    if path.size:
        if path.data[0] != c"/":
            at[0] = c"/"
            at += 1
        at = put(at, path)
    if has_request_id and request_id >= 0:
        at[0] = c"/"
        at = put_decimal(at + 1, request_id)
    if suffix.size:
        at = put(at, suffix)
    out.size = at - out.data
    return 0


def parse(bytes topic not None):
    """Return (application version, extension instance, rest) of a topic, or None if it is no resource path."""
    cdef ResourcePath path
    if not split_resource_path(Slice(<const uint8_t*>topic, len(topic)), &path):
        return None
    return (
        path.app_version.data[:path.app_version.size], path.extension.data[:path.extension.size],
        path.rest.data[:path.rest.size],
    )


def is_clean_text(bytes text not None):
    """Return whether a text is UTF-8 without control characters."""
    return is_clean(Slice(<const uint8_t*>text, len(text)))


def request_id_of(bytes topic not None):
    """Return (topic without its request ID, request ID or None)."""
    cdef Py_ssize_t base_size
    cdef int32_t request_id = 0
    if split_request_id(Slice(<const uint8_t*>topic, len(topic)), &base_size, &request_id):
        return topic[:base_size], request_id
    return topic, None
