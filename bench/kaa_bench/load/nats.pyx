"""Both sides of the bench on NATS itself: a load of bare requests, and the extension service that answers.

NatsRequestLoad is the baseline for the gateway's way to an extension and back. A message is a PUB with a reply subject
that its connection subscribes to. Replies arrive in the order of the requests, since one service answers all of them.

NatsSink takes ClientData, counts it, and answers it on request: ExtensionData with status 200 and no payload, all
answers to one read in one write. It is an instrument: it has its own small reader of MSG lines on a raw socket, so it
costs little and shares no code with the gateway's link. Connecting and subscribing are in connecting.py.

Source: the NATS client protocol (MSG, PUB, PING, -ERR); 4/ESP for ClientData and ExtensionData.
"""

import time

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from kaa_bench.load.loop cimport (
    MALFORMED_RESPONSE, MSG_DONTWAIT, MSG_NOSIGNAL, NONE, UNEXPECTED_PACKET, recv, send,
)
from kaa_gateway.wire.avro cimport GOOD, LONG_SIZE_MAX, put_long
from kaa_gateway.wire.esp cimport ClientDataView, read_client_data

from kaa_bench.errors import BenchError

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN

    struct pollfd:
        int fd
        short events
        short revents

    int poll(pollfd* fds, unsigned long count, int timeout_ms)

cdef enum:
    BREAK_SIZE = 2             # "\r\n"
    BUFFER_SIZE = 1 << 20      # bytes; the longest message with its MSG line
    PAYLOAD_DIGITS_MAX = 8     # digits of the length of a payload
    FIELDS_MAX = 6             # MSG subject sid [reply-to] size, and one more to detect too many
    STATUS_OK = 200

# Union branches of ExtensionData.
cdef enum:
    STRING_FIRST = 0
    NULL_FIRST = 0
    NULL_SECOND = 1


