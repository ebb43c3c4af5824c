"""Read HTTP/1.1 requests from a byte stream, sans-IO: heads, bodies, and their limits.

httptools (llhttp) reads the syntax. It cannot stop at the end of a request and has no limits, so the parser shows it
the bytes of one request at a time: a whole head, then the body. A request whose end another parser could see elsewhere
is refused: behind a proxy, it would be a way to smuggle a second request.

Request targets are read in target.pyx. Decisions about whole requests are made in connection.pyx, responses are written
in response.pyx.

Source: RFC 9112 (HTTP/1.1), whose sections the comments cite; RFC 9110 (HTTP semantics).
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from kaa_gateway.http.refusals cimport (
    BAD_HOST, BAD_LENGTH, BAD_LINE_END, BAD_VERSION, BODY_TOO_LARGE, FOLDED, HEADER_TOO_LARGE, MALFORMED,
    UNKNOWN_CODING, UNKNOWN_EXPECTATION, UNKNOWN_METHOD, URL_TOO_LONG,
)

cdef enum:
    REQUEST_LINE_OVERHEAD = 32  # bytes of a request line that are not its target: method, version, spaces, CRLF
    VERSION_SIZE = 8            # of "HTTP/1.1"
    LENGTH_DIGITS_MAX = 18      # of a Content-Length; more cannot be held, and is too large anyway
    FRAMING_FACTOR = 16         # bytes of chunk framing for each byte of content that are taken for honest
    BODY_KEEP = 512             # bytes of body buffer that a connection keeps between requests
    UPGRADE_SIZE = 7            # of "Upgrade"

# The name under which httptools is shown a field that is ignored: as long as "Upgrade".
cdef bytes IGNORED_FIELD = b"Ignored"


cdef class RequestLimits:
    """Bounds of one request, in bytes."""

    def __init__(self, Py_ssize_t body_size, Py_ssize_t header_size, Py_ssize_t url_length):
        self.body_size = body_size
        self.header_size = header_size
        self.url_length = url_length


cdef inline bint same(bytes text, const char* lower, Py_ssize_t size) noexcept:
    """Return whether a text is the other one, in whatever case."""
    return len(text) == size and strncasecmp(<const char*>text, lower, <size_t>size) == 0


cdef inline bint is_blank(uint8_t character) noexcept nogil:
    """Return whether a character is a space or tab."""
    return character == c" " or character == c"\t"


cdef inline bint is_upgrade(const uint8_t* line, Py_ssize_t size) noexcept nogil:
    """Return whether a line of the head is an Upgrade field."""
    return size > UPGRADE_SIZE and (line[0] | 0x20) == c"u" and line[UPGRADE_SIZE] == c":" \
        and strncasecmp(<const char*>line, b"upgrade", UPGRADE_SIZE) == 0


cdef bint is_host(bytes value):
    """Return whether a value may be a host and port (RFC 9110 section 7.2)."""
    cdef uint8_t character
    for character in value:
        if character <= 0x20 or character >= 0x7F or character in b'",/?#@\\<>':
            return False
    return True


cdef int64_t content_length_of(bytes value) noexcept:
    """Return the number in a Content-Length, which httptools has checked to be digits. Hot path.

    Leading zeros do not count. A number of more than LENGTH_DIGITS_MAX digits is cut, and is too large all the same.
    """
    cdef int64_t number = 0
    cdef int digits = 0
    cdef uint8_t character
    for character in value:
        if c"0" <= character <= c"9" and digits < LENGTH_DIGITS_MAX:
            number = number * 10 + (character - c"0")
            digits += number > 0
    return number


cdef class Window:
    """Borrowed bytes as an object with the buffer interface, for httptools.

    A connection has one: to make a memoryview costs more than to parse a small body.
    """

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.data, self.size, 1, flags)


cdef class RequestParser:
    """Reads the requests of one connection, one at a time. httptools calls its `on_...` methods."""

    def __init__(self, RequestLimits limits not None, bytes path_prefix not None):
        self.limits = limits
        self.path_prefix = path_prefix
        self.target = RequestTarget()
        self.body = Buffer()
        self.window = Window()
        self.native = HttpRequestParser(self)
        self.next_request()

    cdef int next_request(self) except -1:
        """Forget this request, and expect the next. Hot path."""
        self.progress = INCOMPLETE
        self.phase = HEAD
        self.scanned = self.line_start = self.request_line_size = 0
        self.body_left = self.framing_size = self.content_size = 0
        self.head_ended = self.message_ended = self.rewrites = self.discarding = False
        self.authorization = self.origin = None
        self.target.clear()
        self.body.clear(BODY_KEEP)
        self.host_count = self.length_count = self.transfer_encoding_count = 0
        self.content_length = -1
        self.host_malformed = self.chunked = self.expects_continue = self.expects_unknown = False
        return 0

    cdef int discard_body(self) except -1:
        """Read the body that follows the head without keeping it."""
        self.discarding = True
        return 0

    cdef int release(self) except -1:
        """Break the reference cycle with httptools and give memory back: the connection is gone."""
        self.native = None
        self.body.clear(0)
        return 0

    cdef int refuse(self, Refusal refusal) except -1:
        """End the stream of requests: nothing that follows can be understood."""
        self.progress = REFUSED
        self.refusal = refusal
        self.body.clear(0)
        return 0

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read bytes of one request, borrowed for the call; return how many were consumed. Hot path.

        `progress` says what they came to. Nothing of an incomplete head is consumed: it must be given again from its
        start, with more bytes.
        """
        cdef Py_ssize_t at = 0
        self.progress = INCOMPLETE
        if self.phase == HEAD:
            at = self.read_head(data, size)
            if self.phase == HEAD or self.progress != INCOMPLETE:
                return at
        if self.phase == SIZED_BODY:
            return at + self.read_sized_body(data + at, size - at)
        return at + self.read_chunked_body(data + at, size - at)

    # ------------------------------------------------------------ head

    cdef Py_ssize_t read_head(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Show httptools the head once it is whole; return the bytes consumed."""
        cdef Py_ssize_t at = 0, count
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
        if count and (self.feed_rewritten(data + at, count) if self.rewrites else self.feed(data + at, count)):
            self.end_head(data + at)
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
            elif is_blank(data[end - 2]) or is_upgrade(data + self.line_start, end - self.line_start):
                self.rewrites = True
            self.line_start = end + 1

    cdef int feed_rewritten(self, const uint8_t* head, Py_ssize_t size) except -1:
        """Show httptools a head in another form; return 0 if it refused the head.

        Upgrade fields get another name: HTTP/1.1 is spoken all the same (RFC 9110 section 7.8), but httptools would
        take the body for bytes of the other protocol. Blanks behind a value are left out, as they are not part of it
        (RFC 9110 section 5.5).
        """
        cdef Py_ssize_t shown = 0, line = self.request_line_size, end, value_end
        while line < size:
            if is_upgrade(head + line, size - line):
                if not self.feed(head + shown, line - shown) \
                        or not self.feed(<const uint8_t*>IGNORED_FIELD, UPGRADE_SIZE):
                    return 0
                shown = line + UPGRADE_SIZE
            end = <const uint8_t*>memchr(head + line, c"\r", <size_t>(size - line)) - head
            value_end = end
            while value_end > shown and is_blank(head[value_end - 1]):
                value_end -= 1
            if value_end < end:
                if not self.feed(head + shown, value_end - shown):
                    return 0
                shown = end
            line = <const uint8_t*>memchr(head + end, c"\n", <size_t>(size - end)) - head + 1
        return self.feed(head + shown, size - shown)

    cdef int end_head(self, const uint8_t* head) except -1:
        """Check a head that httptools has read, and find out what body follows."""
        cdef Refusal refusal = self.check_head(head)
        if refusal is not None:
            return self.refuse(refusal)
        if self.method == METHOD_POST:
            self.target.read_path(self.path_prefix)
        if self.chunked:
            self.phase = CHUNKED_BODY
        else:
            self.phase = SIZED_BODY
            self.body_left = max(<int64_t>0, self.content_length)
            if self.body_left == 0:
                self.progress = COMPLETE
                return 0
        if self.expects_continue or self.stops_at_heads:
            self.progress = HEADED
        return 0

    cdef Refusal check_head(self, const uint8_t* head):
        """Return why a head is refused, or None."""
        cdef Refusal refusal = self.read_request_line(head)
        if refusal is not None:
            return refusal
        if not self.head_ended:
            return MALFORMED
        if self.host_count > 1 or self.host_malformed or (self.host_count == 0 and not self.is_http_1_0):
            return BAD_HOST
        if self.transfer_encoding_count:
            # Sections 6.1 and 6.3. HTTP/1.0 has no transfer codings.
            if self.length_count or self.is_http_1_0:
                return BAD_LENGTH
            if self.transfer_encoding_count > 1 or not self.chunked:
                return UNKNOWN_CODING
        if self.length_count > 1:
            return BAD_LENGTH
        if self.content_length > self.limits.body_size:
            return BODY_TOO_LARGE
        if self.is_http_1_0:
            self.expects_continue = self.expects_unknown = False  # RFC 9110 section 10.1.1
        if self.expects_unknown:
            return UNKNOWN_EXPECTATION
        if memcmp(head, b"CONNECT ", 8) == 0:
            self.keep_alive = False  # the bytes that follow would be those of a tunnel
            self.content_length = -1
        return None

    cdef Refusal read_request_line(self, const uint8_t* line):
        """Read `method SP request-target SP HTTP-version CRLF` (section 3); return why it is refused, or None."""
        cdef const uint8_t* space = <const uint8_t*>memchr(line, c" ", <size_t>self.request_line_size)
        cdef const uint8_t* version = line + self.request_line_size - VERSION_SIZE - 2
        cdef Py_ssize_t target_size = self.target.size()
        if target_size > self.limits.url_length:
            return URL_TOO_LONG
        if space == NULL or target_size == 0 or version - space != target_size + 2 or (version - 1)[0] != c" ":
            return MALFORMED
        if memcmp(version, b"HTTP/1.", VERSION_SIZE - 1) != 0 or version[7] not in (c"0", c"1"):
            return BAD_VERSION
        self.is_http_1_0 = version[7] == c"0"
        if memcmp(line, b"POST ", 5) == 0:
            self.method = METHOD_POST
        elif memcmp(line, b"HEAD ", 5) == 0:
            self.method = METHOD_HEAD
        elif memcmp(line, b"OPTIONS ", 8) == 0:
            self.method = METHOD_OPTIONS
        else:
            self.method = METHOD_OTHER
        return None

    # ------------------------------------------------------------ body

    cdef Py_ssize_t read_sized_body(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read what is here of a body with Content-Length; return the bytes consumed."""
        cdef Py_ssize_t count = min(size, self.body_left)
        if count == 0:
            return 0
        if not self.feed(data, count):
            return count
        self.body_left -= count
        if self.body_left == 0:
            if self.message_ended:
                self.progress = COMPLETE
            else:
                self.refuse(BAD_LENGTH)
        return count

    cdef Py_ssize_t read_chunked_body(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read what is here of a chunked body; return the bytes consumed.

        The body ends with a line, so httptools is shown one line at a time and never sees beyond the end.
        """
        cdef const uint8_t* found
        cdef Py_ssize_t at = 0, end, content_size
        while at < size:
            found = <const uint8_t*>memchr(data + at, c"\n", <size_t>(size - at))
            end = found - data + 1 if found != NULL else size
            content_size = self.content_size
            if not self.feed(data + at, end - at):
                return end
            self.framing_size += end - at - (self.content_size - content_size)
            at = end
            if self.content_size > self.limits.body_size:
                self.refuse(BODY_TOO_LARGE)
                return at
            if self.framing_size > self.limits.header_size + FRAMING_FACTOR * self.content_size:
                self.refuse(HEADER_TOO_LARGE)
                return at
            if self.message_ended:
                self.progress = COMPLETE
                return at
        return at

    cdef int add_content(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Count bytes of the content, and keep them unless the body is discarded. Hot path."""
        self.content_size += size
        return 0 if self.discarding else self.body.append(data, size)

    # ------------------------------------------------------------ httptools

    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Show httptools bytes, borrowed for the call; return 0 if it refused them."""
        self.window.data = data
        self.window.size = size
        try:
            self.native.feed_data(self.window)
        except HttpParserUpgrade:
            pass  # CONNECT, which is refused later
        except HttpParserInvalidMethodError:
            self.refuse(UNKNOWN_METHOD)
            return 0
        except HttpParserError:
            self.refuse(MALFORMED)
            return 0
        finally:
            self.window.data = NULL
            self.window.size = 0
        return 1

    def on_url(self, bytes url not None):
        """Take the request target, which is whole because heads are shown whole."""
        self.target.text = url

    def on_header(self, bytes name not None, bytes value not None):
        """Take one header field. Trailers are ignored (section 7.1.2)."""
        cdef Py_ssize_t size = len(name)
        if self.head_ended:
            return
        if size == 4 and same(name, b"host", 4):
            self.host_count += 1
            self.host_malformed = not is_host(value)
        elif size == 6 and same(name, b"expect", 6):
            if same(value, b"100-continue", 12):
                self.expects_continue = True
            else:
                self.expects_unknown = True
        elif size == 6 and same(name, b"origin", 6):
            self.origin = value
        elif size == 13 and same(name, b"authorization", 13):
            self.authorization = value
        elif size == 14 and same(name, b"content-length", 14):
            self.length_count += 1
            self.content_length = content_length_of(value)
        elif size == 17 and same(name, b"transfer-encoding", 17):
            self.transfer_encoding_count += 1
            self.chunked = same(value, b"chunked", 7)

    def on_headers_complete(self):
        """Note the end of the head."""
        self.head_ended = True
        self.keep_alive = self.native.should_keep_alive()

    def on_body(self, bytes data not None):
        """Take content, which is without the framing of chunks."""
        self.add_content(<const uint8_t*>data, len(data))

    def on_message_complete(self):
        """Note the end of the message."""
        self.message_ended = True


def read_requests(pieces, RequestLimits limits not None):
    """Return the requests in these pieces of one stream, each piece being a read of its own; for tests.

    Returns ([(request target, body, whether the connection persists)], status of the refusal or None).
    """
    cdef RequestParser parser = RequestParser(limits, b"")
    cdef bytes held = b""
    cdef Py_ssize_t at
    requests = []
    for piece in pieces:
        held += piece
        at = 0
        while at < len(held) and parser.progress != REFUSED:
            at += parser.parse(<const uint8_t*>held + at, len(held) - at)
            if parser.progress == COMPLETE:
                requests.append((parser.target.text, parser.body.copy(), parser.keep_alive))
                if not parser.keep_alive:
                    parser.release()
                    return requests, None
                parser.next_request()
            elif parser.progress == INCOMPLETE:
                break
        held = held[at:]
    parser.release()
    return requests, None if parser.refusal is None else parser.refusal.status
