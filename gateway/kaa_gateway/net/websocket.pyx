"""WebSocket: a layer between a connection, TCP or TLS, and the core whose bytes it carries in binary frames.

To the connection it is a ProtocolCore, to the core a Transport. Frames and the core's packets have nothing to do with each
other (MQTT 3.1.1 section 6.0): payload is handed on as it comes, and no frame is kept. No extension is ever agreed
on, so there is no compression; Origin is not looked at, because credentials are in MQTT and not in cookies.

Source: RFC 6455, whose sections the comments cite.
"""

from libc.string cimport memcpy

from kaa_gateway.errors import ProtocolError
from kaa_gateway.net.websocket_upgrade import answer, refusal

from kaa_gateway.wire.text cimport memmem
from kaa_gateway.wire.websocket cimport (
    BINARY, CLOSE, CONTINUATION, GOING_AWAY, HEADER_INCOMPLETE, HEADER_WELL_FORMED, MESSAGE_TOO_BIG, NORMAL,
    PING, PONG, PROTOCOL_ERROR, TEXT, UNSUPPORTED_DATA, CloseCode, HeaderFormat, append_close, append_frame, read_close,
    read_header, unmask,
)

from kaa_gateway.wire.websocket import FORMAT_REASONS

cdef enum:
    HEAD_SIZE_MAX = 8 * 1024   # bytes of the Upgrade request
    OUTPUT_KEEP = 512          # bytes of output buffer that a core keeps while it has nothing to write
    PLAIN_KEEP = 256 * 1024    # bytes of unmasked payload for which memory is kept


cdef bytes END_OF_HEAD = b"\r\n\r\n"


cdef class WebSocketServer:
    """What the WebSockets of a worker share. Sizes are in bytes, times in seconds."""

    def __init__(
        self, loop, make_core, Counters counters not None, *, uint64_t frame_size_max, double handshake_timeout
    ):
        self.loop = loop
        self.make_core = make_core
        self.counters = counters
        self.frame_size_max = frame_size_max
        self.handshake_timeout = handshake_timeout
        self.plain = Buffer()

    def connect(self, Transport transport not None):
        """The layer of a new connection."""
        cdef WebSocketConnection connection = WebSocketConnection()
        connection.server = self
        connection.transport = transport
        connection.begun = self.loop.time()
        connection.head = Buffer()
        return connection


cdef class WebSocketTransport(Transport):
    """What the core may ask for."""

    cdef int wake(self) except -1:
        return self.carrier.transport.wake()

    cdef int pause_reading(self) except -1:
        return self.carrier.transport.pause_reading()

    cdef int resume_reading(self) except -1:
        return self.carrier.transport.resume_reading()

    cdef int close(self) except -1:
        if self.carrier.close_code == 0:
            self.carrier.close_code = NORMAL
        return self.carrier.transport.close()


