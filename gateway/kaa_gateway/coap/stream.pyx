"""One connection of CoAP over a reliable transport: its framing, its signaling messages, and its end.

Requests go to the same peer as over UDP (peer.pyx), with a number of ours in the place of a message ID. Over a
transport that keeps messages apart, as WebSocket does, messages have no length of their own.

Source: RFC 8323 sections 3 to 5; RFC 8974 section 2.2.2 (extended tokens).
"""

import asyncio

from libc.stdint cimport int64_t, uint32_t

import structlog

from kaa_gateway.errors import IdentityError, ProtocolError
from kaa_gateway.identity.clients import Client

from kaa_gateway.coap.context cimport CoapContext
from kaa_gateway.coap.exchanges cimport KEPT_TOKEN_MAX
from kaa_gateway.coap.options cimport Request, read_request
from kaa_gateway.net.input_memory cimport INPUT_FREE
from kaa_gateway.wire.coap cimport (
    ABORT, BAD_REQUEST, CSM, EMPTY, NO_OPTION, NON, RELEASE, SIGNAL_PING, SIGNAL_PONG, WELL_FORMED, Format,
    OptionReader, append_header, append_option, append_payload, append_uint_option, next_option, option_reader,
    read_uint, take_payload,
)
from kaa_gateway.wire.coap_stream cimport (
    ALTERNATIVE_ADDRESS, BAD_CSM_OPTION, BLOCK_WISE_TRANSFER, EXTENDED_TOKEN_LENGTH, MAX_MESSAGE_SIZE, STREAM_LENGTH,
    STREAM_MESSAGE, STREAM_TOKEN_LENGTH, StreamFormat, append_signal, append_stream_message, read_stream_message,
    size_of_message,
)

from kaa_gateway.wire.coap import FORMAT_REASONS
from kaa_gateway.wire.coap_stream import STREAM_REASONS

log = structlog.get_logger("gateway.transports")

cdef enum:
    CLASS_OF_REQUESTS = 0
    CLASS_OF_SIGNALS = 7
    MESSAGE_SIZE_MIN = 128        # bytes that a peer must be able to take
    FRONT_SURPLUS = 2             # bytes by which the front of a message over a stream may exceed that of a datagram
    SIGNAL_TOKEN_MAX = 12         # bytes of the token of a Ping

cdef double PONG_TIMEOUT = 30.0   # seconds that a peer has to answer a Ping


