"""Write HTTP/1.1 responses, sans-IO: those of extensions and the gateway's own errors.

An extension cannot break the framing of HTTP: control characters of its reason phrase are replaced, and a status code
that is not final becomes 502.

Source: RFC 9110, RFC 9112; 1/KP, error payload `{"statusCode": int, "reasonPhrase": str}`.
"""

from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.clock cimport now_ms
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.text cimport put_decimal, put_text

cdef enum:
    HEAD_SIZE_MAX = 512      # bytes of all that is written before a body
    PHRASE_SIZE_MAX = 128    # bytes of a reason phrase in a status line
    STATUS_MIN = 200         # final statuses; 1xx would be taken for interim ones
    STATUS_MAX = 599
    BAD_GATEWAY = 502

cdef str PATH_CHARACTERS = "/!$&'()*+,;=:@"  # beside letters, digits, - . _ and ~ (RFC 3986 section 3.3)

cdef dict PHRASES = {int(status): status.phrase.encode() for status in HTTPStatus}

cdef dict FIELDS = {
    # RFC 9110 section 11.6.1 requires a challenge with each 401. No registered scheme stands for a token in the path;
    # with this unregistered one, no client library asks its user for a password.
    401: b'WWW-Authenticate: EndpointToken realm="kp1"\r\n',
    405: b"Allow: POST\r\n",
    503: b"Retry-After: 1\r\n",
}

# What a web page of an allowed origin may send.
cdef bytes ALLOWED_TO_PAGES = (
    b"Allow: OPTIONS, POST\r\nAccess-Control-Allow-Methods: POST\r\n"
    b"Access-Control-Allow-Headers: Authorization, Content-Type\r\nAccess-Control-Max-Age: 7200\r\n"
)

# Of a stream of events. A proxy is not to keep it, nor to wait for more of it (nginx).
cdef bytes STREAM_FIELDS = (
    b"Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
)
# Milliseconds after which the client connects again.
cdef bytes STREAM_START = b"retry: 1000\n\n"

# ExtensionData names no media type, and the gateway does not look into payloads. Kaa's extensions speak JSON.
cdef bytes CONTENT_TYPE = b"Content-Type: application/json\r\n"

cdef int64_t date_second = -1
cdef bytes date_field = b""


cdef int refresh_date(int64_t second) except -1:
    """Set the Date field to this second of Unix time."""
    global date_second, date_field
    date_field = b"Date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
    date_second = second
    return 0


cdef uint8_t* put_phrase(uint8_t* at, Slice phrase) noexcept nogil:
    """Copy a reason phrase; return the address behind it. Bytes that are not printable ASCII become `?`."""
    cdef Py_ssize_t i
    for i in range(min(phrase.size, PHRASE_SIZE_MAX)):
        at[i] = phrase.data[i] if 0x20 <= phrase.data[i] < 0x7F else c"?"
    return at + min(phrase.size, PHRASE_SIZE_MAX)


cdef int append_head(
    Buffer out, int status, Slice phrase, Py_ssize_t content_length, Persistence persistence, bytes fields, bytes cors
) except -1:
    """Append a status line and the header. Hot path.

    With a content length of -1 there is no Content-Length. `fields` replace those of FIELDS, and `cors` are those for a
    web page; either may be None.
    """
    cdef uint8_t* at = out.reserve(
        HEAD_SIZE_MAX + (0 if cors is None else len(cors)) + (0 if fields is None else len(fields))
    )
    cdef int64_t second = now_ms() // 1000
    if second != date_second:
        refresh_date(second)
    at = put_decimal(put_text(at, b"HTTP/1.1 "), status)
    at[0] = c" "
    at = put_text(put_phrase(at + 1, phrase), b"\r\n")
    at = put_text(at, date_field)
    if content_length >= 0:
        if content_length:
            at = put_text(at, CONTENT_TYPE)
        at = put_decimal(put_text(at, b"Content-Length: "), content_length)
        at = put_text(at, b"\r\n")
    if fields is not None:
        at = put_text(at, fields)
    elif status >= 400 and status in FIELDS:
        at = put_text(at, <bytes>FIELDS[status])
    if cors is not None:
        at = put_text(at, cors)
    if persistence == CLOSE:
        at = put_text(at, b"Connection: close\r\n")
    elif persistence == KEEP_ALIVE:
        at = put_text(at, b"Connection: keep-alive\r\n")
    at = put_text(at, b"\r\n")
    out.size = at - out.data
    return 0


