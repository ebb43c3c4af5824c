"""The codec of the NATS client protocol: reads messages of the server, and writes PUB and SUB.

Decoders raise ProtocolError on a violation and say "need more bytes" with a zero; every number is bounded before it is
believed, since a server behind a wrong address may be anything.

Source: NATS documentation, "Client Protocol"; ADR-4 "NATS Message Headers" for HMSG.
"""

from typing import NamedTuple

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove

from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.text cimport DECIMAL_DIGITS_MAX, memmem, put_decimal, put_hex, put_text
from kaa_gateway.wire.words cimport little_endian, trailing_zeros

from kaa_gateway.errors import ProtocolError

cdef enum:
    PAYLOAD_MAX = 64 * 1024 * 1024  # bytes; nats-server's own ceiling for max_payload
    SIZE_DIGITS_MAX = 9  # of a payload size


cdef int violation(str reason) except -1:
    raise ProtocolError("nats_" + reason)


cdef inline bint is_blank(uint8_t byte) noexcept nogil:
    return byte == c" " or byte == c"\t"


cdef inline const uint8_t* text_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return the offset of the first byte that is not above a space, or `end`. Most of a line is read by words.

    A subtraction borrows into the top bit of a byte that is less; bytes from 0x80 on have that bit themselves. Only
    bytes behind the first such one may be found wrongly, and the first is the lowest of a little-endian word.
    """
    cdef uint64_t eight, found
    while end - at >= 8:
        memcpy(&eight, at, 8)
        found = (little_endian(eight) - <uint64_t>0x2121212121212121) & ~little_endian(eight)
        found &= <uint64_t>0x8080808080808080
        if found:
            return at + (trailing_zeros(found) >> 3)
        at += 8
    while at < end and at[0] > c" ":
        at += 1
    return at


cdef int split(Slice line, Slice* fields, int most) noexcept nogil:
    """Split a line at blanks into at most `most` fields. Return their number, or -1 if there are more. Hot path."""
    cdef const uint8_t* at = line.data
    cdef const uint8_t* end = line.data + line.size
    cdef const uint8_t* start
    cdef int count = 0
    while True:
        while at < end and is_blank(at[0]):
            at += 1
        if at == end:
            return count
        if count == most:
            return -1
        start = at
        while True:
            at = text_end(at, end)
            if at == end or is_blank(at[0]):
                break
            at += 1  # what else is no more than a space
        fields[count] = Slice(start, at - start)
        count += 1


cdef Py_ssize_t decimal(Slice field) noexcept nogil:
    """Return a decimal number of at most SIZE_DIGITS_MAX digits, or -1."""
    cdef Py_ssize_t value = 0, i
    if not 0 < field.size <= SIZE_DIGITS_MAX:
        return -1
    for i in range(field.size):
        if not c"0" <= field.data[i] <= c"9":
            return -1
        value = value * 10 + field.data[i] - c"0"
    return value


cdef bint starts(const uint8_t* data, Py_ssize_t size, const char* upper, Py_ssize_t count) noexcept nogil:
    """Return whether data begins with a protocol word; words are case-insensitive."""
    cdef Py_ssize_t i
    if size < count:
        return False
    for i in range(count):
        if (data[i] & 0xDF if data[i] >= c"a" else data[i]) != <uint8_t>upper[i]:
            return False
    return True


cdef Py_ssize_t read_delivery(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t line_size, bint has_header, Py_ssize_t payload_max,
    ServerMessage* message,
) except -1:
    """Read MSG <subject> <sid> [reply] <size>, or HMSG with <header size> <total size>. `line_size` excludes CR LF."""
    cdef Slice[6] fields
    cdef int word = 5 if has_header else 4
    cdef int numbers = 2 if has_header else 1
    cdef int count = split(Slice(data + word, line_size - word), fields, 3 + numbers)
    cdef Py_ssize_t total, header_size = 0, end
    if count not in (2 + numbers, 3 + numbers):
        violation("malformed_msg")
    total = decimal(fields[count - 1])
    if has_header:
        header_size = decimal(fields[count - 2])
    if total < 0 or header_size < 0 or header_size > total:
        violation("malformed_msg")
    if total > payload_max:
        violation("payload_too_large")
    end = line_size + 2 + total
    if size < end + 2:
        return 0
    if data[end] != c"\r" or data[end + 1] != c"\n":
        violation("malformed_msg")
    message.subject = fields[0]
    message.sid = fields[1]
    message.reply = fields[2] if count == 3 + numbers else Slice(NULL, 0)
    message.header = Slice(data + line_size + 2, header_size)
    message.payload = Slice(data + line_size + 2 + header_size, total - header_size)
    return end + 2


cdef inline Py_ssize_t read_payload(
    const uint8_t* data, Py_ssize_t size, const uint8_t* at, const uint8_t* digits, const uint8_t* end,
    Py_ssize_t payload_max, ServerMessage* message,
) noexcept nogil:
    """Read the payload of a MSG whose size stands between `digits` and `at`, in a line that is over before `end`.

    Return the bytes of the whole MSG, or 0 as read_plain_delivery does. Hot path.
    """
    cdef Py_ssize_t total
    if end - at < 2 or at[0] != c"\r" or at[1] != c"\n":
        return 0
    total = decimal(Slice(digits, at - digits))
    at += 2
    if total < 0 or total > payload_max or size - (at - data) < total + 2 \
            or at[total] != c"\r" or at[total + 1] != c"\n":
        return 0
    message.header = Slice(at, 0)
    message.payload = Slice(at, total)
    return at - data + total + 2


cdef Py_ssize_t read_plain_delivery(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t payload_max, ServerMessage* message
) noexcept nogil:
    """Read a whole MSG as nats-server writes it, with a space between fields. Return its bytes. Hot path.

    Return 0 if it is not whole, or written in another way, or against the protocol. `message` may hold the one before,
    which is mostly of the same subscription: then only the size is read.
    """
    cdef const uint8_t* at = data + 4
    cdef const uint8_t* end = data + min(size, CONTROL_LINE_MAX)  # of the line
    cdef const uint8_t* start
    cdef Py_ssize_t total, same
    if message.operation == MSG and message.reply.data == NULL:
        same = message.sid.data + message.sid.size + 1 - message.subject.data  # with the space behind each field
        if end - at > same and memcmp(at, message.subject.data, <size_t>same) == 0:
            start = at + same
            total = read_payload(data, size, text_end(start, end), start, end, payload_max, message)
            if total:
                message.subject = Slice(at, message.subject.size)
                message.sid = Slice(start - 1 - message.sid.size, message.sid.size)
                return total
    start = at
    at = text_end(at, end)
    message.subject = Slice(start, at - start)
    if at == start or at == end or at[0] != c" ":
        return 0
    start = at + 1
    at = text_end(start, end)
    message.sid = Slice(start, at - start)
    if at == start or at == end or at[0] != c" ":
        return 0
    message.reply = Slice(NULL, 0)
    start = at + 1
    at = text_end(start, end)
    if at < end and at[0] == c" ":
        message.reply = Slice(start, at - start)
        if at == start:
            return 0
        start = at + 1
        at = text_end(start, end)
    message.operation = MSG
    return read_payload(data, size, at, start, end, payload_max, message)


cdef Py_ssize_t next_message(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t payload_max, ServerMessage* message
) except -1:
    """Read the next message of a stream. Return the bytes that it takes, or 0 if `size` bytes do not hold all of it.

    Hot path. Slices borrow from `data`. `message` holds the one before, whose bytes are still there, or operation OK.
    """
    cdef const uint8_t* end
    cdef Py_ssize_t line_max, line_size, whole
    if size == 0:
        return 0
    if size > 4 and memcmp(data, b"MSG ", 4) == 0:
        whole = read_plain_delivery(data, size, payload_max, message)
        if whole:
            return whole
    line_max = INFO_LINE_MAX if data[0] == c"I" or data[0] == c"i" else CONTROL_LINE_MAX
    end = <const uint8_t*>memchr(data, c"\n", <size_t>min(size, line_max))
    if end == NULL:
        if size >= line_max:
            violation("line_too_long")
        return 0
    line_size = end - data
    if line_size == 0 or data[line_size - 1] != c"\r":
        violation("malformed_line")
    line_size -= 1
    message.payload = Slice(data, 0)
    if starts(data, line_size, "MSG ", 4):
        message.operation = MSG
        return read_delivery(data, size, line_size, False, payload_max, message)
    if starts(data, line_size, "HMSG ", 5):
        message.operation = HMSG
        return read_delivery(data, size, line_size, True, payload_max, message)
    if starts(data, line_size, "PONG", 4):
        message.operation = PONG
    elif starts(data, line_size, "PING", 4):
        message.operation = PING
    elif starts(data, line_size, "+OK", 3):
        message.operation = OK
    elif starts(data, line_size, "INFO ", 5):
        message.operation = INFO
        message.payload = Slice(data + 5, line_size - 5)
    elif starts(data, line_size, "-ERR", 4):
        message.operation = ERR
        message.payload = Slice(data + 4, line_size - 4)
    else:
        violation("unknown_operation")
    return line_size + 2


cdef int status_of(Slice header) noexcept:
    """Return the status code in the first line of a header, such as 503 of "NATS/1.0 503"; 0 if it has none."""
    cdef Py_ssize_t status
    if header.size < 12 or memcmp(header.data, b"NATS/1.0 ", 9) != 0:
        return 0
    status = decimal(Slice(header.data + 9, 3))
    return <int>status if status > 0 else 0


cdef Slice header_value(Slice header, bytes name):
    """Return the value of a header field without surrounding blanks; data NULL if the header has no such field."""
    cdef Py_ssize_t at = 0, size = len(name), start
    cdef const uint8_t* end
    while at < header.size:
        end = <const uint8_t*>memchr(header.data + at, c"\n", <size_t>(header.size - at))
        if end == NULL:
            break
        if end - (header.data + at) > size and memcmp(header.data + at, <const char*>name, size) == 0 \
                and header.data[at + size] == c":":
            start = at + size + 1
            while is_blank(header.data[start]):
                start += 1
            at = end - header.data
            while at > start and (header.data[at - 1] == c"\r" or is_blank(header.data[at - 1])):
                at -= 1
            return Slice(header.data + start, at - start)
        at = end - header.data + 1
    return Slice(NULL, 0)


cdef Py_ssize_t next_publication(const uint8_t* data, Py_ssize_t size, Publication* publication) noexcept nogil:
    """Find the next PUB or HPUB in a block of ours. Return the bytes that it takes, or 0 at the end."""
    cdef Slice[4] fields
    cdef const uint8_t* end
    cdef Py_ssize_t line_size, total, header_size = 0
    cdef int word = 4, numbers = 1, count
    if size < 5:
        return 0
    if memcmp(data, b"HPUB ", 5) == 0:
        word, numbers = 5, 2
    elif memcmp(data, b"PUB ", 4) != 0:
        return 0
    end = <const uint8_t*>memchr(data, c"\r", <size_t>size)
    if end == NULL:
        return 0
    line_size = end - data
    count = split(Slice(data + word, line_size - word), fields, 2 + numbers)
    if not 1 + numbers <= count <= 2 + numbers:
        return 0
    total = decimal(fields[count - 1])
    if numbers == 2:
        header_size = decimal(fields[count - 2])
    if total < 0 or not 0 <= header_size <= total or size - line_size < total + 4:
        return 0
    publication.whole = Slice(data, line_size + 2 + total + 2)
    publication.subject = fields[0]
    publication.reply = fields[1] if count == 2 + numbers else Slice(NULL, 0)
    publication.header = Slice(data + line_size + 2, header_size)
    publication.payload = Slice(data + line_size + 2 + header_size, total - header_size)
    return publication.whole.size


cdef int append_publication(Buffer out, bytes head, Slice header, Slice payload) except -1:
    """Return a whole PUB, or HPUB if there is a header; `head` is what encode_publish_head made."""
    cdef Py_ssize_t head_size = len(head)
    cdef uint8_t* at = out.reserve(
        1 + head_size + 2 * (DECIMAL_DIGITS_MAX + 1) + 2 + header.size + payload.size + 2
    )
    if header.size:
        at[0] = c"H"
        at += 1
    memcpy(at, <const char*>head, head_size)
    at += head_size
    if header.size:
        at = put_decimal(at, header.size)
        at[0] = c" "
        at += 1
    at = put_decimal(at, header.size + payload.size)
    memcpy(at, b"\r\n", 2)
    at += 2
    if header.size:
        memcpy(at, header.data, <size_t>header.size)
        at += header.size
    memcpy(at, payload.data, <size_t>payload.size)
    at += payload.size
    memcpy(at, b"\r\n", 2)
    out.size = at + 2 - out.data
    return 0


# ---------------------------------------------------------------- the Python face

class Message(NamedTuple):
    """A message of the server. `operation` is INFO, MSG, HMSG, PING, PONG, +OK or -ERR."""

    operation: str
    subject: bytes | None
    sid: bytes | None
    reply: bytes | None
    header: bytes | None
    payload: bytes


cdef tuple NAMES = ("", "INFO", "MSG", "HMSG", "PING", "PONG", "+OK", "-ERR")


cdef class StoredPublication:
    """The form of the publications to one JetStream stream: HPUB with a numbered reply subject and a message ID.

    `reply` is the reply subject up to the number, which is written as NUMBER_DIGITS hexadecimal digits; `fields` are
    lines of the header behind `Nats-Msg-Id`, each with its CR LF.
    """

    def __init__(self, str subject not None, str reply not None, Py_ssize_t message_id_size, str fields not None):
        first = "NATS/1.0\r\nNats-Msg-Id: "
        rest = f"\r\n{fields}\r\n"
        self.message_id_size = message_id_size
        self.header_size = len(first) + message_id_size + len(rest)
        self.head = f"HPUB {subject} {reply}".encode()
        self.middle = f" {self.header_size} {'0' * SIZE_DIGITS}\r\n{first}".encode()
        self.rest = rest.encode()
        self.payload_offset = len(self.head) + NUMBER_DIGITS + len(self.middle) + message_id_size + len(self.rest)
        self.size_offset = len(self.head) + NUMBER_DIGITS + len(f" {self.header_size} ")

    cdef Py_ssize_t write(
        self, uint8_t* at, uint32_t number, const uint8_t* message_id, Py_ssize_t payload_size
    ) except -1:
        """Write what surrounds a payload that stands at `payload_offset`; return the size of it all. Hot path."""
        cdef uint8_t* start = at
        at = put_text(put_hex(put_text(at, self.head), number, NUMBER_DIGITS), self.middle)
        put_padded(start + self.size_offset, <uint32_t>(self.header_size + payload_size))
        memcpy(at, message_id, <size_t>self.message_id_size)
        at = put_text(at + self.message_id_size, self.rest) + payload_size
        memcpy(at, b"\r\n", 2)
        return at + 2 - start

    cdef Py_ssize_t header_size_with(self, bytes field) except -1:
        """Return the bytes of the header with one more line."""
        return self.header_size + len(field)

    cdef Py_ssize_t message_size(self, Py_ssize_t size) noexcept:
        """Return the bytes of header and payload, which a server's limit is about, in a publication of `size` bytes."""
        return size - (self.payload_offset - self.header_size) - 2

    cdef Py_ssize_t add_field(self, uint8_t* at, Py_ssize_t size, bytes field) except -1:
        """Insert a line into the header of a publication of `size` bytes; return its size then.

        The bytes behind it are free. The header size keeps its number of digits: a reply-to has 30 to 200 characters.
        """
        cdef Py_ssize_t added = len(field), blank_line = self.payload_offset - 2
        cdef bytes digits = str(self.header_size + added).encode()
        memmove(at + blank_line + added, at + blank_line, <size_t>(size - blank_line))
        put_text(at + blank_line, field)
        put_padded(at + self.size_offset, <uint32_t>(self.header_size + added + size - self.payload_offset - 2))
        put_text(at + self.size_offset - 1 - len(digits), digits)
        return size + added


