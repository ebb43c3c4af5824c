"""The native link to NATS of a worker: it sends blocks of publications that NATS confirms, and receives messages.

A tick's publications are written as one block that ends with PING. The server handles a connection's input in order,
so its PONG confirms every PUB of the block; until then the block is kept, and sent again after a reconnect. A message
goes to the receiver of its subscription. What a block holds and what a confirmation means to a device is the listener's
business: the link carries bytes and tokens. The connection is made (addresses, TLS, credentials) by connector.py.

Source: NATS documentation "Client Protocol"; design notes in docs/architecture.md, "The link".
"""

import asyncio
import re
from collections import deque

import msgspec
import structlog

from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE

from kaa_gateway.bus.connection cimport Connection
from kaa_gateway.bus.transport cimport SocketTransport
from kaa_gateway.clock cimport monotonic
from kaa_gateway.counters cimport Histogram
from kaa_gateway.tick cimport tick_of
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.nats cimport (
    ERR, HMSG, INFO, MSG, OK, PING, PONG, Publication, append_publication, decimal, header_value, next_message,
    next_publication, status_of,
)

from kaa_gateway.errors import UNDECODABLE, BusError, ProtocolError
from kaa_gateway.wire.nats import encode_subscribe

log = structlog.get_logger("gateway.bus")

cdef enum:
    UNREAD_SIZE = 64 * 1024            # bytes of `write_once` after which a PING asks whether they are read
    RECEIVE_SIZE = 256 * 1024          # bytes read from NATS at once
    SPARE_BLOCKS = 8                   # kept for reuse
    SPARE_BLOCK_SIZE_MAX = 1024 * 1024  # bytes; larger ones are given back
    SPARE_ACKNOWLEDGEMENTS_MAX = 65536   # of a block that is kept for reuse
    PAYLOAD_MAX = 64 * 1024 * 1024     # bytes; nats-server's own ceiling, and what a PUB line of ours can say
    PAYLOAD_MAX_DEFAULT = 1024 * 1024  # bytes; nats-server's default, until INFO tells
    NO_RESPONDERS = 503
    SID_NONE = 1 << 30                 # above all subscription IDs

DENIED = re.compile('Permissions Violation for Publish to "([^"]+)"')
"""The error of nats-server for each PUB that it drops for want of a permission."""

PAYLOAD_VIOLATION = "maximum payload violation"
"""The error of nats-server, in any case of letters, before it closes a connection that sent too large a message."""

cdef double IDLE_PING_PERIOD = 20.0  # seconds without a block after which the link pings to see that NATS is there


class Protocol(Connection, asyncio.BufferedProtocol):
    """A Connection as asyncio's own event loop knows it by its class; uvloop looks at the methods alone."""

    __slots__ = ()


