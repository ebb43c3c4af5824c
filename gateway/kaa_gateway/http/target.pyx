"""Request targets of HTTP: from the URL of a POST to the resource path of 1/KP.

Levels are percent-decoded once, and only to what cannot change their number: an encoded slash is refused, and `..` is
a level like any other, because 1/KP paths name no files. What the path means is the router's.

Source: RFC 9112 section 3.2 (request targets); RFC 3986 section 2.1; 1/KP, resource paths.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from kaa_gateway.kp.resource_path cimport asks_no_answer, is_clean, is_kp1
from kaa_gateway.wire.buffer cimport Slice

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* a, const char* b, size_t size)

cdef enum:
    GOOD = 0
    BAD_REQUEST = 400
    NOT_FOUND = 404


cdef inline int hex_value(uint8_t character) noexcept nogil:
    if c"0" <= character <= c"9":
        return character - c"0"
    character |= 0x20
    if c"a" <= character <= c"f":
        return character - c"a" + 10
    return -1


cdef Slice absolute_path(Slice target) noexcept nogil:
    """The path of an absolute-form target `http://authority/path`; data is NULL if it is none."""
    cdef Py_ssize_t scheme_size
    cdef const uint8_t* slash
    if target.size > 7 and strncasecmp(<const char*>target.data, b"http://", 7) == 0:
        scheme_size = 7
    elif target.size > 8 and strncasecmp(<const char*>target.data, b"https://", 8) == 0:
        scheme_size = 8
    else:
        return Slice(NULL, 0)
    slash = <const uint8_t*>memchr(target.data + scheme_size, c"/", <size_t>(target.size - scheme_size))
    if slash == NULL or memchr(target.data, c"?", <size_t>(slash - target.data)) != NULL:
        return Slice(NULL, 0)
    return Slice(slash, target.data + target.size - slash)


cdef int decode(Slice encoded, Buffer path) except -1:
    """Percent-decode up to the query into `path`: GOOD or BAD_REQUEST."""
    cdef uint8_t* out = path.reserve(encoded.size)
    cdef Py_ssize_t at = 0, size = 0
    cdef int high, low
    while at < encoded.size and encoded.data[at] != c"?":
        if encoded.data[at] == c"#":
            return BAD_REQUEST
        if encoded.data[at] != c"%":
            out[size] = encoded.data[at]
            at += 1
        else:
            if encoded.size - at < 3:
                return BAD_REQUEST
            high = hex_value(encoded.data[at + 1])
            low = hex_value(encoded.data[at + 2])
            if high < 0 or low < 0 or (high << 4 | low) == c"/":
                return BAD_REQUEST
            out[size] = <uint8_t>(high << 4 | low)
            at += 3
        size += 1
    path.size = size
    return GOOD if is_clean(Slice(out, size)) else BAD_REQUEST


cdef int read_target(bytes target, bytes prefix, Buffer path) except -1:
    """Put the resource path of a request target into `path`: 0, or the status of its refusal, 400 or 404. Hot path.

    `prefix` (`/kpc`, or nothing) may stand before it or not. The resource path has no leading slash.
    """
    cdef Slice encoded = Slice(<const uint8_t*>target, len(target))
    cdef Py_ssize_t prefix_size = len(prefix)
    path.size = 0
    if encoded.data[0] != c"/":
        encoded = absolute_path(encoded)
        if encoded.data == NULL:
            return BAD_REQUEST
    if decode(encoded, path) != GOOD:
        return BAD_REQUEST
    if prefix_size and path.size > prefix_size and path.data[prefix_size] == c"/" \
            and memcmp(path.data, <const char*>prefix, prefix_size) == 0:
        path.consume(prefix_size)
    path.consume(1)
    return GOOD if is_kp1(Slice(path.data, path.size)) else NOT_FOUND


cdef bint wants_no_answer(bytes target) noexcept:
    """Whether the query of a request target has the parameter that asks for no answer. Hot path."""
    cdef const uint8_t* at = <const uint8_t*>target
    cdef const uint8_t* end = at + len(target)
    cdef const uint8_t* ampersand
    at = <const uint8_t*>memchr(at, c"?", <size_t>(end - at))
    while at != NULL:
        at += 1
        ampersand = <const uint8_t*>memchr(at, c"&", <size_t>(end - at))
        if asks_no_answer(Slice(at, (end if ampersand == NULL else ampersand) - at)):
            return True
        at = ampersand
    return False


def resource_path(bytes target not None, bytes prefix not None):
    """The resource path of a request target, or the status of its refusal."""
    cdef Buffer path = Buffer()
    cdef int status = read_target(target, prefix, path)
    return path.copy() if status == GOOD else status
