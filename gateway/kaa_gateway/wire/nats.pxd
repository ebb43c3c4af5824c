from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.text cimport PADDED_DIGITS, put_padded


cdef enum Operation:
    INFO = 1
    MSG
    HMSG
    PING
    PONG
    OK
    ERR


cdef enum:
    CONTROL_LINE_MAX = 4096  # bytes of a protocol line; the server's own limit for lines that it accepts
    INFO_LINE_MAX = 1 << 20  # bytes; INFO of a large cluster lists every server's URLs
    SIZE_DIGITS = PADDED_DIGITS  # of a size that is written after the payload: 64 MiB has 8
    NUMBER_DIGITS = 8        # hexadecimal, of the number in the reply subject of a StoredPublication
    PUBLICATION_OVERHEAD = SIZE_DIGITS + 2 + 2  # bytes of a PUB beside its head and its payload


cdef struct ServerMessage:
    # What the server sent; every slice borrows from the stream's bytes.
    Operation operation
    Slice subject   # of MSG and HMSG
    Slice sid       # of MSG and HMSG
    Slice reply     # of MSG and HMSG; data NULL if there is none
    Slice header    # of HMSG: from "NATS/1.0" to the blank line
    Slice payload   # of MSG and HMSG; of INFO the JSON; of ERR the text


cdef struct Publication:
    # A PUB or HPUB that we wrote ourselves, found again in a block.
    Slice whole
    Slice subject
    Slice reply     # data NULL if there is none
    Slice header    # of HPUB: from "NATS/1.0" to the blank line; empty of PUB
    Slice payload


# A PUB whose payload is written in place. Its size stands before the payload, but is known only after it: NATS reads a
# decimal with leading zeros, so the size has a field of fixed width. Hot path.

cdef inline uint8_t* begin_publication(uint8_t* at, Slice head) noexcept nogil:
    # Write the head, which encode_publish_head made; return where the payload goes.
    memcpy(at, head.data, <size_t>head.size)
    return at + head.size + SIZE_DIGITS + 2


cdef inline uint8_t* end_publication(uint8_t* payload, Py_ssize_t size) noexcept nogil:
    # Write the size and the line ends around a payload; return the end of the PUB.
    put_padded(payload - 2 - SIZE_DIGITS, <uint32_t>size)
    memcpy(payload - 2, b"\r\n", 2)
    memcpy(payload + size, b"\r\n", 2)
    return payload + size + 2


cdef class StoredPublication:
    # wiring
    cdef bytes head                     # HPUB <subject> <reply prefix>
    cdef bytes middle                   # between the number and the message ID, with room for the total size
    cdef bytes rest                     # behind the message ID
    cdef readonly Py_ssize_t payload_offset  # bytes of a publication before its payload
    cdef Py_ssize_t message_id_size
    cdef Py_ssize_t header_size         # bytes of the NATS header
    cdef Py_ssize_t size_offset         # bytes of a publication before its total size

    cdef Py_ssize_t write(
        self, uint8_t* at, uint32_t number, const uint8_t* message_id, Py_ssize_t payload_size
    ) except -1
    cdef Py_ssize_t add_field(self, uint8_t* at, Py_ssize_t size, bytes field) except -1
    cdef Py_ssize_t header_size_with(self, bytes field) except -1
    cdef Py_ssize_t message_size(self, Py_ssize_t size) noexcept


cdef Py_ssize_t next_message(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t payload_max, ServerMessage* message
) except -1
cdef Py_ssize_t decimal(Slice field) noexcept nogil
cdef int status_of(Slice header) noexcept
cdef Slice header_value(Slice header, bytes name)
cdef Py_ssize_t next_publication(const uint8_t* data, Py_ssize_t size, Publication* publication) noexcept nogil
cdef Slice stored_payload(const uint8_t* at, Py_ssize_t size) noexcept
cdef bint read_number(const uint8_t* at, int digits, uint32_t* number) noexcept nogil
cdef int append_publication(Buffer out, bytes head, Slice header, Slice payload) except -1
cdef int append_subscribe(Buffer out, str subject, uint32_t sid) except -1
cdef int append_unsubscribe(Buffer out, uint32_t sid) except -1
