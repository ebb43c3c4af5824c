"""Read the request target of HTTP: it names the resource path of 1/KP.

Its levels are percent-decoded once; an encoded slash is refused, as it would change their number. `..` is a level like
any other, because resource paths name no files.

Source: RFC 9112 section 3.2; RFC 3986 section 2.1 (percent encoding); 1/KP, resource paths.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

from kaa_gateway.http.refusals cimport BAD_TARGET, NOT_FOUND
from kaa_gateway.kp.resource_path cimport is_clean, is_kp1
from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.query cimport clear_query, read_query


cdef inline int hex_value(uint8_t character) noexcept nogil:
    """Return the value of a hexadecimal digit, or -1."""
    if c"0" <= character <= c"9":
        return character - c"0"
    character |= 0x20
    if c"a" <= character <= c"f":
        return character - c"a" + 10
    return -1


cdef Slice absolute_path(Slice target) noexcept nogil:
    """Return the path of an absolute-form target `http://authority/path`; its data is NULL if there is none."""
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


cdef class RequestTarget:
    """The target of a request, and the resource path in it."""

    cdef int clear(self) except -1:
        """Forget the target. Hot path."""
        self.text = self.path = Slice(NULL, 0)
        self.held = None
        self.decoded = self.refusal = None
        clear_query(&self.query)
        return 0

    cdef int hold(self) except -1:
        """Copy the text: it stays longer than the head."""
        cdef const uint8_t* borrowed = self.text.data
        if borrowed == NULL or self.held is not None:
            return 0
        self.held = to_bytes(self.text)
        self.text = slice_of(self.held)
        if self.decoded is None and self.path.data != NULL:
            self.path.data = self.text.data + (self.path.data - borrowed)
        return 0

    cdef int read_path(self, bytes prefix) except -1:
        """Set `path`, or `refusal` if there is none. Hot path.

        The path has no leading slash and no query. `prefix` may stand before it or not.
        """
        self.refusal = self.find_path(prefix)
        return 0

    cdef Refusal find_path(self, bytes prefix):
        """Set `path`; return why there is none, or None."""
        cdef Slice path = self.text
        cdef Py_ssize_t prefix_size = len(prefix)
        cdef const uint8_t* query
        if path.data[0] != c"/":
            path = absolute_path(path)
            if path.data == NULL:
                return BAD_TARGET
        query = <const uint8_t*>memchr(path.data, c"?", <size_t>path.size)
        if query != NULL:
            read_query(query + 1, path.data + path.size, &self.query)
            path.size = query - path.data
        if memchr(path.data, c"#", <size_t>path.size) != NULL:
            return BAD_TARGET
        if memchr(path.data, c"%", <size_t>path.size) != NULL:
            if not self.decode_path(path):
                return BAD_TARGET
            path = Slice(self.decoded.data, self.decoded.size)
        if not is_clean(path):
            return BAD_TARGET
        if prefix_size and path.size > prefix_size and path.data[prefix_size] == c"/" \
                and memcmp(path.data, <const char*>prefix, <size_t>prefix_size) == 0:
            path.data += prefix_size
            path.size -= prefix_size
        self.path = Slice(path.data + 1, path.size - 1)
        return None if is_kp1(self.path) else NOT_FOUND

    cdef bint decode_path(self, Slice encoded) except -1:
        """Percent-decode a path into `decoded`; return False if it is malformed or has an encoded slash."""
        cdef uint8_t* out
        cdef Py_ssize_t at = 0, size = 0
        cdef int high, low
        self.decoded = Buffer()
        out = self.decoded.reserve(encoded.size)
        while at < encoded.size:
            if encoded.data[at] != c"%":
                out[size] = encoded.data[at]
                at += 1
            else:
                if encoded.size - at < 3:
                    return False
                high = hex_value(encoded.data[at + 1])
                low = hex_value(encoded.data[at + 2])
                if high < 0 or low < 0 or (high << 4 | low) == c"/":
                    return False
                out[size] = <uint8_t>(high << 4 | low)
                at += 3
            size += 1
        self.decoded.size = size
        return True


def resource_path(bytes target not None, bytes prefix not None):
    """Return the resource path of a request target, or the status of its refusal; for tests."""
    cdef RequestTarget read = RequestTarget()
    read.text = slice_of(target)
    read.read_path(prefix)
    return read.path.data[:read.path.size] if read.refusal is None else read.refusal.status