cdef class NatsRequestLoad(StreamLoad):
    """Sends requests on sockets that are past CONNECT and have subscribed to their reply subject."""

    def __cinit__(self, sockets, messages, int window):
        self.replies = <Reply*>calloc(self.count, sizeof(Reply))
        if self.replies == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.replies)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Collect lines and skip payloads. Hot path."""
        cdef Reply* reply = &self.replies[connection.index]
        cdef const uint8_t* end
        cdef Py_ssize_t part
        cdef Failure failure
        while size:
            if reply.payload_left:
                part = min(size, reply.payload_left)
                reply.payload_left -= part
                if reply.payload_left == 0:
                    if connection.acknowledged >= self.written(connection):
                        return UNEXPECTED_PACKET
                    self.timed(connection, connection.acknowledged)
                    connection.acknowledged += 1
            else:
                end = <const uint8_t*>memchr(data, c"\n", <size_t>size)
                part = size if end == NULL else end + 1 - data
                if reply.line_size + part > LINE_SIZE_MAX:
                    return MALFORMED_RESPONSE
                memcpy(reply.line + reply.line_size, data, <size_t>part)
                reply.line_size += part
                if end != NULL:
                    failure = self.line_complete(connection, reply)
                    if failure != NONE:
                        return failure
                    reply.line_size = 0
            data += part
            size -= part
        return NONE

    cdef Failure line_complete(self, Connection* connection, Reply* reply) noexcept nogil:
        """Handle a complete line. The last field of MSG is the size of the payload. Hot path."""
        cdef Py_ssize_t at = reply.line_size - BREAK_SIZE, first, index, length = 0
        if reply.line_size >= 4 and memcmp(reply.line, b"MSG ", 4) == 0:
            first = at
            while first > 0 and c"0" <= reply.line[first - 1] <= c"9":
                first -= 1
            if first == at or at - first > PAYLOAD_DIGITS_MAX:
                return MALFORMED_RESPONSE
            for index in range(first, at):
                length = length * 10 + reply.line[index] - c"0"
            reply.payload_left = length + BREAK_SIZE
            return NONE
        if reply.line_size >= 4 and memcmp(reply.line, b"PING", 4) == 0:
            # PONG must not be written into the middle of a message.
            if self.streams[connection.index].unsent == 0:
                send(connection.fd, <const char*>b"PONG\r\n", 6, MSG_DONTWAIT | MSG_NOSIGNAL)
            return NONE
        if reply.line_size >= 4 and memcmp(reply.line, b"INFO", 4) == 0:
            return NONE
        return UNEXPECTED_PACKET


cdef class NatsSink:
    """Reads a socket that is subscribed to ClientData. `extension` is the instance that answers, None to count only."""

    def __cinit__(self, socket, bytes extension=None):
        self.socket = socket
        self.fd = socket.fileno()
        self.extension = extension
        self.out = Buffer()
        self.datum = Buffer()
        self.buffer = <uint8_t*>malloc(BUFFER_SIZE)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    def drain(self, int control):
        """Take messages until the file descriptor `control` is readable. Raise BenchError for an error of NATS."""
        cdef pollfd ready[2]
        cdef int count
        ready[0] = pollfd(self.fd, POLLIN, 0)
        ready[1] = pollfd(control, POLLIN, 0)
        while True:
            with nogil:
                count = poll(ready, 2, -1)
            if count < 0 and errno != EINTR:
                raise OSError(errno, "poll")
            if count > 0 and ready[0].revents:
                self.receive()
            if count > 0 and ready[1].revents:
                return

    cdef int receive(self) except -1:
        """Read once, and take every complete message."""
        cdef Py_ssize_t used, at = 0
        cdef int64_t timestamp = <int64_t>(time.time() * 1000)
        cdef ssize_t count = recv(self.fd, self.buffer + self.size, <size_t>(BUFFER_SIZE - self.size), MSG_DONTWAIT)
        if count < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        if count <= 0:
            raise BenchError("sink: the NATS server closed the connection")
        self.size += count
        while True:
            used = self.take(self.buffer + at, self.size - at, timestamp)
            if used == 0:
                break
            at += used
        self.size -= at
        memmove(self.buffer, self.buffer + at, <size_t>self.size)
        if self.size == BUFFER_SIZE:
            raise BenchError(f"sink: a message is longer than {BUFFER_SIZE} bytes")
        return self.flush()

    cdef Py_ssize_t take(self, const uint8_t* data, Py_ssize_t size, int64_t timestamp) except -1:
        """Take a protocol line with its payload. Return their size, 0 if more bytes are needed. Hot path."""
        cdef Slice fields[FIELDS_MAX]
        cdef const uint8_t* at = data
        cdef const uint8_t* end = <const uint8_t*>memchr(data, c"\n", <size_t>size) if size else NULL
        cdef Py_ssize_t payload_size = 0, line_size, index
        cdef int count = 0
        if end == NULL:
            return 0
        line_size = end + 1 - data
        if line_size < 2 or (end - 1)[0] != c"\r":
            raise BenchError("sink: a line from NATS without its end")
        end -= 1
        while at < end and count < FIELDS_MAX:
            fields[count].data = at
            while at < end and at[0] != c" ":
                at += 1
            fields[count].size = at - fields[count].data
            count += 1
            at += 1
        if count == 0 or fields[0].size != 3 or memcmp(data, <const char*>b"MSG", 3) != 0:
            return self.take_control(data[:line_size])
        if not 4 <= count <= 5 or fields[count - 1].size > PAYLOAD_DIGITS_MAX:
            raise BenchError("sink: a malformed MSG line")
        for index in range(fields[count - 1].size):
            if not c"0" <= fields[count - 1].data[index] <= c"9":
                raise BenchError("sink: a malformed MSG line")
            payload_size = payload_size * 10 + fields[count - 1].data[index] - c"0"
        if size < line_size + payload_size + 2:
            return 0
        self.received += 1
        if self.extension is not None and count == 5:
            self.answer(fields[3], data + line_size, payload_size, timestamp)
        return line_size + payload_size + 2

    cdef Py_ssize_t take_control(self, bytes line) except -1:
        """Handle a line other than MSG: answer PING, raise an error. Return its size."""
        if line == b"PING\r\n":
            self.socket.sendall(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise BenchError(f"sink: NATS says {line.decode(errors='replace').strip()}")
        return len(line)

    cdef int answer(self, Slice reply_to, const uint8_t* data, Py_ssize_t size, int64_t timestamp) except -1:
        """Append a PUB of ExtensionData 200 for the ClientData in `data`, which the slices borrow from. Hot path."""
        cdef ClientDataView request
        cdef Buffer datum = self.datum
        if read_client_data(data, size, &request) != GOOD:
            raise BenchError("sink: the payload is not a ClientData")
        datum.clear(BUFFER_SIZE)
        append_string(datum, request.correlation_id)
        append_long(datum, timestamp)
        append_long(datum, 0)  # timeout: never
        append_long(datum, STRING_FIRST)
        append_string(datum, request.app_version_name)
        append_long(datum, STRING_FIRST)
        append_string(datum, Slice(<const uint8_t*><char*>self.extension, len(self.extension)))
        append_long(datum, NULL_SECOND if request.endpoint_id.data == NULL else STRING_FIRST)
        if request.endpoint_id.data != NULL:
            append_string(datum, request.endpoint_id)
        append_string(datum, request.resource_path)
        append_long(datum, 0 if request.has_request_id else NULL_SECOND)
        if request.has_request_id:
            append_long(datum, request.request_id)
        append_long(datum, NULL_SECOND)  # payload
        append_long(datum, STATUS_OK)
        append_long(datum, NULL_FIRST)  # reasonPhrase
        append_bytes(self.out, b"PUB ")
        self.out.append(reply_to.data, reply_to.size)
        append_bytes(self.out, b" %d\r\n" % datum.size)
        self.out.append(datum.data, datum.size)
        append_bytes(self.out, b"\r\n")
        return 0

    cdef int flush(self) except -1:
        """Write the answers. The server reads while it writes, so a blocking write cannot cause a deadlock."""
        if self.out.size:
            self.socket.sendall(self.out.copy())
            self.out.clear(BUFFER_SIZE)
        return 0


cdef int append_long(Buffer out, int64_t value) except -1:
    out.size = put_long(out.reserve(LONG_SIZE_MAX), value) - out.data
    return 0


cdef int append_string(Buffer out, Slice value) except -1:
    append_long(out, value.size)
    return out.append(value.data, value.size)


cdef int append_bytes(Buffer out, bytes value) except -1:
    return out.append(<const uint8_t*>value, len(value))
