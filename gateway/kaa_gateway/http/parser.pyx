"""HTTP/1.1 requests out of a byte stream, sans-IO: heads, bodies, limits, and all that must be refused.

httptools (llhttp) reads the syntax. It cannot stop behind a request and has no limits, so this module shows it bytes
of one request at a time: a whole head, then its body. What two parsers could take differently is refused, because a
request that a proxy and we delimit differently is a way to smuggle another one.

What lives elsewhere: what a request asks for (http_target.pyx, http.pyx), and answers (http_response.pyx).

Source: RFC 9112 (HTTP/1.1), whose sections the comments cite; RFC 9110 (HTTP semantics).
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.string cimport memchr, memcmp

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* a, const char* b, size_t size)

cdef enum:
    REQUEST_LINE_OVERHEAD = 32  # bytes of a request line that are not its target: method, version, spaces, CRLF
    VERSION_SIZE = 8            # of "HTTP/1.1"
    LENGTH_DIGITS_MAX = 18      # of a Content-Length; more cannot be held, and is too large anyway
    FRAMING_FACTOR = 16         # bytes of chunk framing for each byte of content that are taken for honest
    BODY_KEEP = 512             # bytes of body buffer that a connection keeps between requests

cdef tuple MALFORMED = (400, "http_malformed_request", "Malformed request")
cdef tuple BAD_LINE_END = (400, "http_line_end", "Lines of the head must end with CRLF")
cdef tuple FOLDED = (400, "http_folded_field", "A header field must be on one line")
cdef tuple BAD_HOST = (400, "http_host", "Exactly one valid Host is required")
cdef tuple BAD_LENGTH = (400, "http_body_length", "The length of the body is ambiguous")
cdef tuple UPGRADE_WITH_CHUNKS = (400, "http_upgrade", "Upgrade is not supported")
cdef tuple BODY_TOO_LARGE = (413, "http_body_too_large", "Request body is too large")
cdef tuple URL_TOO_LONG = (414, "http_url_too_long", "Request target is too long")
cdef tuple UNKNOWN_EXPECTATION = (417, "http_expectation", "Only 100-continue can be expected")
cdef tuple HEADER_TOO_LARGE = (431, "http_header_too_large", "Header fields are too large")
cdef tuple UNKNOWN_METHOD = (501, "http_unknown_method", "Unknown method")
cdef tuple UNKNOWN_CODING = (501, "http_transfer_encoding", "The only transfer coding is chunked")
cdef tuple BAD_VERSION = (505, "http_version", "Only HTTP/1.1 and HTTP/1.0 are spoken")


cdef class RequestLimits:
    """Bounds of one request, in bytes."""

    def __init__(self, Py_ssize_t body_size, Py_ssize_t header_size, Py_ssize_t url_length):
        self.body_size = body_size
        self.header_size = header_size
        self.url_length = url_length


cdef inline bint same(bytes text, const char* lower, Py_ssize_t size) noexcept:
    return len(text) == size and strncasecmp(<const char*>text, lower, <size_t>size) == 0


cdef bint is_host(bytes value):
    """Whether this may be a host and port (RFC 9110 section 7.2): nothing in it that delimits something else."""
    cdef uint8_t character
    for character in value:
        if character <= 0x20 or character >= 0x7F or character in b'",/?#@\\<>':
            return False
    return True


cdef int64_t content_length_of(bytes value) noexcept:
    """The number in a Content-Length, whose digits httptools has checked, before which any number of zeros may stand;
    of one with more digits than can be held, a number that is too large all the same. Hot path."""
    cdef int64_t number = 0
    cdef int digits = 0
    cdef uint8_t character
    for character in value:
        if c"0" <= character <= c"9" and digits < LENGTH_DIGITS_MAX:
            number = number * 10 + (character - c"0")
            digits += number > 0
    return number


cdef class Window:
    """Borrowed bytes, as an object that httptools can look at: one a connection, since a memoryview a look costs more
    than the look."""

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.data, self.size, 1, flags)


cdef class RequestParser:
    """One connection's requests, one at a time; its `on_...` methods are called by httptools."""

    def __init__(self, RequestLimits limits):
        self.limits = limits
        self.body = Buffer()
        self.window = Window()
        self.native = HttpRequestParser(self)
        self.next_request()

    cdef int next_request(self) except -1:
        """Make ready for the next request; this one's target and body are gone. Hot path."""
        self.progress = INCOMPLETE
        self.phase = HEAD
        self.scanned = self.line_start = self.request_line_size = 0
        self.body_left = self.framing_size = self.content_size = 0
        self.head_ended = self.message_ended = self.upgrade_ignored = self.discarding = False
        self.target = self.authorization = None
        self.body.clear(BODY_KEEP)
        self.host_count = self.length_count = self.transfer_encoding_count = 0
        self.content_length = -1
        self.host_malformed = self.chunked = self.expects_continue = self.expects_unknown = False
        return 0

    cdef int discard(self) except -1:
        """Keep nothing of the body that follows the head, and read it all the same."""
        self.discarding = True
        return 0

    cdef int release(self) except -1:
        """The connection is gone: break the cycle with httptools, and give memory back."""
        self.native = None
        self.body.clear(0)
        return 0

    cdef int refuse(self, tuple refusal) except -1:
        self.progress = REFUSED
        self.refusal = refusal
        self.body.clear(0)
        return 0

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take bytes of one request, borrowed for the call: how many; `progress` says what they came to. Hot path.

        Of an incomplete head nothing is taken: it must be offered again from its start, with more.
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
        """Show httptools a head once it is whole; the bytes taken."""
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
        if count and self.feed(data + at, count):
            self.end_head(data + at)
        return at + count

    cdef Py_ssize_t head_size(self, const uint8_t* data, Py_ssize_t size) except -1:
        """The size of the head that starts here, or 0 if it is not whole or was refused; looks at each byte once."""
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

    cdef int end_head(self, const uint8_t* head) except -1:
        """httptools has read the head: judge it, and see what body follows."""
        cdef tuple refusal = self.judge_head(head)
        if refusal is not None:
            return self.refuse(refusal)
        if self.chunked:
            self.phase = CHUNKED_BODY
        else:
            self.phase = SIZED_BODY
            self.body_left = max(<int64_t>0, self.content_length)
            if self.body_left == 0:
                self.progress = COMPLETE
                return 0
        if self.expects_continue or self.shows_heads:
            self.progress = HEADED
        return 0

    cdef tuple judge_head(self, const uint8_t* head):
        """The refusal that this head deserves, or None."""
        cdef tuple refusal = self.judge_request_line(head)
        if refusal is not None:
            return refusal
        if not self.head_ended:
            return MALFORMED
        if self.host_count > 1 or self.host_malformed or (self.host_count == 0 and not self.is_http_1_0):
            return BAD_HOST
        if self.transfer_encoding_count:
            # Sections 6.1 and 6.3; a 1.0 client cannot mean it.
            if self.length_count or self.is_http_1_0:
                return BAD_LENGTH
            if self.transfer_encoding_count > 1 or not self.chunked:
                return UNKNOWN_CODING
            if self.upgrade_ignored:
                return UPGRADE_WITH_CHUNKS
        if self.length_count > 1:
            return BAD_LENGTH
        if self.content_length > self.limits.body_size:
            return BODY_TOO_LARGE
        if self.is_http_1_0:
            self.expects_continue = self.expects_unknown = False  # RFC 9110 section 10.1.1
        if self.expects_unknown:
            return UNKNOWN_EXPECTATION
        if memcmp(head, b"CONNECT ", 8) == 0:
            self.keep_alive = False  # what follows would be the tunnel's
            self.content_length = -1
        return None

    cdef tuple judge_request_line(self, const uint8_t* line):
        """The request line is `method SP request-target SP HTTP-version CRLF` (section 3), with nothing to spare."""
        cdef const uint8_t* space = <const uint8_t*>memchr(line, c" ", <size_t>self.request_line_size)
        cdef const uint8_t* version = line + self.request_line_size - VERSION_SIZE - 2
        cdef Py_ssize_t target_size = 0 if self.target is None else len(self.target)
        if target_size > self.limits.url_length:
            return URL_TOO_LONG
        if space == NULL or target_size == 0 or version - space != target_size + 2 or (version - 1)[0] != c" ":
            return MALFORMED
        if memcmp(version, b"HTTP/1.", VERSION_SIZE - 1) != 0 or version[7] not in (c"0", c"1"):
            return BAD_VERSION
        self.is_http_1_0 = version[7] == c"0"
        self.is_post = memcmp(line, b"POST ", 5) == 0
        self.is_head = memcmp(line, b"HEAD ", 5) == 0
        return None

    # ------------------------------------------------------------ body

    cdef Py_ssize_t read_sized_body(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take what there is of a body with Content-Length."""
        cdef Py_ssize_t count = min(size, self.body_left)
        if count == 0:
            return 0
        if self.upgrade_ignored:
            self.keep(data, count)
        elif not self.feed(data, count):
            return count
        self.body_left -= count
        if self.body_left == 0:
            if self.message_ended:
                self.progress = COMPLETE
            else:
                self.refuse(BAD_LENGTH)
        return count

    cdef Py_ssize_t read_chunked_body(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take what there is of a chunked body; its end is that of a line, so httptools never sees beyond it."""
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

    cdef int keep(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Bytes of the content. Hot path."""
        self.content_size += size
        return 0 if self.discarding else self.body.append(data, size)

    # ------------------------------------------------------------ httptools

    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Show httptools bytes, borrowed for the call; 0 if it refused them."""
        self.window.data = data
        self.window.size = size
        try:
            self.native.feed_data(self.window)
        except HttpParserUpgrade:
            # We speak HTTP/1.1 all the same (RFC 9110 section 7.8); CONNECT lands here too.
            self.upgrade_ignored = True
        except HttpParserInvalidMethodError:
            self.refuse(UNKNOWN_METHOD)
            return 0
        except HttpParserError:
            self.refuse(MALFORMED)
            return 0
        return 1

    def on_url(self, bytes url not None):
        """The request target, whole, since heads are shown whole."""
        self.target = url

    def on_header(self, bytes name not None, bytes value not None):
        """One header field, in its order; trailers are ignored (section 7.1.2)."""
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
        elif size == 13 and same(name, b"authorization", 13):
            self.authorization = value
        elif size == 14 and same(name, b"content-length", 14):
            self.length_count += 1
            self.content_length = content_length_of(value)
        elif size == 17 and same(name, b"transfer-encoding", 17):
            self.transfer_encoding_count += 1
            self.chunked = same(value, b"chunked", 7)

    def on_headers_complete(self):
        """The head has ended."""
        self.head_ended = True
        self.keep_alive = self.native.should_keep_alive()

    def on_body(self, bytes data not None):
        """Content, without the framing of chunks."""
        self.keep(<const uint8_t*>data, len(data))

    def on_message_complete(self):
        """The message has ended, as httptools sees it."""
        self.message_ended = True


def read_requests(pieces, RequestLimits limits not None):
    """What a connection is asked that receives these pieces, each in a read of its own.

    Returns ([(request target, body, whether the connection is kept)], refusal or None); for tests and tools.
    """
    cdef RequestParser parser = RequestParser(limits)
    cdef bytes held = b""
    cdef Py_ssize_t at
    requests = []
    for piece in pieces:
        held += piece
        at = 0
        while at < len(held) and parser.progress != REFUSED:
            at += parser.parse(<const uint8_t*>held + at, len(held) - at)
            if parser.progress == COMPLETE:
                requests.append((parser.target, parser.body.copy(), parser.keep_alive))
                if not parser.keep_alive:
                    parser.release()
                    return requests, None
                parser.next_request()
            elif parser.progress == INCOMPLETE:
                break
        held = held[at:]
    parser.release()
    return requests, parser.refusal
