"""Read HTTP/1.1 requests from a byte stream, sans-IO: heads, bodies, and their limits.

A request whose end another parser could see elsewhere is refused: behind a proxy, it would be a way to smuggle a second
request. A head is read when all of it is here, and so are trailers.

The syntax of lines is in kaa_gateway/wire/http.pyx, request targets are read in target.pyx. Decisions about whole
requests are made in connection.pyx, responses are written in response.pyx.

Source: RFC 9112 (HTTP/1.1), whose sections the comments cite; RFC 9110 (HTTP semantics).
"""

from libc.string cimport memchr, memcmp

from kaa_gateway.http.refusals cimport (
    BAD_HOST, BAD_LENGTH, BAD_LINE_END, BAD_VERSION, BODY_TOO_LARGE, FOLDED, HEADER_TOO_LARGE, MALFORMED,
    UNKNOWN_CODING, UNKNOWN_EXPECTATION, UNKNOWN_METHOD, URL_TOO_LONG,
)
from kaa_gateway.wire.buffer cimport to_bytes
from kaa_gateway.wire.http cimport (
    FIELDS_ENDED, FIELD_WELL_FORMED, LINE_WELL_FORMED, METHOD_CONNECT, METHOD_GET, METHOD_POST, METHOD_UNKNOWN,
    FieldFormat, RequestLine, has_option, is_text, next_field, read_chunk_size, read_content_length, read_request_line,
)

cdef enum:
    REQUEST_LINE_OVERHEAD = 32  # bytes of a request line that are not its target: method, version, spaces, CRLF
    FRAMING_FACTOR = 16         # bytes of chunk framing for each byte of content that are taken for honest
    BODY_KEEP = 512             # bytes of body buffer that a connection keeps between requests


cdef class RequestLimits:
    """Bounds of one request, in bytes."""

    def __init__(self, Py_ssize_t body_size, Py_ssize_t header_size, Py_ssize_t url_length):
        self.body_size = body_size
        self.header_size = header_size
        self.url_length = url_length


cdef bint is_host(Slice value) noexcept nogil:
    """Return whether a value may be a host and port (RFC 9110 section 7.2). Hot path."""
    cdef Py_ssize_t i
    cdef uint8_t character
    for i in range(value.size):
        character = value.data[i]
        if character <= 0x20 or character >= 0x7F or character in b'",/?#@\\<>':
            return False
    return True


cdef bytes bytes_of(Slice value, bytes last):
    """Return the bytes of a value. A client repeats most of its fields, so the object of the last one serves again."""
    if last is not None and len(last) == value.size and memcmp(<const char*>last, value.data, <size_t>value.size) == 0:
        return last
    return value.data[:value.size]


