"""The message layer of CoAP, for one peer: duplicates, acknowledgements, retransmission, and how much may be sent.

Requests and responses are the subclass's (coap_peer.pyx); the periods come from check in coap.pyx.

Source: RFC 7252 section 4; RFC 9175 section 2.4 (amplification).
"""

import random

from libc.string cimport memcpy

from kaa_gateway.coap.answered cimport answer_of
from kaa_gateway.coap.exchanges cimport ACKNOWLEDGED, ARRIVED, PENDING
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport ACK, CON, EMPTY, HEADER_SIZE, append_header

cdef enum:
    MAX_RETRANSMIT = 4
    ANY_SIZE = 1 << 30
    GENERATION_MASK = 0xFFF      # what is left of a sequence beside a message ID
    SPARE_EXCHANGES = 1024       # kept for use, at most
    SPARE_RESOURCE_SIZE = 256    # bytes, in each

cdef double ACK_RANDOM_FACTOR = 1.5
# Seconds for which the message ID of a confirmable request names it.
cdef double EXCHANGE_LIFETIME = 247.0
# Seconds for which that of a non-confirmable one does.
cdef double NON_LIFETIME = 145.0
# Seconds for which a peer that was shown to receive at its address is taken to be there.
cdef double PROOF_LIFETIME = 3600.0


cdef class CoapShared:
    """The tables and settings that the peers of a worker share."""