cdef class Link:
    """A connection to one NATS server at a time.

    `subscriptions` are subjects of the listener, subscribed without a queue group on every connection. `pending_max`
    bounds the bytes published and not confirmed. A server that leaves a PING unanswered for `ping_timeout` seconds is
    given up.
    """

    def __init__(self, loop, tuple subscriptions, Py_ssize_t pending_max, double ping_timeout, on_lost):
        self.loop = loop
        self.tick = tick_of(loop)
        self.listener = Listener()
        self.on_lost = on_lost
        self.subscriptions = []
        self.receivers = []
        self.numbered = None
        self.numbered_from = SID_NONE
        for subject in subscriptions:
            self.subscribe(subject, None)
        self.receive_storage = bytearray(RECEIVE_SIZE)
        self.receive_view = memoryview(self.receive_storage)
        self.pending_max = pending_max
        self.ping_timeout = ping_timeout
        self.block = Block()
        self.confirmation = Histogram()
        self.unconfirmed = deque()
        self.spare = []
        self.tail = Buffer()
        self.payload_max = self.checked_max = PAYLOAD_MAX_DEFAULT
        self.resent_max = PAYLOAD_MAX

    def set_listener(self, Listener listener not None):
        """Set the listener; once, before the first connection."""
        self.receivers = [listener if each is self.listener else each for each in self.receivers]
        self.listener = listener

    def subscribe(self, str subject not None, Receiver receiver, str queue_group=None):
        """Subscribe to a subject on every connection, for a receiver of its own, or the listener if that is None.

        Return the ID of the subscription. Call it before the first connection, or while the link is ready.
        """
        self.receivers.append(self.listener if receiver is None else receiver)
        line = encode_subscribe(subject, len(self.receivers), queue_group)
        self.subscriptions.append(line)
        if self.ready:
            self.transport.write(line)
            self.write_ping()
        return len(self.receivers)

    def unsubscribe(self, int sid):
        """End a subscription. What the server has sent for it until the next PONG is still received."""
        self.subscriptions[sid - 1] = b""
        if self.ready:
            self.transport.write(f"UNSUB {sid}\r\n".encode())
            self.write_ping()

    def set_numbered(self, Receiver receiver not None, Py_ssize_t first_sid):
        """Leave the subscriptions with IDs from `first_sid` on to a receiver that subscribes by itself; once."""
        self.numbered = receiver
        self.numbered_from = first_sid

    def unconfirmed_count(self):
        """Return the number of blocks that are sealed and not yet confirmed."""
        return len(self.unconfirmed)

    # ------------------------------------------------------------ publishing: the hot path

    cdef int on_full(self) except -1:
        """Tell the listener that the backlog has passed its bound."""
        self.full = True
        self.listener.on_backlog(True)
        return 0

    cdef int publish(self, bytes head, Slice header, Slice payload) except -1:
        """Publish a payload; `head` is what wire.nats.encode_publish_head made. Not for the hot path."""
        cdef Py_ssize_t before = self.block.size, size
        append_publication(self.block, head, header if self.headers else Slice(NULL, 0), payload)
        size = self.block.size - before
        self.block.size = before
        return self.commit(size)

    cdef int trace(self, trace) except -1:
        """Call `trace.confirmed` when all that was committed so far is confirmed."""
        if self.block.traces is None:
            self.block.traces = []
        self.block.traces.append(trace)
        return 0

    cdef int schedule_flush(self) except -1:
        if self.block.opened_at == 0:
            self.block.opened_at = monotonic()
        return self.tick.add(self)

    cdef int write_due(self) except -1:
        """Write the block at the end of a tick. Hot path."""
        return self.flush()

    cdef int flush(self) except -1:
        cdef Block block = self.block
        if not self.ready or (block.size == 0 and block.acknowledgement_count == 0):
            return 0
        self.seal()
        self.write(block)
        return 0

    cdef int seal(self) except -1:
        """End the current block with PING, queue it for confirmation, and open the next one.

        The next one is as large from its beginning: a block that grows is copied.
        """
        cdef Block block = self.block
        block.append(b"PING\r\n", 6)
        self.backlog += 6
        self.unconfirmed.append(block)
        self.block = self.spare.pop() if self.spare else Block()
        self.block.reserve(block.size)
        return 0

    cdef int write(self, Block block) except -1:
        block.written = True
        block.sealed_at = monotonic()
        block.cursors = None
        self.blocks_sent += 1
        self.bytes_sent += block.size
        return self.transport.write(block)

    cdef int write_beside(self, bytes publications) except -1:
        """Write publications that a durable lane keeps and confirms; the link only watches that NATS is there."""
        self.bytes_sent += len(publications)
        self.transport.write(publications)
        if not self.unconfirmed and not self.due:
            self.write_ping()
        return 0

    cdef int write_once(self, bytes lines) except -1:
        """Write lines behind the block, which are lost with their connection. `unread` counts them meanwhile."""
        self.flush()
        self.transport.write(lines)
        self.unread += len(lines)
        self.block.unread += len(lines)
        if self.block.unread > UNREAD_SIZE and not self.unconfirmed:
            self.write_ping()
        return 0

    cdef int count_read(self, Block block) except -1:
        """Note that the server has read what was written before a block. Ask about later lines if they are many."""
        self.unread -= block.unread
        block.unread = 0
        if self.ready and self.block.unread > UNREAD_SIZE and not self.unconfirmed:
            self.write_ping()
        return 0

    cdef int write_ping(self) except -1:
        """Write a block with what was published so far, if only its PING."""
        cdef Block block = self.block
        self.seal()
        return self.write(block)

    cdef int confirm(self) except -1:
        """Handle a PONG: the oldest block has arrived."""
        cdef Block block
        if not self.unconfirmed:
            raise ProtocolError("nats_unexpected_pong")
        block = self.unconfirmed.popleft()
        self.blocks_confirmed += 1
        self.confirmed_at = monotonic()
        if block.opened_at:  # else nothing but a PING
            self.confirmation.observe(self.confirmed_at - block.opened_at)
        self.backlog -= block.size + block.acknowledgement_count * <Py_ssize_t>sizeof(Acknowledgement)
        if block.acknowledgement_count:
            self.listener.on_confirmed(block.acknowledgements, block.acknowledgement_count)
        if block.traces is not None:
            for trace in block.traces:
                trace.confirmed()
            block.traces = None
        if self.unread:
            self.count_read(block)
        self.recycle(block)
        return self.check_backlog()

    cdef int check_backlog(self) except -1:
        if self.full and self.backlog <= self.pending_max // 2:
            self.full = False
            self.listener.on_backlog(False)
        return 0

    cdef int recycle(self, Block block) except -1:
        """Keep a confirmed block for reuse, unless a transport still looks at its bytes or it is large."""
        if block.exports or len(self.spare) >= SPARE_BLOCKS or block.capacity > SPARE_BLOCK_SIZE_MAX \
                or block.acknowledgement_capacity > SPARE_ACKNOWLEDGEMENTS_MAX:
            return 0
        block.size = 0
        block.opened_at = 0
        block.acknowledgement_count = 0
        block.written = False
        block.cursors = None
        self.spare.append(block)
        return 0

    # ------------------------------------------------------------ receiving

    cdef int parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef ServerMessage message
        cdef Py_ssize_t at = 0, consumed, payload_max = max(self.payload_max, PAYLOAD_MAX_DEFAULT) * 2
        cdef bint from_tail = self.tail.size != 0
        message.operation = OK  # none yet
        if from_tail:
            self.tail.append(data, size)
            data = self.tail.data
            size = self.tail.size
        while at < size:
            consumed = next_message(data + at, size - at, payload_max, &message)
            if consumed == 0:
                break
            at += consumed
            self.receive(&message)
            if self.transport is None:
                return 0
            if message.operation == INFO:
                payload_max = max(self.payload_max, PAYLOAD_MAX_DEFAULT) * 2
        if from_tail:
            self.tail.consume(at)
        elif at < size:
            self.tail.append(data + at, size - at)
        if self.tail.size == 0 and self.tail.capacity > RECEIVE_SIZE:
            self.tail.clear(0)
        return 0

    cdef int receive(self, const ServerMessage* message) except -1:
        """Handle one message of the server. Hot path."""
        cdef Slice subject
        cdef int status
        if message.operation == MSG:
            self.messages_received += 1
            return self.receiver_of(message.sid).on_message(message)
        if message.operation == HMSG:
            status = status_of(message.header)
            if status == NO_RESPONDERS and message.payload.size == 0:
                subject = header_value(message.header, b"Nats-Subject")
                if self.receiver_of(message.sid).on_reply_without_responders(message.subject, subject):
                    return 0
                return self.find_no_responders(subject)
            self.messages_received += 1
            return self.receiver_of(message.sid).on_message(message)
        if message.operation == PONG:
            if self.ready:
                return self.confirm()
            (<Connection>self.connection).receive_pong()
        elif message.operation == PING:
            self.transport.write(b"PONG\r\n")
        elif message.operation == INFO:
            self.receive_info(message.payload.data[:message.payload.size])
        elif message.operation == ERR:
            self.receive_error(message.payload.data[:message.payload.size])
        return 0

    cdef inline Receiver receiver_of(self, Slice sid):
        """Return the receiver of a subscription, by its ID. Hot path."""
        cdef Py_ssize_t place = sid.data[0] - c"1"
        if sid.size != 1:
            place = decimal(sid) - 1
        if 0 <= place < PyList_GET_SIZE(self.receivers):
            return <Receiver>PyList_GET_ITEM(self.receivers, place)
        return self.numbered if place >= self.numbered_from - 1 else self.listener

    def receive_info(self, bytes text):
        """Handle an INFO, which may come at any time."""
        try:
            info = msgspec.json.decode(text, type=dict)
        except UNDECODABLE as error:
            raise ProtocolError("nats_malformed_info") from error
        limit = info.get("max_payload")
        if isinstance(limit, int) and limit > 0:
            self.set_payload_max(limit)
        (<Connection>self.connection).receive_info(info)

    cdef int set_payload_max(self, limit) except -1:
        """Take the newest limit of the server. What waits in the block and is larger is dropped at once."""
        cdef Py_ssize_t before = self.payload_max
        if not (<Connection>self.connection).expects_pong and self.payload_cap:
            # What the server says to all of its clients is more than it has taken from this one.
            limit = min(limit, self.payload_cap)
        else:
            self.payload_cap = 0  # this is said to this client
        self.payload_max = min(limit, <Py_ssize_t>PAYLOAD_MAX)
        self.checked_max = max(self.checked_max, self.payload_max)
        if self.ready and self.payload_max < before:
            self.resent_max = self.payload_max
            self.block = self.rewrite(self.block)
            self.listener.on_payload_max()
        return 0

    cdef int on_payload_violation(self) except -1:
        """Bound what is sent again, because the server closes the connection for one publication that is too large.

        It does not say which. The largest that it has been sent and not confirmed is at least as large, so that one
        and all that are not smaller can never be taken.
        """
        cdef Block block
        cdef Py_ssize_t largest = self.listener.largest_in_flight()
        for block in self.unconfirmed:
            if block.written:
                largest = max(largest, block.largest())
        if largest > 0:
            self.payload_cap = self.payload_max = min(self.payload_max, largest - 1)
        return 0

    def receive_error(self, bytes text):
        """Handle an -ERR: the reason why the server closes, or what it has not done."""
        cdef Connection connection = self.connection
        cdef Publication publication
        cdef bytes subject
        sentence = text.decode("utf-8", "replace").strip(" '")
        denied = DENIED.match(sentence)
        if denied is not None and self.unconfirmed:
            # Like no responders: one error for each PUB, in order and before the PONG.
            subject = denied[1].encode()
            if (<Block>self.unconfirmed[0]).next_to(slice_of(subject), &publication):
                self.listener.on_denied(&publication)
        if sentence.lower().startswith(PAYLOAD_VIOLATION):
            self.on_payload_violation()
            # The server takes nothing any more, but does not always close (nats-server 2.15.1).
            self.loop.call_soon(self.leave, connection, sentence)
        if not self.ready:
            connection.fail(BusError("nats_refused", sentence))
        elif sentence != connection.last_server_error:
            # Once: a missing permission is reported for every message.
            log.error("NATS server reports an error", error=sentence)
            connection.last_server_error = sentence

    cdef int find_no_responders(self, Slice subject) except -1:
        """Find the publication that nobody received, and tell the listener.

        The server reports, on our reply subject and before the block's PONG, one 503 for each PUB without interest,
        in order; so the nth report for a subject is the nth PUB to it in the oldest unconfirmed block. (When interest
        comes or goes within a block, the report may name a neighbour of the PUB that was dropped.)
        """
        cdef Block block
        cdef Publication publication
        if not self.unconfirmed:
            self.unattributed_no_responders += 1
            return 0
        block = self.unconfirmed[0]
        if not block.next_to(subject, &publication):
            self.unattributed_no_responders += 1
            return 0
        return self.listener.on_no_responders(&publication)

    # ------------------------------------------------------------ life of a connection: called by the connector

    def begin(self):
        """Return the protocol for a new transport, which replaces the last one."""
        self.connection = Protocol(self)
        return self.connection

    cdef Py_ssize_t unwritten(self) except -1:
        """Return the bytes that wait to be written to the server."""
        return 0 if self.transport is None else self.transport.unwritten()

    cdef bint is_connected(self):
        """Return whether there is a connection, or one is being made."""
        return self.connection is not None and not (<Connection>self.connection).ended

    @property
    def info(self):
        """The newest INFO of the last connection, or None."""
        return None if self.connection is None else (<Connection>self.connection).info

    def use_socket(self, socket):
        """Talk to the server through a connected, non-blocking socket, which is the link's from now on."""
        if self.is_connected():
            self.transport = SocketTransport(self.loop, self.connection, socket)
        else:
            socket.close()

    def give_socket(self):
        """Return the socket, of which the link reads and writes no more, for TLS. BusError if the server has closed."""
        cdef Connection connection = self.connection
        if self.transport is None:
            raise connection.failure
        transport = <SocketTransport?>self.transport
        self.transport = None
        self.tail.clear(0)  # what came before TLS is not part of what comes within it
        return (<SocketTransport>transport).detach()

    def write_handshake(self, bytes lines not None):
        """Write lines of the handshake; not if the connection has ended, which the connector learns by itself."""
        if self.transport is not None:
            self.transport.write(lines)

    def subscription_lines(self):
        """Return the SUB lines for a new connection."""
        return b"".join(self.subscriptions)

    def resume(self, Py_ssize_t payload_max=0, bint headers=True):
        """End the handshake: send again what was not confirmed, then go on. BusError if it has failed meanwhile.

        The limit of a payload is that of the newest INFO, unless `payload_max` gives another.
        """
        cdef Connection connection = self.connection
        cdef Block block, again
        cdef bint plain = self.headers and not headers  # what was written with headers is not taken so any more
        cdef bint smaller
        if connection.failure is not None:
            raise connection.failure
        if payload_max:
            self.payload_max = min(payload_max, <Py_ssize_t>PAYLOAD_MAX)
        smaller = self.payload_max < self.checked_max
        self.headers = headers
        self.ready = True
        self.connects += 1
        waiting = list(self.unconfirmed)
        self.unconfirmed.clear()
        for block in waiting:
            again = block
            if block.written or plain or smaller:
                again = self.rewrite(block)
                again.append(b"PING\r\n", 6)
                self.backlog += 6
            self.unconfirmed.append(again)
            self.write(again)
        if plain or smaller:
            self.block = self.rewrite(self.block)
        self.checked_max = self.payload_max
        self.resent_max = PAYLOAD_MAX
        self.check_backlog()
        self.flush()
        self.listener.on_connected()
        if self.numbered is not None:
            self.numbered.on_connected()

    cdef Block rewrite(self, Block block):
        """Return the publications of a block as they can be sent now, without those that must not arrive twice."""
        cdef Block copy = Block()
        cdef Publication publication
        cdef Py_ssize_t at = 0, consumed, limit = min(self.payload_max, self.resent_max)
        while True:
            consumed = next_publication(block.data + at, block.size - at, &publication)
            if consumed == 0:
                break
            at += consumed
            if publication.payload.size > (limit if block.written else self.payload_max):
                self.publications_abandoned += 1
                self.listener.on_too_large(&publication)
                continue
            if block.written:
                if not self.listener.may_send_again(&publication):
                    self.publications_abandoned += 1
                    self.listener.on_abandoned(&publication)
                    continue
                self.publications_resent += 1
            if publication.header.size and (
                    not self.headers or publication.header.size + publication.payload.size > self.payload_max):
                copy.append_without_header(&publication)
            else:
                copy.append(publication.whole.data, publication.whole.size)
        self.backlog += copy.size - block.size
        copy.take_listeners(block)
        return copy

    def check(self):
        """Give up a silent server, and ping an idle one; call about once a second."""
        cdef Block block
        if not self.ready:
            return
        now = monotonic()
        if self.unconfirmed:
            block = self.unconfirmed[0]
            # A long backlog takes its time: what counts is that it gets shorter.
            silence = now - max(block.sealed_at, self.confirmed_at)
            if silence > self.ping_timeout:
                self.abort(f"no answer to PING for {silence:.1f} s")
        elif now - self.block.sealed_at > IDLE_PING_PERIOD:
            self.write_ping()
            self.block.sealed_at = now

    async def drain(self):
        """Wait until everything published before the call is confirmed. The caller sets the time limit."""
        sealed = self.blocks_confirmed + len(self.unconfirmed)
        if self.block.size or self.block.acknowledgement_count:
            sealed += 1
        while self.blocks_confirmed < sealed:
            self.flush()
            await asyncio.sleep(0.01)

    cdef int detach(self, str sentence) except -1:
        """Forget a connection that is gone: fail the handshake, or report the loss."""
        cdef Connection connection = self.connection
        cdef Block block
        was_ready = self.ready
        self.ready = False
        self.transport = None
        self.tail.clear(0)
        self.unread = self.block.unread = 0
        for block in self.unconfirmed:
            block.unread = 0
        connection.ended = True
        connection.fail(BusError("nats_closed", sentence))
        if was_ready:
            self.on_lost(sentence)
        return 0

    def leave(self, Connection connection not None, str sentence not None):
        """Drop a connection for the reason that the server has given, unless it has ended."""
        if self.connection is connection:
            self.abort(sentence)

    def abort(self, str sentence="given up"):
        """Drop the connection at once, for the reason in `sentence`; the connector makes another."""
        cdef LinkTransport transport = self.transport
        if self.is_connected():
            self.detach(sentence)
        if transport is not None:
            transport.abort()

    def close(self):
        """End the connection after what is written."""
        cdef LinkTransport transport = self.transport
        self.ready = False
        if self.is_connected():
            self.detach("closed")
        if transport is not None:
            transport.close()