cdef class RequestParser:
    """Reads the requests of one connection, one at a time."""

    def __init__(self, RequestLimits limits not None, bytes path_prefix not None):
        self.limits = limits
        self.path_prefix = path_prefix
        self.target = RequestTarget()
        self.body = Buffer()
        self.next_request()

    cdef int next_request(self) except -1:
        """Forget this request, and expect the next. Hot path."""
        self.progress = INCOMPLETE
        self.phase = HEAD
        self.scanned = self.line_start = self.request_line_size = 0
        self.body_left = self.framing_size = self.content_size = 0
        self.discarding = False
        self.authorization = self.origin = None
        self.target.clear()
        self.content = Slice(NULL, 0)
        self.body.clear(BODY_KEEP)
        self.host_count = self.length_count = self.coding_count = 0
        self.content_length = -1
        self.host_malformed = self.chunked = self.expects_continue = self.expects_unknown = False
        self.closes = self.persists = self.accepts_events = self.streams = False
        return 0

    cdef bint is_at_rest(self) noexcept:
        """Return whether it has no part of a request."""
        return self.progress == INCOMPLETE and self.phase == HEAD and self.scanned == 0

    cdef int forget_client(self) except -1:
        """Keep nothing of the requests that it has read: it will read those of another client."""
        self.last_authorization = self.last_origin = None
        self.is_http_1_0 = False
        self.next_request()
        self.body.clear(0)
        return 0

    cdef int discard_body(self) except -1:
        """Read the body that follows the head without keeping it."""
        self.discarding = True
        return 0

    cdef int hold(self) except -1:
        """Copy what is borrowed of the request: it stays longer than the bytes that it was read from."""
        self.target.hold()
        if self.content.data != NULL:
            self.body.append(self.content.data, self.content.size)
            self.content = Slice(NULL, 0)
        return 0

    cdef Slice whole_body(self) noexcept:
        """Return the content of a complete request, borrowed until the next call. Hot path."""
        return self.content if self.content.data != NULL else Slice(self.body.data, self.body.size)

    cdef int refuse(self, Refusal refusal) except -1:
        """End the stream of requests: nothing that follows can be understood."""
        self.progress = REFUSED
        self.refusal = refusal
        self.body.clear(0)
        return 0

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read bytes of one request, borrowed for the call; return how many were consumed. Hot path.

        `progress` says what they came to. What is not consumed must be given again with more bytes: an incomplete
        head, for example. A complete request may still be borrowed from `data`, until `next_request` or `hold`.
        """
        cdef Py_ssize_t at = 0
        self.progress = INCOMPLETE
        if self.phase == HEAD:
            at = self.read_head(data, size)
            if self.phase == HEAD or self.progress == COMPLETE or self.progress == REFUSED:
                return at
            if self.phase == SIZED_BODY and size - at >= self.body_left:
                self.content = Slice(data + at, self.body_left)
                self.content_size = self.body_left
                self.progress = COMPLETE
                return at + self.body_left
            self.hold()
            if self.progress == HEADED:
                return at
        if self.phase == SIZED_BODY:
            return at + self.read_sized_body(data + at, size - at)
        return at + self.read_chunked_body(data + at, size - at)

    # ------------------------------------------------------------ head

    cdef Py_ssize_t read_head(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read the head once it is whole; return the bytes consumed. Hot path."""
        cdef Py_ssize_t at = 0, count
        cdef Refusal refusal
        if self.scanned == 0:
            # Some clients send an empty line after a body (section 2.2).
            while size - at >= 2 and data[at] == c"\r" and data[at + 1] == c"\n":
                at += 2
            if at == size or (size - at == 1 and data[at] == c"\r"):
                return at
            if not c"A" <= data[at] <= c"Z":
                self.refuse(MALFORMED)
                return at
        count = self.head_size(data + at, size - at)
        if count:
            refusal = self.read_fields(data + at, count)
            if refusal is None:
                self.end_head()
            else:
                self.refuse(refusal)
        return at + count

    cdef Py_ssize_t head_size(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Return the size of the head that starts here; 0 if it is incomplete or refused. Looks at each byte once."""
        cdef const uint8_t* found
        cdef Py_ssize_t end
        while True:
            found = <const uint8_t*>memchr(data + self.scanned, c"\n", <size_t>(size - self.scanned))
            end = found - data if found != NULL else size
            if self.request_line_size == 0:
                if end > self.limits.url_length + REQUEST_LINE_OVERHEAD:
                    self.refuse(URL_TOO_LONG)
                    return 0
            elif end - self.request_line_size > self.limits.header_size:
                self.refuse(HEADER_TOO_LARGE)
                return 0
            elif self.line_start < size and data[self.line_start] in (c" ", c"\t"):
                self.refuse(FOLDED)
                return 0
            self.scanned = end
            if found == NULL:
                return 0
            if end == 0 or data[end - 1] != c"\r":
                self.refuse(BAD_LINE_END)
                return 0
            self.scanned = end + 1
            if end - 1 == self.line_start:
                return end + 1
            if self.request_line_size == 0:
                self.request_line_size = end + 1
            self.line_start = end + 1

    cdef Refusal read_fields(self, const uint8_t* head, Py_ssize_t size):
        """Read a whole head; return why it is refused, or None. Hot path."""
        cdef RequestLine line
        cdef Slice name, value
        cdef Py_ssize_t at
        cdef FieldFormat field
        if read_request_line(head, size, &line) != LINE_WELL_FORMED:
            return MALFORMED
        if line.method == METHOD_UNKNOWN:
            return UNKNOWN_METHOD
        if line.target.size > self.limits.url_length:
            return URL_TOO_LONG
        if line.major != 1 or line.minor > 1:
            return BAD_VERSION
        self.method = line.method
        self.is_http_1_0 = line.minor == 0
        self.target.text = line.target
        at = line.size
        while True:
            field = next_field(head, size, &at, &name, &value)
            if field == FIELD_WELL_FORMED:
                self.take_field(name, value)
            elif field == FIELDS_ENDED:
                return self.check_head()
            else:
                return MALFORMED

    cdef int take_field(self, Slice name, Slice value) except -1:
        """Note a header field that matters. Hot path."""
        if name.size == 4:
            if is_text(name, b"host", 4):
                self.host_count += 1
                self.host_malformed = not is_host(value)
        elif name.size == 6:
            if is_text(name, b"expect", 6):
                if is_text(value, b"100-continue", 12):
                    self.expects_continue = True
                else:
                    self.expects_unknown = True
            elif is_text(name, b"origin", 6):
                self.origin = self.last_origin = bytes_of(value, self.last_origin)
            elif is_text(name, b"accept", 6):
                self.accepts_events = has_option(value, b"text/event-stream", 17)
        elif name.size == 10:
            if is_text(name, b"connection", 10):
                self.closes |= has_option(value, b"close", 5)
                self.persists |= has_option(value, b"keep-alive", 10)
        elif name.size == 13:
            if is_text(name, b"authorization", 13):
                self.authorization = self.last_authorization = bytes_of(value, self.last_authorization)
        elif name.size == 14:
            if is_text(name, b"content-length", 14):
                self.length_count += 1
                self.content_length = read_content_length(value)
        elif name.size == 17:
            if is_text(name, b"transfer-encoding", 17):
                self.coding_count += 1
                self.chunked = is_text(value, b"chunked", 7)
        return 0

    cdef Refusal check_head(self):
        """Return why a head is refused, or None. Hot path."""
        if self.host_count > 1 or self.host_malformed or (self.host_count == 0 and not self.is_http_1_0):
            return BAD_HOST
        if self.coding_count:
            # Sections 6.1 and 6.3. HTTP/1.0 has no transfer codings.
            if self.length_count or self.is_http_1_0:
                return BAD_LENGTH
            if self.coding_count > 1 or not self.chunked:
                return UNKNOWN_CODING
        if self.length_count > 1 or (self.length_count == 1 and self.content_length < 0):
            return BAD_LENGTH
        if self.content_length > self.limits.body_size:
            return BODY_TOO_LARGE
        if self.is_http_1_0:
            self.expects_continue = self.expects_unknown = False  # RFC 9110 section 10.1.1
        if self.expects_unknown:
            return UNKNOWN_EXPECTATION
        return None

    cdef int end_head(self) except -1:
        """Find out what follows a head that was read. Hot path."""
        # Section 9.3; close wins.
        self.keep_alive = not self.closes and (self.persists or not self.is_http_1_0)
        if self.method == METHOD_CONNECT:
            self.keep_alive = self.chunked = False  # the bytes that follow would be those of a tunnel
            self.content_length = -1
        self.streams = self.accepts_events and (self.method == METHOD_POST or self.method == METHOD_GET)
        if self.method == METHOD_POST or self.streams:
            self.target.read_path(self.path_prefix)
        self.scanned = self.line_start = 0
        if self.chunked:
            self.phase = CHUNK_LINE
        else:
            self.phase = SIZED_BODY
            self.body_left = max(<int64_t>0, self.content_length)
            if self.body_left == 0:
                self.progress = COMPLETE
                return 0
        if self.expects_continue or self.stops_at_heads:
            self.progress = HEADED
        return 0

    # ------------------------------------------------------------ body

    cdef Py_ssize_t read_sized_body(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read what is here of a body with Content-Length; return the bytes consumed."""
        cdef Py_ssize_t count = min(size, self.body_left)
        self.add_content(data, count)
        self.body_left -= count
        if self.body_left == 0:
            self.progress = COMPLETE
        return count

    cdef Py_ssize_t read_chunked_body(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read what is here of a chunked body; return the bytes consumed (section 7.1)."""
        cdef Py_ssize_t at = 0, count
        while self.progress == INCOMPLETE:
            if self.phase == CHUNK_DATA:
                count = min(size - at, self.body_left)
                self.add_content(data + at, count)
                self.body_left -= count
                if self.body_left == 0:
                    self.phase = CHUNK_END
                elif count == 0:
                    break
            elif self.phase == CHUNK_END:
                count = self.read_chunk_end(data + at, size - at)
                if count == 0:
                    break
            elif self.phase == CHUNK_LINE:
                count = self.read_chunk_line(data + at, size - at)
                if count == 0:
                    break
            else:
                count = self.read_trailers(data + at, size - at)
                if count == 0:
                    break
            at += count
        return at

    cdef Py_ssize_t read_chunk_line(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read the line before a chunk; return its size, or 0 if it is not whole."""
        cdef const uint8_t* found = <const uint8_t*>memchr(
            data + self.scanned, c"\n", <size_t>(size - self.scanned)
        )
        cdef Py_ssize_t end = found + 1 - data if found != NULL else size
        cdef int64_t count
        if self.is_too_much_framing(end):
            self.refuse(HEADER_TOO_LARGE)
            return 0
        self.scanned = end
        if found == NULL:
            return 0
        count = read_chunk_size(data, end)
        if count < 0:
            self.refuse(MALFORMED)
            return 0
        if count > self.limits.body_size - self.content_size:
            self.refuse(BODY_TOO_LARGE)
            return 0
        self.framing_size += end
        self.scanned = self.line_start = 0
        self.body_left = <Py_ssize_t>count
        self.phase = CHUNK_DATA if count else TRAILERS
        return end

    cdef Py_ssize_t read_chunk_end(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read the CRLF behind a chunk; return its size, or 0 if it is not whole."""
        if (size and data[0] != c"\r") or (size > 1 and data[1] != c"\n"):
            self.refuse(MALFORMED)
            return 0
        if size < 2:
            return 0
        self.framing_size += 2
        self.phase = CHUNK_LINE
        return 2

    cdef Py_ssize_t read_trailers(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Check the trailers, and ignore them; return the bytes consumed, or 0 if they are not whole (section 7.1.2).

        One that would delimit a message is refused.
        """
        cdef Slice name, value
        cdef Py_ssize_t at = 0
        cdef FieldFormat field
        cdef Py_ssize_t count = self.trailers_size(data, size)
        if count == 0:
            return 0
        while True:
            field = next_field(data, count, &at, &name, &value)
            if field == FIELDS_ENDED:
                self.progress = COMPLETE
                return count
            if field != FIELD_WELL_FORMED or is_text(name, b"content-length", 14) \
                    or is_text(name, b"transfer-encoding", 17):
                self.refuse(MALFORMED)
                return 0

    cdef Py_ssize_t trailers_size(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Return the size of the trailers with the empty line; 0 if they are incomplete or refused."""
        cdef const uint8_t* found
        while True:
            found = <const uint8_t*>memchr(data + self.scanned, c"\n", <size_t>(size - self.scanned))
            self.scanned = found + 1 - data if found != NULL else size
            if self.is_too_much_framing(self.scanned):
                self.refuse(HEADER_TOO_LARGE)
                return 0
            if found == NULL:
                return 0
            if self.scanned - self.line_start <= 2:
                return self.scanned
            self.line_start = self.scanned

    cdef bint is_too_much_framing(self, Py_ssize_t more) noexcept:
        """Return whether so many bytes more of chunk framing are more than an honest client needs."""
        return self.framing_size + more > self.limits.header_size + FRAMING_FACTOR * self.content_size

    cdef int add_content(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Count bytes of the content, and keep them unless the body is discarded. Hot path."""
        self.content_size += size
        return 0 if self.discarding else self.body.append(data, size)


def read_requests(pieces, RequestLimits limits not None):
    """Return the requests in these pieces of one stream, each piece being a read of its own; for tests.

    Returns ([(request target, body, whether the connection persists)], status of the refusal or None).
    """
    cdef RequestParser parser = RequestParser(limits, b"")
    cdef bytes held = b""
    cdef Py_ssize_t at
    cdef Slice body
    requests = []
    for piece in pieces:
        held += piece
        at = 0
        while at < len(held) and parser.progress != REFUSED:
            at += parser.parse(<const uint8_t*>held + at, len(held) - at)
            if parser.progress == COMPLETE:
                body = parser.whole_body()
                requests.append((to_bytes(parser.target.text), body.data[:body.size], parser.keep_alive))
                if not parser.keep_alive:
                    return requests, None
                parser.next_request()
            elif parser.progress == INCOMPLETE:
                break
        held = held[at:]
    return requests, None if parser.refusal is None else parser.refusal.status
