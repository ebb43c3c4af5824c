"""WebSocket: carries the bytes of a protocol core in binary frames over TCP or TLS.

For the transport below, a WebSocket is a ProtocolCore; for the core above, it is a Transport. Boundaries of frames mean
nothing to MQTT (3.1.1 section 6.0): payload is passed on as it comes, and no frame is kept. CoAP (RFC 8323 section 4.2)
is told where each message ends, and each message of its own is a frame. No extension is
negotiated, so there is no compression. Origin is ignored, because credentials are in MQTT and not in cookies.

What lives here: the order of frames, closing, time-outs. What does not: the HTTP request (websocket_upgrade.py), the
bytes of a frame (`kaa_gateway.wire.websocket`).

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


cdef double CLOSE_TIMEOUT = 5.0  # seconds that a peer has to answer our Close frame

cdef bytes END_OF_HEAD = b"\r\n\r\n"


cdef class WebSocketServer:
    """Makes WebSocket connections, and holds what they share. Sizes are in bytes, times in seconds."""

    def __init__(
        self, loop, ProtocolServer server not None, Counters counters not None, *, uint64_t frame_size_max,
        double handshake_timeout, paths=("/ws",), subprotocols=(b"mqtt", b"mqttv3.1"), bint keeps_messages=False,
    ):
        self.loop = loop
        self.protocol_server = server
        self.counters = counters
        self.frame_size_max = frame_size_max
        self.paths = frozenset(path.encode() for path in paths)
        self.subprotocols = subprotocols
        self.keeps_messages = keeps_messages
        self.handshake_timeout = handshake_timeout
        self.plain = Buffer()

    cpdef ProtocolCore connect(self, Transport transport):
        """Return the WebSocket of a new connection."""
        cdef WebSocketConnection connection = WebSocketConnection()
        connection.server = self
        connection.transport = transport
        connection.start_time = self.loop.time()
        connection.head = Buffer()
        return connection


cdef class WebSocketTransport(Transport):
    """The transport that the core inside a WebSocket sees."""

    cdef int wake(self) except -1:
        return self.websocket.transport.wake()

    cdef int send_message(self, const uint8_t* data, Py_ssize_t size) except -1:
        if not self.websocket.close_sent:
            append_frame(self.websocket.output, BINARY, data, size)
        return self.websocket.transport.wake()

    cdef int pause_reading(self) except -1:
        return self.websocket.transport.pause_reading()

    cdef int resume_reading(self) except -1:
        return self.websocket.transport.resume_reading()

    cdef int close(self) except -1:
        return self.websocket.close_core()

    cdef int close_now(self) except -1:
        if self.websocket.close_code == 0:
            self.websocket.close_code = NORMAL
        return self.websocket.transport.close_now()  # the Close frame of the peer is not awaited

    cdef bytes peer_address(self):
        return self.websocket.transport.peer_address()

    cdef object tls_version(self):
        return self.websocket.transport.tls_version()


cdef class WebSocketConnection(ProtocolCore):
    """One WebSocket: the request that opens it, then frames."""

    cdef int violation(self, str reason, int close_code) except -1:
        """Raise ProtocolError, after giving the core the payload before the violation."""
        self.deliver()
        self.close_code = close_code
        raise ProtocolError(reason)

    cdef uint64_t packets(self) noexcept:
        return self.taken if self.core is None else self.taken + self.core.packets()

    cdef bint is_admitted(self) noexcept:
        return self.core is not None and self.core.is_admitted()

    cdef int add_unread_time(self, double seconds) except -1:
        ProtocolCore.add_unread_time(self, seconds)
        return 0 if self.core is None else self.core.add_unread_time(seconds)

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle received bytes: the rest of the request, or frames. Hot path."""
        cdef Py_ssize_t taken = 0
        if self.state == AWAITING_UPGRADE:
            taken = self.upgrade(data, size)
        if self.state in (OPEN, CLOSE_SENT) and taken < size:
            self.receive_frames(data + taken, size - taken)
        return 0

    # ------------------------------------------------------------ the request

    cdef Py_ssize_t upgrade(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Answer the request if it is complete. Return the number of bytes that belong to it."""
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
            response, reason = answer(self.head.data[:head_size], self.server.paths, self.server.subprotocols)
        self.head = None
        self.output.append(<const uint8_t*>response, len(response))
        if reason is not None:
            self.server.counters.count("refused", reason)
            self.state = ENDED
            self.transport.close()
            return size
        self.state = OPEN
        transport = WebSocketTransport()
        transport.websocket = self
        transport.keeps_messages = self.server.keeps_messages
        transport.certificate = self.transport.certificate
        transport.proxied = self.transport.proxied
        self.core = self.server.protocol_server.connect(transport)
        self.transport.wake()
        return head_size - before

    # ------------------------------------------------------------ frames

    cdef int receive_frames(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Unmask all payload in these bytes, and give it to the core in one call. Hot path."""
        cdef Py_ssize_t at = 0
        self.server.plain.size = 0
        try:
            while at < size and self.state in (OPEN, CLOSE_SENT):
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
        """Read a header, or keep the part that is here. Return the number of bytes used. Hot path."""
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
        self.check_frame()
        self.header_size = 0
        self.received = 0
        self.in_frame = True
        return taken - before

    cdef int check_frame(self) except -1:
        """Raise ProtocolError if this frame must not come now (section 5.4), or is too large. Hot path."""
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
        """Unmask the part of the frame's payload that is here. Return the number of bytes used. Hot path."""
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
            elif self.server.keeps_messages and self.frame.final:
                self.deliver()
                if self.core is not None:
                    self.core.end_of_message()
        return count

    cdef int on_control(self) except -1:
        """Handle a complete control frame, which may come between the frames of a message."""
        self.taken += 1
        if self.frame.opcode == PING and not self.close_sent:
            append_frame(self.output, PONG, self.control, <Py_ssize_t>self.frame.size)
            return self.transport.wake()
        if self.frame.opcode != CLOSE:
            return 0
        if self.state == CLOSE_SENT:
            self.state = ENDED
            return self.transport.close()
        self.deliver()
        if self.close_code == 0:
            self.close_code = read_close(self.control, <Py_ssize_t>self.frame.size)
        self.state = CLOSE_RECEIVED
        # A server may answer with its Close frame after what it still has to send (section 5.5.1).
        return self.transport.close() if self.close_due else self.core.end_of_input()

    cdef int deliver(self) except -1:
        """Give the unmasked payload to the core. Hot path."""
        cdef Buffer plain = self.server.plain
        if plain.size and self.core is not None:
            self.core.receive(plain.data, plain.size)
        plain.size = 0
        return 0

    # ------------------------------------------------------------ output, time, the end

    cdef int finish_output(self, bint closing) except -1:
        """Put the core's output into a frame, and append a Close frame if the connection closes. Hot path."""
        if self.core is not None and self.core.output.size and not self.close_sent:
            append_frame(self.output, BINARY, self.core.output.data, self.core.output.size)
            self.core.output.clear(OUTPUT_KEEP)
        if (closing or self.close_due) and self.core is not None and not self.close_sent:
            self.close_sent = True
            append_close(self.output, <CloseCode>(self.close_code if self.close_code else <int>GOING_AWAY))
            if not closing:
                self.state = CLOSE_SENT
                self.close_time = self.server.loop.time()
                self.release_core()
                self.transport.resume_reading()
        return 0

    cdef int close_core(self) except -1:
        """Close the WebSocket for its core: send a Close frame, and wait for the peer's (section 7.1.2)."""
        if self.close_code == 0:
            self.close_code = NORMAL
        if self.state != OPEN or self.input_ended:
            return self.transport.close()
        self.close_due = True
        return self.transport.wake()

    cdef int release_core(self) except -1:
        """Part from the core, which has closed or is lost."""
        cdef ProtocolCore core = self.core
        if core is None:
            return 0
        self.core = None
        self.taken += core.packets()
        return core.lost()

    cdef int end_of_input(self) except -1:
        """Close after the answers that are due: the peer has closed its side without a Close frame."""
        if self.input_ended:
            return 0
        self.input_ended = True
        if self.state == CLOSE_RECEIVED:
            return 0
        if self.state == OPEN and not self.close_due:
            return self.core.end_of_input()
        return self.transport.close()

    cdef int check(self, double now) except -1:
        """Apply the time-out of the request, then those of the core."""
        if self.state == AWAITING_UPGRADE:
            self.start_time += self.take_unread_time()
            if now - self.start_time > self.server.handshake_timeout:
                raise ProtocolError("ws_handshake_timeout")
            return 0
        if self.state == CLOSE_SENT and now - self.close_time > CLOSE_TIMEOUT:
            return self.transport.close()
        if self.core is not None:
            try:
                self.core.check(now)
            except ProtocolError:
                self.close_code = PROTOCOL_ERROR
                raise
        return 0

    cdef int explain(self, str reason) except -1:
        return 0 if self.core is None else self.core.explain(reason)

    cdef int explain_stop(self) except -1:
        return 0 if self.core is None else self.core.explain_stop()

    cdef bint redirect(self, bint permanent) except -1:
        return self.core is not None and self.core.redirect(permanent)

    cdef int lost(self) except -1:
        """Release everything: the connection is closed."""
        self.state = ENDED
        self.head = None
        return self.release_core()