cdef Slice stored_payload(const uint8_t* at, Py_ssize_t size) noexcept:
    """Return the payload of a StoredPublication, behind the only blank line of its header."""
    cdef const uint8_t* payload = <const uint8_t*>memmem(at, <size_t>size, b"\r\n\r\n", 4) + 4
    return Slice(payload, at + size - 2 - payload)


cdef bint read_number(const uint8_t* at, int digits, uint32_t* number) noexcept nogil:
    """Read a number of so many hexadecimal digits; return False if it is none."""
    cdef int i
    cdef uint32_t value = 0
    for i in range(digits):
        if c"0" <= at[i] <= c"9":
            value = value << 4 | (at[i] - c"0")
        elif c"a" <= at[i] <= c"f":
            value = value << 4 | (at[i] - c"a" + 10)
        else:
            return False
    number[0] = value
    return True


def decode(const uint8_t[::1] data not None, Py_ssize_t payload_max=PAYLOAD_MAX):
    """Return the first message of a stream and the bytes it took, or (None, 0) if it is not whole."""
    cdef ServerMessage message
    cdef const uint8_t* start = &data[0] if data.shape[0] else NULL
    cdef Py_ssize_t consumed
    message.operation = OK
    consumed = next_message(start, data.shape[0], payload_max, &message)
    return (copy_of(&message) if consumed else None), consumed


