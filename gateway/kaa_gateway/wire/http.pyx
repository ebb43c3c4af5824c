"""The syntax of HTTP/1.1 requests: the request line, header fields, and lines between chunks.

Only what RFC 9112 allows a sender to write is read. Lines end with CRLF, a field is on one line, and there is no
whitespace that the grammar calls bad: what one parser forgives, another may read in another way.

Source: RFC 9112 (HTTP/1.1), whose sections the comments cite; RFC 9110 (HTTP semantics).
"""

from typing import NamedTuple

from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy, memset

from kaa_gateway.errors import ProtocolError

cdef enum:
    WORD = 8                # bytes that are looked at together
    VERSION_SIZE = 8        # of "HTTP/1.1"
    LENGTH_DIGITS_MAX = 18  # of a Content-Length, without zeros before it; more are cut, and too large anyway
    CHUNK_BITS_MAX = 56     # of the size of a chunk

cdef uint64_t LOW_BITS = 0x0101010101010101ULL
cdef uint64_t HIGH_BITS = 0x8080808080808080ULL

cdef uint8_t[256] token_characters  # 1 for those of a token (RFC 9110 section 5.6.2)


cdef int fill_token_characters() except -1:
    cdef uint8_t character
    memset(token_characters, 0, sizeof(token_characters))
    for character in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        token_characters[character] = 1
    return 0


fill_token_characters()


class Head(NamedTuple):
    """The head of a request as Python sees it."""

    method: bytes
    target: bytes
    version: tuple[int, int]  # major, minor
    fields: list[tuple[bytes, bytes]]  # names and values, as they were sent


cdef inline uint64_t word_at(const uint8_t* at) noexcept nogil:
    """Return eight bytes."""
    cdef uint64_t word
    memcpy(&word, at, WORD)
    return word


cdef inline uint64_t below(uint64_t word, uint8_t bound) noexcept nogil:
    """Return bits other than 0 if a byte of the word is below the bound, which is at most 0x80."""
    return (word - LOW_BITS * bound) & ~word & HIGH_BITS


cdef inline uint64_t deletes(uint64_t word) noexcept nogil:
    """Return bits other than 0 if a byte of the word is 0x7F."""
    return below(word ^ LOW_BITS * 0x7F, 1)


cdef inline bint is_blank(uint8_t character) noexcept nogil:
    """Return whether a character is a space or tab."""
    return character == c" " or character == c"\t"