cdef class CoapStream(MessageStream):
    """The protocol core of one connection."""

    # ------------------------------------------------------------ input

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle the messages in these bytes, and keep the rest. Hot path."""
        cdef Buffer whole
        self.active = True
        if self.state == ENDED:
            return 0
        if self.transport.keeps_messages:
            if self.tail is not None and self.tail.size + size > self.server.message_size_max:
                raise ProtocolError("coap_message_too_large")
            self.keep(data, size)
            return self.count_input()
        if self.tail is None and self.state != AUTHENTICATING:
            return self.parse(data, size)
        self.keep(data, size)
        if self.state == AUTHENTICATING or self.tail.size < self.wanted:
            return self.count_input()
        whole, self.tail = self.tail, None
        return self.parse(whole.data, whole.size)

    cdef int end_of_message(self) except -1:
        """Handle the message that the transport has brought whole."""
        cdef Buffer whole = self.tail
        if whole is None or self.state == ENDED:
            return 0
        self.tail = None
        if self.state == AUTHENTICATING:  # reading has paused, so there are few
            self.held = [whole] if self.held is None else [*self.held, whole]
            return 0
        self.server.input_memory.reserve(self, 0)
        return self.receive_whole(whole)

    cdef int receive_whole(self, Buffer whole) except -1:
        """Handle a message that has no length of its own."""
        if whole.data[0] >> 4:
            raise ProtocolError(STREAM_REASONS[<int>STREAM_LENGTH])
        return self.receive_message(whole.data, whole.size)

    cdef int parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle each whole message, until the rest is incomplete or has to wait. Hot path.

        `data` is borrowed for the call.
        """
        cdef Py_ssize_t needed = 0
        while size and self.state != AUTHENTICATING and self.state != ENDED:
            needed = size_of_message(data, size)
            if needed < 0:
                raise ProtocolError(STREAM_REASONS[<int>STREAM_TOKEN_LENGTH])
            if needed > self.server.message_size_max:
                raise ProtocolError("coap_message_too_large")
            if needed == 0 or needed > size:
                break
            self.receive_message(data, needed)
            data += needed
            size -= needed
            needed = 0
        if size and self.state != ENDED:
            self.wanted = needed
            self.keep(data, size)
        return self.count_input()

    cdef int keep(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Keep input that is not handled yet."""
        if self.tail is None:
            self.tail = Buffer()
        return self.tail.append(data, size)

    cdef int count_input(self) except -1:
        """Count the bytes that are held for this connection. Hot path."""
        cdef Py_ssize_t size = 0 if self.tail is None else self.tail.capacity
        if (size > INPUT_FREE or self.input_counted) and not self.server.input_memory.reserve(self, size):
            raise ProtocolError("input_memory_full")
        return 0

    cdef int go_on(self) except -1:
        """Handle the input that was kept while the client was authenticated, and read again."""
        cdef Buffer whole, tail = self.tail
        cdef list held = self.held
        self.held = None
        try:
            if self.transport.keeps_messages:
                for whole in held or ():
                    if self.state != ENDED:
                        self.receive_whole(whole)
            elif tail is not None:
                self.tail = None
                self.parse(tail.data, tail.size)
        except ProtocolError as error:
            return self.end(error.reason)
        if self.state == ENDED:
            return 0
        self.transport.resume_reading()
        return self.close_after_answers() if self.input_ended else 0

    cdef int receive_message(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle one message, which is borrowed for the call. Hot path."""
        cdef MessageView view
        cdef StreamFormat found = read_stream_message(data, size, &view)
        if found != STREAM_MESSAGE:
            raise ProtocolError(STREAM_REASONS[<int>found])
        self.taken += 1
        if view.code == EMPTY:
            return 0  # keeps a connection alive (RFC 8323 section 3.3)
        if view.code >> 5 == CLASS_OF_SIGNALS:
            return self.receive_signal(&view)
        if self.state == AWAITING_CSM:
            raise ProtocolError("coap_no_csm")
        if view.code >> 5 != CLASS_OF_REQUESTS:
            return self.server.context.counters.count("dropped", "coap_unexpected_message")
        return self.receive_request(&view)

    cdef int receive_request(self, MessageView* view) except -1:
        """Handle a request. Hot path."""
        cdef CoapContext context = self.server.context
        cdef Request request
        cdef Format format = read_request(view, context.path, &request)
        if format != WELL_FORMED:
            raise ProtocolError(FORMAT_REASONS[<int>format])
        if view.token.size > KEPT_TOKEN_MAX:
            return self.refuse_long_token(view)
        context.now = self.server.loop.time()
        self.last_request += 1
        while self.peer.exchanges.find(self.last_request) is not None:
            self.last_request += 1  # the exchanges are fewer than the numbers
        view.message_id = self.last_request
        return self.peer.receive_request(view, &request, context.now)

    cdef int refuse_long_token(self, MessageView* view) except -1:
        """Refuse a request whose token is longer than we keep (RFC 8974 section 2.2.1)."""
        cdef Buffer out = self.server.context.out
        self.server.context.counters.count("refused", "coap_long_token")
        out.size = 0
        append_header(out, NON, BAD_REQUEST, 0, view.token)
        return self.send_message(out.data, out.size)

    # ------------------------------------------------------------ signaling

    cdef int receive_signal(self, MessageView* view) except -1:
        """Handle a signaling message (RFC 8323 section 5)."""
        if view.code == ABORT:
            self.server.context.counters.count("closed", "coap_abort_by_client")
            self.state = ENDED
            return self.transport.close()
        self.check_options(view)
        if view.code == CSM:
            return self.receive_csm(view)
        if self.state == AWAITING_CSM:
            raise ProtocolError("coap_no_csm")
        if view.code == SIGNAL_PING:
            if view.token.size > SIGNAL_TOKEN_MAX:
                raise ProtocolError("coap_token_length")
            self.server.scratch.size = 0
            return self.send_signal(SIGNAL_PONG, view.token, self.server.scratch)
        if view.code == RELEASE:
            self.state = RELEASED
            return self.close_after_answers()
        if view.code != SIGNAL_PONG:
            self.server.context.counters.count("dropped", "coap_unknown_signal")
        return 0

    cdef int check_options(self, MessageView* view) except -1:
        """Raise ProtocolError if the options are malformed, or one is critical and unknown (section 5.2)."""
        cdef OptionReader reader = option_reader(view)
        cdef Slice value
        cdef Format format = next_option(&reader, &value)
        while format == WELL_FORMED:
            if reader.number & 1:  # no critical option is defined
                if view.code == CSM:
                    self.bad_csm_option = <int>reader.number
                raise ProtocolError("coap_critical_signal_option")
            format = next_option(&reader, &value)
        if format == NO_OPTION:
            format = take_payload(&reader, view)
        if format != WELL_FORMED:
            raise ProtocolError(FORMAT_REASONS[<int>format])
        return 0

    cdef int receive_csm(self, MessageView* view) except -1:
        """Take over what the peer can do. The first CSM opens the connection."""
        cdef OptionReader reader = option_reader(view)
        cdef Slice value
        cdef int64_t size
        while next_option(&reader, &value) == WELL_FORMED:
            if reader.number == MAX_MESSAGE_SIZE and value.size <= 4:
                size = <int64_t>read_uint(value)
                if size < MESSAGE_SIZE_MIN:
                    self.bad_csm_option = MAX_MESSAGE_SIZE
                    raise ProtocolError("coap_small_message_size")
                self.peer.outbox.message_size_max = size - FRONT_SURPLUS
        return self.authenticate() if self.state == AWAITING_CSM else 0

    cdef int send_signal(self, uint8_t code, Slice token, Buffer content) except -1:
        """Send a signaling message; `content` has its options and payload."""
        cdef Buffer out
        if self.state == ENDED:
            return 0
        if self.transport.keeps_messages:
            out = Buffer()
            append_signal(out, code, token, Slice(content.data, content.size), False)
            return self.transport.send_message(out.data, out.size)
        append_signal(self.output, code, token, Slice(content.data, content.size), True)
        return self.transport.wake()

    cdef int send_csm(self) except -1:
        """Tell the peer what we can do: it may send at once, before its own CSM."""
        cdef Buffer content = self.server.scratch
        content.size = 0
        append_uint_option(content, 0, MAX_MESSAGE_SIZE, <uint32_t>self.server.message_size_max)
        append_option(content, MAX_MESSAGE_SIZE, BLOCK_WISE_TRANSFER, Slice(NULL, 0))
        append_uint_option(content, BLOCK_WISE_TRANSFER, EXTENDED_TOKEN_LENGTH, KEPT_TOKEN_MAX)
        return self.send_signal(CSM, Slice(NULL, 0), content)

    cdef int release(self) except -1:
        """Ask the peer to leave, and tell it where to go if that is known (section 5.5)."""
        cdef Buffer content = self.server.scratch
        cdef bytes address = self.server.alternative_address
        if self.release_sent or self.state == ENDED:
            return 0
        self.release_sent = True
        content.size = 0
        if address is not None:
            append_option(content, 0, ALTERNATIVE_ADDRESS, Slice(<const uint8_t*>address, len(address)))
        return self.send_signal(RELEASE, Slice(NULL, 0), content)

    # ------------------------------------------------------------ the client

    cdef int authenticate(self) except -1:
        """Open the connection if its client may use the platform; a provider may have to be asked."""
        if self.server.authenticate is None:
            return self.admit(None)
        try:
            known = self.server.authenticate(self.transport.certificate)
        except IdentityError as error:
            return self.refuse_client(error)
        if isinstance(known, Client):
            return self.admit(known)
        self.state = AUTHENTICATING
        self.transport.pause_reading()
        known.add_done_callback(self.authenticated)
        return 0

    def authenticated(self, future):
        """Go on after the provider has answered."""
        if self.state != AUTHENTICATING or future.cancelled():
            return
        error = future.exception()
        if error is None:
            self.admit(future.result())
            self.go_on()
        elif isinstance(error, IdentityError):
            self.refuse_client(error)
        else:
            asyncio.get_running_loop().call_exception_handler({"message": "authentication failed", "exception": error})
            self.end("identity_unavailable")

    cdef int admit(self, client) except -1:
        """Open the connection for a client."""
        if client is not None:
            self.peer.set_client(client)
        self.state = OPEN
        self.admitted = True
        return 0

    cdef int refuse_client(self, error) except -1:
        """Close the connection of a client that may not use the platform."""
        self.server.context.counters.count("refused", error.reason)
        log.info("client refused", reason=error.reason)
        self.explain(error.reason)
        self.state = ENDED
        return self.transport.close()

    # ------------------------------------------------------------ output

    cdef int send_message(self, const uint8_t* datagram, Py_ssize_t size) except -1:
        """Send a message that was encoded as a datagram. Hot path."""
        cdef Buffer out
        if self.state == ENDED:
            return 0
        if self.state == RELEASED or self.input_ended:
            self.server.loop.call_soon(self.close_if_idle)
        if self.transport.keeps_messages:
            out = Buffer()
            append_stream_message(out, datagram, size, False)
            return self.transport.send_message(out.data, out.size)
        append_stream_message(self.output, datagram, size, True)
        return self.transport.wake()

    # ------------------------------------------------------------ the end

    cdef int end_of_input(self) except -1:
        """Close after the answers that are due: the peer has closed its sending side."""
        self.input_ended = True
        return self.close_after_answers()

    cdef int close_after_answers(self) except -1:
        """Close if no request waits for its answer."""
        if self.state in (AUTHENTICATING, ENDED) or self.peer.pending_count:
            return 0
        self.state = ENDED
        return self.transport.close()

    def close_if_idle(self):
        """Close if no request waits for its answer any more."""
        self.close_after_answers()

    cdef int lost(self) except -1:
        """Release everything: the connection is closed."""
        cdef CoapPeer peer = self.peer
        self.state = ENDED
        self.tail = self.held = None
        self.server.input_memory.reserve(self, 0)
        self.server.connections.discard(self)
        self.peer = None
        return 0 if peer is None else peer.close()

    cdef int end(self, str reason) except -1:
        """Abort the connection, for a reason that is a code."""
        self.server.context.counters.count("closed", reason)
        self.explain(reason)
        self.state = ENDED
        return self.transport.close()

    cdef int explain(self, str reason) except -1:
        """Send Abort, with the reason as its diagnostic payload (section 5.6)."""
        cdef Buffer content = self.server.scratch
        cdef bytes text = reason.encode()
        content.size = 0
        if self.bad_csm_option:
            append_uint_option(content, 0, BAD_CSM_OPTION, <uint32_t>self.bad_csm_option)
        append_payload(content, Slice(<const uint8_t*>text, len(text)))
        return self.send_signal(ABORT, Slice(NULL, 0), content)

    cdef int explain_stop(self) except -1:
        return self.release()

    cdef int check(self, double now) except -1:
        """Apply time-outs, and ask a silent peer for a sign of life."""
        cdef double unread = self.take_unread_time()
        if self.state in (AUTHENTICATING, ENDED) or self.input_ended:
            return 0
        self.began += unread
        self.last_active += unread
        if self.active:
            self.active = False
            self.last_active = now
            self.pinged_at = 0
        if self.state == AWAITING_CSM:
            if now - self.began > self.server.csm_timeout:
                raise ProtocolError("coap_csm_timeout")
        elif self.pinged_at:
            if now - self.pinged_at > PONG_TIMEOUT:
                raise ProtocolError("coap_no_pong")
        elif now - self.last_active > self.server.ping_after:
            self.pinged_at = now
            self.server.scratch.size = 0
            self.send_signal(SIGNAL_PING, Slice(NULL, 0), self.server.scratch)
        return 0