def decode_all(const uint8_t[::1] data not None, Py_ssize_t payload_max=PAYLOAD_MAX):
    """Return the whole messages at the beginning of a stream, and the bytes they took."""
    cdef ServerMessage message
    cdef const uint8_t* start = &data[0] if data.shape[0] else NULL
    cdef Py_ssize_t at = 0, consumed
    messages = []
    message.operation = OK
    while True:
        consumed = next_message(start + at, data.shape[0] - at, payload_max, &message)
        if consumed == 0:
            return messages, at
        messages.append(copy_of(&message))
        at += consumed


cdef object copy_of(const ServerMessage* message):
    """Return a message as Python knows it."""
    name = NAMES[<int>message.operation]
    if message.operation == MSG or message.operation == HMSG:
        return Message(
            name, to_bytes(message.subject), to_bytes(message.sid), to_bytes(message.reply),
            to_bytes(message.header) if message.operation == HMSG else None, to_bytes(message.payload),
        )
    return Message(name, None, None, None, None, to_bytes(message.payload))


def encode_subscribe(str subject not None, int sid, str queue_group=None):
    """Return SUB, with CR LF."""
    return f"SUB {subject} {queue_group + ' ' if queue_group else ''}{sid}\r\n".encode()


cdef int append_subscribe(Buffer out, str subject, uint32_t sid) except -1:
    """Append SUB, without a queue group."""
    cdef Py_ssize_t size
    cdef const char* text = PyUnicode_AsUTF8AndSize(subject, &size)
    cdef uint8_t* at = out.reserve(4 + size + 1 + DECIMAL_DIGITS_MAX + 2)
    memcpy(at, b"SUB ", 4)
    memcpy(at + 4, text, <size_t>size)
    at += 4 + size
    at[0] = c" "
    at = put_decimal(at + 1, sid)
    memcpy(at, b"\r\n", 2)
    out.size = at + 2 - out.data
    return 0


