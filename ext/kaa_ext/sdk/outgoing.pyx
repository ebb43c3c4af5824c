"""What an extension sends over the NATS link: all messages of a turn of the event loop in one block.

Each block is kept until NATS has confirmed it, and sent again after a reconnect: messages arrive at least once.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from kaa_gateway.bus.link cimport Link
from kaa_gateway.bus.listener cimport Listener
from kaa_gateway.wire.nats cimport Publication
from kaa_gateway.wire.text cimport DECIMAL_DIGITS_MAX, put_decimal

from kaa_ext.sdk.errors import NotDelivered, PayloadTooLarge

cdef enum:
    LINE_OVERHEAD_MAX = 2 * DECIMAL_DIGITS_MAX + 16  # bytes of an HPUB beside subject, reply, header and payload
    INBOX_SIZE = 7

cdef const char* INBOX = b"_INBOX."  # how the reply-to of a request begins


cdef class Outgoing(Listener):
    """Publishes over a link, and hears what becomes of it."""

    def __init__(self, Py_ssize_t bytes_max, on_full, on_lost_message, on_connection):
        self.bytes_max = bytes_max
        self.on_full = on_full
        self.on_lost_message = on_lost_message
        self.on_connection = on_connection

    def use(self, Link link):
        """Publish over this link from now on; None: not at all."""
        self.link = link
        if link is not None:
            link.set_listener(self)

    def send(self, str subject not None, bytes payload not None, str reply not None="", headers=None):
        """Publish a message, or keep it until NATS is back. Raise NotDelivered if that is not possible. Hot path."""
        cdef Py_ssize_t subject_size, reply_size, size = len(payload)
        cdef const char* subject_text = PyUnicode_AsUTF8AndSize(subject, &subject_size)
        cdef const char* reply_text = PyUnicode_AsUTF8AndSize(reply, &reply_size)
        cdef bytes header = b"" if not headers else header_block(headers)
        cdef uint8_t* start
        cdef uint8_t* at
        if not subject_size or not is_subject(subject_text, subject_size) or not is_subject(reply_text, reply_size):
            raise NotDelivered("a subject has no white space and is not empty")
        if self.link is None:
            raise NotDelivered("not connected to NATS")
        if header and self.link.ready and not self.link.headers:
            raise NotDelivered("the NATS server takes no headers")
        size += len(header)
        if size > self.link.payload_max:
            raise PayloadTooLarge(f"{size} bytes are more than NATS takes")
        if self.link.backlog + size > self.bytes_max:
            raise NotDelivered("too many messages wait for NATS")
        start = self.link.reserve(subject_size + reply_size + size + LINE_OVERHEAD_MAX)
        at = start
        if header:
            at[0] = c"H"
            at += 1
        at = put(at, b"PUB ", 4)
        at = put(at, subject_text, subject_size)
        at[0] = c" "
        at += 1
        if reply_size:
            at = put(at, reply_text, reply_size)
            at[0] = c" "
            at += 1
        if header:
            at = put_decimal(at, len(header))
            at[0] = c" "
            at += 1
        at = put(put_decimal(at, size), b"\r\n", 2)
        at = put(at, <const char*>header, len(header))
        at = put(at, <const char*>payload, len(payload))
        at = put(at, b"\r\n", 2)
        self.link.commit(at - start)

    cdef bint may_send_again(self, const Publication* publication) noexcept:
        # Who waits for an answer on an inbox has a time limit, and JetStream would take a change twice.
        return publication.reply.size < INBOX_SIZE or memcmp(publication.reply.data, INBOX, INBOX_SIZE) != 0

    cdef int on_backlog(self, bint full) except -1:
        self.on_full(full)
        return 0

    cdef int on_connected(self) except -1:
        self.on_connection()
        return 0

    cdef int on_denied(self, const Publication* publication) except -1:
        self.on_lost_message()
        return 0

    cdef int on_too_large(self, const Publication* publication) except -1:
        self.on_lost_message()
        return 0


cdef inline uint8_t* put(uint8_t* at, const char* text, Py_ssize_t size) noexcept nogil:
    memcpy(at, text, <size_t>size)
    return at + size


cdef bytes header_block(headers):
    """Return the header of a message. Raise NotDelivered if a name or a value would end its line."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise NotDelivered("a header has no line break")
    return f"NATS/1.0\r\n{lines}\r\n".encode()


cdef bint is_subject(const char* text, Py_ssize_t size) noexcept nogil:
    """Return whether no byte would end a subject in a protocol line."""
    cdef Py_ssize_t at
    for at in range(size):
        if <uint8_t>text[at] <= c" ":
            return False
    return True