cdef int append_response(
    Buffer out, const ExtensionDataView* data, Persistence persistence, bytes fields, bytes cors
) except -1:
    """Append the response of an extension, with more header fields unless they are None. Hot path.

    The view is borrowed for the call.
    """
    cdef int status = data.status_code
    cdef Slice phrase = data.reason_phrase
    cdef bytes default
    if not STATUS_MIN <= status <= STATUS_MAX:
        return append_error(
            out, BAD_GATEWAY, "The extension answered with an invalid status", persistence, True, fields, cors
        )
    if status >= 400 and data.payload.size == 0:
        text = None if phrase.size == 0 else phrase.data[:phrase.size].decode("utf-8", "replace")
        return append_error(out, status, text, persistence, True, fields, cors)
    if phrase.size == 0:
        default = PHRASES.get(status, b"")
        phrase = Slice(<const uint8_t*>default, len(default))
    if status == 204 or status == 304:
        return append_head(out, status, phrase, -1, persistence, fields, cors)
    if status == 205:
        return append_head(out, status, phrase, 0, persistence, fields, cors)
    append_head(out, status, phrase, data.payload.size, persistence, fields, cors)
    return out.append(data.payload.data, data.payload.size)


cdef int append_error(
    Buffer out, int status, str phrase, Persistence persistence, bint with_body, bytes fields, bytes cors
) except -1:
    """Append an error of 1/KP. A phrase of None stands for that of the status; HEAD is answered without the body.

    `fields` replace those of FIELDS; None for the usual ones.
    """
    cdef bytes text
    cdef bytes body
    if phrase is None:
        phrase = PHRASES.get(status, b"").decode()
    text = phrase.encode("ascii", "replace")
    body = msgspec.json.encode({"statusCode": status, "reasonPhrase": phrase})
    append_head(out, status, Slice(<const uint8_t*>text, len(text)), len(body), persistence, fields, cors)
    if with_body:
        out.append(<const char*>body, len(body))
    return 0


cdef int append_json(Buffer out, bytes body, Persistence persistence, bytes cors) except -1:
    """Append 200 with a JSON text of the gateway's own."""
    cdef bytes phrase = b"OK"
    append_head(out, 200, Slice(<const uint8_t*>phrase, len(phrase)), len(body), persistence, None, cors)
    return out.append(<const char*>body, len(body))


cdef int append_stream_head(Buffer out, bytes cors) except -1:
    """Append the head of a stream of events, which ends with its connection, and what it begins with."""
    cdef bytes phrase = b"OK"
    append_head(out, 200, Slice(<const uint8_t*>phrase, len(phrase)), -1, CLOSE, STREAM_FIELDS, cors)
    return out.append(<const char*>STREAM_START, len(STREAM_START))


cdef bytes field_of_path(Slice path):
    """Return the header field with the resource path of a push. Bytes that a URI does not have are percent-encoded."""
    return f"Kaa-Resource-Path: {quote(path.data[:path.size], safe=PATH_CHARACTERS)}\r\n".encode()


cdef int append_no_content(Buffer out, Persistence persistence, bytes cors) except -1:
    """Append 204: no push has come within the time that the request waited."""
    cdef bytes phrase = b"No Content"
    return append_head(out, 204, Slice(<const uint8_t*>phrase, len(phrase)), -1, persistence, None, cors)


cdef int append_ok(Buffer out, Persistence persistence, bytes cors) except -1:
    """Append 200 without content: NATS has a message that wants no answer of its extension."""
    cdef bytes phrase = b"OK"
    return append_head(out, 200, Slice(<const uint8_t*>phrase, len(phrase)), 0, persistence, None, cors)


cdef int append_preflight(Buffer out, Persistence persistence, bytes cors) except -1:
    """Append the response to OPTIONS, with which a browser asks before it sends the request of a page (Fetch, CORS)."""
    cdef bytes phrase = b"No Content"
    return append_head(
        out, 204, Slice(<const uint8_t*>phrase, len(phrase)), -1, persistence, ALLOWED_TO_PAGES, cors
    )


cdef int append_continue(Buffer out) except -1:
    """Append the interim response 100 Continue (RFC 9110 section 15.2.1)."""
    cdef bytes text = b"HTTP/1.1 100 Continue\r\n\r\n"
    return out.append(<const char*>text, len(text))