cdef int append_unsubscribe(Buffer out, uint32_t sid) except -1:
    """Append UNSUB."""
    cdef uint8_t* at = out.reserve(6 + DECIMAL_DIGITS_MAX + 2)
    memcpy(at, b"UNSUB ", 6)
    at = put_decimal(at + 6, sid)
    memcpy(at, b"\r\n", 2)
    out.size = at + 2 - out.data
    return 0


def encode_publish_head(str subject not None, str reply=None):
    """Return PUB up to where the payload size goes; a route keeps this."""
    return f"PUB {subject} {reply + ' ' if reply else ''}".encode()


def encode_publish(str subject not None, str reply, bytes payload not None, bytes header=b""):
    """Return a whole PUB, or HPUB if there is a header."""
    cdef Buffer out = Buffer()
    append_publication(
        out, encode_publish_head(subject, reply), slice_of(header), slice_of(payload),
    )
    return out.copy()


def decode_publication(bytes data not None):
    """Return (subject, reply, header, payload) of the first publication in bytes of ours, and its size; else None."""
    cdef Publication publication
    cdef Py_ssize_t size = next_publication(<const uint8_t*>data, len(data), &publication)
    if size == 0:
        return None
    return (
        to_bytes(publication.subject), to_bytes(publication.reply), to_bytes(publication.header),
        to_bytes(publication.payload), size,
    )