cdef class WebSocketConnection(ProtocolCore):
    """One WebSocket."""

    cdef int violation(self, str reason, int close_code) except -1:
        """The client breaks the protocol, after what it has sent before that."""
        self.deliver()
        self.close_code = close_code
        raise ProtocolError(reason)

    cdef uint64_t packets(self) noexcept:
        return self.taken if self.core is None else self.taken + self.core.packets()

    cdef bint is_admitted(self) noexcept:
        return self.core is not None and self.core.is_admitted()

    cdef int hold(self, bint held) except -1:
        return 0 if self.core is None else self.core.hold(held)

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Hot path."""
        cdef Py_ssize_t taken = 0
        if self.state == AWAITING_UPGRADE:
            taken = self.upgrade(data, size)
        if self.state == OPEN and taken < size:
            self.receive_frames(data + taken, size - taken)
        return 0

    # ------------------------------------------------------------ the request

    cdef Py_ssize_t upgrade(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Answer the request if it is whole; the bytes taken."""
        cdef Py_ssize_t before = self.head.size, head_size
        cdef const uint8_t* end
        cdef bytes response
        self.head.append(data, min(size, HEAD_SIZE_MAX - before))
        end = <const uint8_t*>memmem(self.head.data, <size_t>self.head.size, <const char*>END_OF_HEAD, 4)
        if end == NULL:
            if self.head.size < HEAD_SIZE_MAX:
                return size
            response, reason = refusal(431, "ws_header_too_large", "Header fields are too large")
            head_size = HEAD_SIZE_MAX
        else:
            head_size = end + 4 - self.head.data
            response, reason = answer(self.head.data[:head_size])
        self.head = None
        self.output.append(<const uint8_t*>response, len(response))
        if reason is not None:
            self.server.counters.count("refused", reason)
            self.state = ENDED
            self.transport.close()
            return size
        self.state = OPEN
        transport = WebSocketTransport()
        transport.carrier = self
        transport.certificate = self.transport.certificate
        self.core = self.server.make_core(transport)
        self.transport.wake()
        return head_size - before

    # ------------------------------------------------------------ frames

    cdef int receive_frames(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Unmask the payload in these bytes, and hand it to the core in one go. Hot path."""
        cdef Py_ssize_t at = 0
        self.server.plain.size = 0
        try:
            while at < size and self.state == OPEN:
                if not self.in_frame:
                    at += self.begin_frame(data + at, size - at)
                if self.in_frame:
                    at += self.take_payload(data + at, size - at)
            self.deliver()
        except ProtocolError:
            if self.close_code == 0:
                self.close_code = PROTOCOL_ERROR
            raise
        finally:
            self.server.plain.clear(PLAIN_KEEP)
        return 0

    cdef Py_ssize_t begin_frame(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Read a header, or keep what there is of it; the bytes taken. Hot path."""
        cdef Py_ssize_t before = self.header_size, taken = 0
        cdef Py_ssize_t count = min(size, <Py_ssize_t>HEADER_SIZE_MAX - before)
        cdef HeaderFormat format
        if before:
            memcpy(self.header_bytes + before, data, <size_t>count)
            format = read_header(self.header_bytes, before + count, &self.frame, &taken)
        else:
            format = read_header(data, count, &self.frame, &taken)
        if format == HEADER_INCOMPLETE:
            if not before:
                memcpy(self.header_bytes, data, <size_t>count)
            self.header_size = before + count
            return count
        if format != HEADER_WELL_FORMED:
            self.violation(FORMAT_REASONS[<int>format], PROTOCOL_ERROR)
        self.judge_frame()
        self.header_size = 0
        self.received = 0
        self.in_frame = True
        return taken - before

    cdef int judge_frame(self) except -1:
        """Whether this frame may come now (section 5.4), and is not too large. Hot path."""
        if self.frame.opcode >= CLOSE:
            return 0
        if self.frame.opcode == TEXT:
            self.violation("ws_text_frame", UNSUPPORTED_DATA)
        if (self.frame.opcode == CONTINUATION) != self.in_message:
            self.violation("ws_fragmentation", PROTOCOL_ERROR)
        if self.frame.size > self.server.frame_size_max:
            self.violation("ws_frame_too_large", MESSAGE_TOO_BIG)
        self.in_message = not self.frame.final
        return 0

    cdef Py_ssize_t take_payload(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Unmask what there is of the frame's payload; the bytes taken. Hot path."""
        cdef Buffer plain = self.server.plain
        cdef uint64_t left = self.frame.size - self.received
        cdef Py_ssize_t count = size if left > <uint64_t>size else <Py_ssize_t>left
        if self.frame.opcode >= CLOSE:
            unmask(self.control + self.received, data, count, self.frame.mask, self.received)
        else:
            unmask(plain.reserve(count), data, count, self.frame.mask, self.received)
            plain.size += count
        self.received += <uint64_t>count
        if self.received == self.frame.size:
            self.in_frame = False
            if self.frame.opcode >= CLOSE:
                self.on_control()
        return count

    cdef int on_control(self) except -1:
        """A whole control frame, which may stand between the frames of a message."""
        self.taken += 1
        if self.frame.opcode == PING:
            append_frame(self.output, PONG, self.control, <Py_ssize_t>self.frame.size)
            return self.transport.wake()
        if self.frame.opcode == CLOSE:
            self.deliver()
            self.state = ENDED
            if self.close_code == 0:
                self.close_code = read_close(self.control, <Py_ssize_t>self.frame.size)
            return self.transport.close()
        return 0

    cdef int deliver(self) except -1:
        """Hand the payload that is here to the core. Hot path."""
        cdef Buffer plain = self.server.plain
        if plain.size and self.core is not None:
            self.core.receive(plain.data, plain.size)
        plain.size = 0
        return 0

    # ------------------------------------------------------------ output, time, the end

    cdef int finish_output(self, bint closing) except -1:
        """Frame what the core has left, and end with a Close frame if the connection ends. Hot path."""
        if self.core is not None and self.core.output.size and not self.close_sent:
            append_frame(self.output, BINARY, self.core.output.data, self.core.output.size)
            self.core.output.clear(OUTPUT_KEEP)
        if closing and self.core is not None and not self.close_sent:
            self.close_sent = True
            append_close(self.output, <CloseCode>(self.close_code if self.close_code else <int>GOING_AWAY))
        return 0

    cdef int check(self, double now) except -1:
        """The request in time, then what the core minds."""
        if self.state == AWAITING_UPGRADE:
            if now - self.begun > self.server.handshake_timeout:
                raise ProtocolError("ws_handshake_timeout")
            return 0
        if self.core is not None:
            try:
                self.core.check(now)
            except ProtocolError:
                self.close_code = PROTOCOL_ERROR
                raise
        return 0

    cdef int lost(self) except -1:
        """The connection is gone."""
        core = self.core
        self.core = None
        self.state = ENDED
        self.head = None
        return 0 if core is None else (<ProtocolCore>core).lost()