cdef inline const uint8_t* skip_visible(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return the address behind the visible ASCII characters from here on."""
    cdef uint64_t word
    while end - at >= WORD:
        word = word_at(at)
        if (word & HIGH_BITS) | below(word, 0x21) | deletes(word):
            break
        at += WORD
    while at < end and 0x20 < at[0] < 0x7F:
        at += 1
    return at


cdef inline const uint8_t* skip_text(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return the address behind the characters of a field value from here on (RFC 9110 section 5.5)."""
    cdef uint64_t word
    while True:
        while end - at >= WORD:
            word = word_at(at)
            if below(word, 0x20) | deletes(word):
                break
            at += WORD
        while at < end and at[0] >= 0x20 and at[0] != 0x7F:
            at += 1
        if at == end or at[0] != c"\t":
            return at
        at += 1


cdef inline const uint8_t* skip_token(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return the address behind the characters of a token from here on."""
    while at < end and token_characters[at[0]]:
        at += 1
    return at


cdef inline bint is_line_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return whether CRLF is here."""
    return end - at >= 2 and at[0] == c"\r" and at[1] == c"\n"


cdef inline bint is_digit(uint8_t character) noexcept nogil:
    """Return whether a character is a decimal digit."""
    return c"0" <= character <= c"9"


cdef inline bint is_method(Slice name, const char* method, Py_ssize_t size) noexcept nogil:
    """Return whether a name is this method; case matters (RFC 9110 section 9.1)."""
    return name.size == size and memcmp(name.data, method, <size_t>size) == 0


cdef Method method_of(Slice name) noexcept nogil:
    """Return the method of this name."""
    if is_method(name, b"POST", 4):
        return METHOD_POST
    if is_method(name, b"HEAD", 4):
        return METHOD_HEAD
    if is_method(name, b"OPTIONS", 7):
        return METHOD_OPTIONS
    if is_method(name, b"CONNECT", 7):
        return METHOD_CONNECT
    if is_method(name, b"GET", 3):
        return METHOD_GET
    if is_method(name, b"PUT", 3) or is_method(name, b"DELETE", 6) \
            or is_method(name, b"TRACE", 5) or is_method(name, b"PATCH", 5):
        return METHOD_OTHER
    return METHOD_UNKNOWN


cdef inline bint is_target(Slice target) noexcept nogil:
    """Return whether a target begins as a path or an absolute URI does, or is `*`."""
    cdef Py_ssize_t at = 0
    if target.size == 0 or target.data[0] == c"*":
        return target.size == 1
    if target.data[0] == c"/":
        return True
    while at < target.size and c"a" <= (target.data[at] | 0x20) <= c"z":
        at += 1
    return at > 0 and target.size - at >= 3 and memcmp(target.data + at, b"://", 3) == 0


cdef LineFormat read_request_line(const uint8_t* data, Py_ssize_t size, RequestLine* line) noexcept nogil:
    """Read `method SP request-target SP HTTP-version CRLF` (section 3). Hot path.

    The target is visible ASCII, and begins as one of its forms does (section 3.2).
    """
    cdef const uint8_t* end = data + size
    cdef const uint8_t* at = skip_token(data, end)
    line.method_name = Slice(data, at - data)
    if line.method_name.size == 0 or at == end or at[0] != c" ":
        return LINE_MALFORMED
    line.method = method_of(line.method_name)
    line.target.data = at + 1
    at = skip_visible(at + 1, end)
    line.target.size = at - line.target.data
    if line.method != METHOD_CONNECT and not is_target(line.target):
        return LINE_MALFORMED
    if line.target.size == 0 or end - at < 1 + VERSION_SIZE + 2 or at[0] != c" ":
        return LINE_MALFORMED
    at += 1
    if memcmp(at, b"HTTP/", 5) != 0 or not is_digit(at[5]) or at[6] != c"." or not is_digit(at[7]):
        return LINE_MALFORMED
    line.major = at[5] - c"0"
    line.minor = at[7] - c"0"
    at += VERSION_SIZE
    if not is_line_end(at, end):
        return LINE_MALFORMED
    line.size = at + 2 - data
    return LINE_WELL_FORMED


cdef FieldFormat next_field(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t* at, Slice* name, Slice* value
) noexcept nogil:
    """Read the field line, or the empty line, that begins at `at`, and move `at` behind it (section 5). Hot path.

    The value is without the whitespace around it.
    """
    cdef const uint8_t* end = data + size
    cdef const uint8_t* here = data + at[0]
    cdef const uint8_t* value_end
    name.data = here
    here = skip_token(here, end)
    name.size = here - name.data
    if name.size == 0:
        if not is_line_end(here, end):
            return FIELD_MALFORMED
        at[0] += 2
        return FIELDS_ENDED
    if here == end or here[0] != c":":
        return FIELD_MALFORMED
    here += 1
    while here < end and is_blank(here[0]):
        here += 1
    value.data = here
    here = skip_text(here, end)
    if not is_line_end(here, end):
        return FIELD_MALFORMED
    value_end = here
    while value_end > value.data and is_blank((value_end - 1)[0]):
        value_end -= 1
    value.size = value_end - value.data
    at[0] = here + 2 - data
    return FIELD_WELL_FORMED


cdef int64_t read_content_length(Slice value) noexcept nogil:
    """Return the number in a Content-Length, or -1 if it is none (RFC 9110 section 8.6). Hot path.

    Zeros before it do not count. A number of more than LENGTH_DIGITS_MAX digits is cut.
    """
    cdef int64_t number = 0
    cdef int digits = 0
    cdef Py_ssize_t i
    if value.size == 0:
        return -1
    for i in range(value.size):
        if not is_digit(value.data[i]):
            return -1
        if digits < LENGTH_DIGITS_MAX:
            number = number * 10 + (value.data[i] - c"0")
            digits += number > 0
    return number


cdef inline int hex_value(uint8_t character) noexcept nogil:
    """Return the value of a hexadecimal digit, or -1."""
    if is_digit(character):
        return character - c"0"
    character |= 0x20
    return character - c"a" + 10 if c"a" <= character <= c"f" else -1


cdef const uint8_t* skip_quoted(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return the address behind a quoted string whose first quote is here, or NULL (RFC 9110 section 5.6.4)."""
    at += 1
    while at < end and at[0] != c'"':
        if at[0] == c"\\":
            at += 1
        if at == end or at[0] == 0x7F or (at[0] < 0x20 and at[0] != c"\t"):
            return NULL
        at += 1
    if at == end:
        return NULL
    return at + 1


cdef int64_t read_chunk_size(const uint8_t* line, Py_ssize_t size) noexcept nogil:
    """Return the size in the line before a chunk, or -1 (section 7.1). `line` ends with CRLF. Hot path.

    Extensions are checked and passed over. Whitespace around them, which the RFC calls bad, is refused.
    """
    cdef const uint8_t* end = line + size
    cdef const uint8_t* at = line
    cdef const uint8_t* part
    cdef int64_t number = 0
    cdef int digit
    while at < end:
        digit = hex_value(at[0])
        if digit < 0:
            break
        if number >> (CHUNK_BITS_MAX - 4):
            return -1
        number = number << 4 | digit
        at += 1
    if at == line:
        return -1
    while at < end and at[0] == c";":
        part = at + 1
        at = skip_token(part, end)
        if at == part:
            return -1
        if at == end or at[0] != c"=":
            continue
        part = at + 1
        if part < end and part[0] == c'"':
            at = skip_quoted(part, end)
            if at == NULL:
                return -1
        else:
            at = skip_token(part, end)
            if at == part:
                return -1
    return number if end - at == 2 and is_line_end(at, end) else -1


cdef bint has_option(Slice value, const char* option, Py_ssize_t size) noexcept nogil:
    """Return whether a list such as that of Connection has this element, which is in lower case (section 9.6)."""
    cdef const uint8_t* end = value.data + value.size
    cdef const uint8_t* at = value.data
    cdef Slice element
    while at < end:
        element.data = at
        while at < end and at[0] != c",":
            at += 1
        element.size = at - element.data
        at += 1
        while element.size and is_blank(element.data[0]):
            element.data += 1
            element.size -= 1
        while element.size and is_blank(element.data[element.size - 1]):
            element.size -= 1
        if is_text(element, option, size):
            return True
    return False


def read_head(bytes data not None):
    """Read a whole head, to its empty line; raise ProtocolError if it is malformed. Not for the hot path."""
    cdef RequestLine line
    cdef Slice name, value
    cdef Py_ssize_t at
    cdef FieldFormat field
    if read_request_line(data, len(data), &line) != LINE_WELL_FORMED:
        raise ProtocolError("http_malformed_request", "malformed request line")
    fields = []
    at = line.size
    while True:
        field = next_field(data, len(data), &at, &name, &value)
        if field == FIELD_MALFORMED:
            raise ProtocolError("http_malformed_request", "malformed header field")
        if field == FIELDS_ENDED:
            break
        fields.append((name.data[:name.size], value.data[:value.size]))
    return Head(
        line.method_name.data[:line.method_name.size],
        line.target.data[:line.target.size],
        (line.major, line.minor),
        fields,
    )
