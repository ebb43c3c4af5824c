from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


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
    Slice reply
    Slice header    # of HPUB: from "NATS/1.0" to the blank line; empty of PUB
    Slice payload


cdef Py_ssize_t next_message(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t payload_max, ServerMessage* message
) except -1
cdef int status_of(Slice header) noexcept
cdef Slice header_value(Slice header, bytes name)
cdef Py_ssize_t next_publication(const uint8_t* data, Py_ssize_t size, Publication* publication) noexcept nogil
cdef int append_publication(Buffer out, bytes head, Slice header, Slice payload) except -1