cdef class CoapMessages(Session):
    """What is known of one peer, as an endpoint of CoAP messages."""

    # ------------------------------------------------------------ in

    cdef int on_acknowledgement(self, uint16_t message_id, double now) except -1:
        """The peer has a message of ours, and so is where it says it is: the ID is not to be guessed in the dark."""
        cdef Transmission transmission = self.transmissions.get(message_id)
        if transmission is None:
            return 0
        self.prove(now)
        self.cancel(transmission)
        return self.delivered(transmission.observer)

    cdef int on_reset(self, uint16_t message_id) except -1:
        """The peer has no use for a message of ours."""
        cdef Transmission transmission = self.transmissions.get(message_id)
        if transmission is None:
            return 0
        self.cancel(transmission)
        return self.undeliverable(transmission.observer)

    cdef int delivered(self, Observer observer) except -1:
        """A confirmable message was acknowledged: of this observer, or a response if it is None."""
        return 0

    cdef int undeliverable(self, Observer observer) except -1:
        """A confirmable message was rejected, or never acknowledged."""
        return 0

    cdef bint may_request(self, double now) noexcept:
        """Whether the rate of this peer's requests allows one more: a bucket that holds a second's worth. Hot path."""
        cdef double rate = self.shared.requests_per_second
        if rate <= 0:
            return True
        self.tokens = min(self.tokens + (now - self.tokens_at) * rate, max(rate, 1.0))
        self.tokens_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    # ------------------------------------------------------------ requests by message ID

    cdef Exchange open_exchange(self, const MessageView* view, double now):
        """A new exchange, remembered for its duplicates. Hot path."""
        cdef CoapShared shared = self.shared
        cdef Exchange exchange = <Exchange>shared.spare.pop() if shared.spare else Exchange()
        # Those that wait for their answers are fewer than that, and stay.
        if self.exchanges.count + self.answered.count >= shared.exchanges_per_peer:
            shared.answered.forget_oldest_of(&self.answered)
        exchange.peer = self
        exchange.type = view.type
        exchange.stage = ARRIVED
        exchange.has_answer = exchange.unanswered = exchange.has_block1 = exchange.has_block2 = False
        exchange.accept = exchange.observe = -1
        exchange.no_response = 0
        exchange.resource.size = 0
        exchange.method = view.code
        exchange.message_id = view.message_id
        exchange.token_size = <uint8_t>view.token.size
        memcpy(exchange.token_bytes, view.token.data, <size_t>view.token.size)
        self.generation = (self.generation + 1) & GENERATION_MASK
        exchange.sequence = self.generation << 16 | view.message_id
        exchange.deadline = now + (EXCHANGE_LIFETIME if view.type == CON else NON_LIFETIME)
        exchange.piggyback_deadline = now + shared.piggyback_delay
        self.exchanges.add(exchange)
        return exchange

    cdef int on_duplicate(self, Exchange exchange) except -1:
        """A request is here again before it is answered: it has its effect once (4.2, 4.3)."""
        self.shared.counters.count("dropped", "coap_duplicate")
        if exchange.type != CON:
            return 0
        if exchange.stage == PENDING:
            return self.acknowledge_early(exchange)
        return self.send_empty(ACK, exchange.message_id)

    cdef int on_answered_duplicate(self, const Answered* answered) except -1:
        """A request is here again: it has its answer as often as it is asked for."""
        cdef Slice answer = answer_of(answered)
        self.shared.counters.count("dropped", "coap_duplicate")
        if answered.type != CON:
            return 0
        if answer.size == 0:
            return self.send_empty(ACK, answered.message_id)
        return self.send(answer.data, answer.size) if answer.size <= self.room(self.shared.now) else 0

    cdef int acknowledge_early(self, Exchange exchange) except -1:
        """The answer takes long: acknowledge a confirmable request now, the response is a message of its own."""
        exchange.list.remove(exchange)
        exchange.stage = ACKNOWLEDGED
        return self.send_empty(ACK, exchange.message_id)

    cdef int remember(self, Exchange exchange, Slice answer) except -1:
        """The request is settled: from here on it is kept for its duplicates, with the datagram to answer them.

        An empty one stands for an empty acknowledgement. The exchange is over: the caller uses it no more. Hot path.
        """
        cdef CoapShared shared = self.shared
        shared.answered.add(&self.answered, exchange.type, exchange.message_id, exchange.deadline, answer)
        if len(shared.spare) < SPARE_EXCHANGES:
            exchange.peer = None
            exchange.resource.clear(SPARE_RESOURCE_SIZE)
            shared.spare.append(exchange)
        return 0

    cdef int settle(self, Exchange exchange) except -1:
        """Nothing is waited for any more. Hot path."""
        cdef CoapShared shared = self.shared
        if exchange.list is not None:
            exchange.list.remove(exchange)
        if exchange.stage == PENDING or exchange.stage == ACKNOWLEDGED:
            self.pending_count -= 1
            if exchange.has_answer:
                shared.pending.answered(self.key, exchange.sequence)
            else:
                shared.pending.forget(self.key, exchange.sequence)
        return self.exchanges.remove(exchange)

    # ------------------------------------------------------------ out

    cdef uint16_t new_message_id(self) noexcept:
        self.next_message_id += 1
        return self.next_message_id

    cdef int transmit(self, uint16_t message_id, Observer observer) except -1:
        """Send the confirmable message in `shared.out`, and again until it is acknowledged (4.2)."""
        cdef CoapShared shared = self.shared
        cdef Transmission transmission = Transmission()
        cdef double factor = 1 + random.random() * (ACK_RANDOM_FACTOR - 1)
        transmission.peer = self
        transmission.observer = observer
        transmission.message_id = message_id
        transmission.datagram = shared.out.copy()
        transmission.timeout = shared.ack_timeout * factor
        self.transmissions[message_id] = transmission
        shared.timer.add(transmission, shared.now + transmission.timeout)
        if observer is not None:
            observer.outstanding = transmission
        return self.send(shared.out.data, shared.out.size)

    cdef int retransmit(self, Transmission transmission, double now) except -1:
        """A transmission is due, and out of the timer: send it again, or give it up."""
        cdef Py_ssize_t size = len(transmission.datagram)
        if transmission.attempts == MAX_RETRANSMIT:
            self.cancel(transmission)
            self.shared.counters.count("dropped", "coap_unacknowledged")
            return self.undeliverable(transmission.observer)
        transmission.attempts += 1
        transmission.timeout *= 2
        self.shared.timer.add(transmission, now + transmission.timeout)
        if size <= self.room(now):
            self.send(<const uint8_t*>transmission.datagram, size)
        return 0

    cdef int cancel(self, Transmission transmission) except -1:
        """It is not sent any more."""
        cdef Observer observer = transmission.observer
        self.transmissions.pop(transmission.message_id, None)
        self.shared.timer.remove(transmission)
        if observer is not None:
            observer.outstanding = None
        return 0

    cdef int prove(self, double now) except -1:
        """The peer was shown to receive what is sent to its address."""
        self.proved_until = max(self.proved_until, now + PROOF_LIFETIME)
        return 0

    cdef int64_t room(self, double now) noexcept:
        """The bytes that may be sent to this peer now. Hot path."""
        return ANY_SIZE if now < self.proved_until else self.allowance

    cdef int send(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Hot path."""
        self.allowance -= size
        if self.allowance < 0:
            self.allowance = 0  # its address is proved
        return self.shared.core.socket.send(&self.address, data, size)

    cdef int send_empty(self, Type type, uint16_t message_id) except -1:
        """Send an empty acknowledgement or Reset, if even that may be sent."""
        cdef Buffer out = self.shared.out
        if self.room(self.shared.now) < HEADER_SIZE:
            return 0
        out.size = 0
        append_header(out, type, EMPTY, message_id, Slice(NULL, 0))
        return self.send(out.data, out.size)

    cdef int close(self) except -1:
        """The peer is forgotten."""
        cdef Transmission transmission
        cdef Exchange exchange = self.exchanges.any_one()
        while exchange is not None:
            self.settle(exchange)
            exchange = self.exchanges.any_one()
        self.shared.answered.forget_all_of(&self.answered)
        for transmission in list(self.transmissions.values()):
            self.cancel(transmission)
        self.shared.requests.remove_all(self)
        self.shared.responses.remove_all(self)
        return self.shared.sessions.close(self)
