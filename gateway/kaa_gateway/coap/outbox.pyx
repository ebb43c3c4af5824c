"""The messages of ours to one CoAP peer: how large they may be, and which are sent again or later.

To an address that is not verified, only so much is sent for what was received (amplification). A confirmable message
that may not be sent yet is held until it may.

Source: RFC 7252 section 4.2 (retransmission); RFC 7959 (blocks); RFC 9175 (Echo, amplification).
"""

cimport cython

from kaa_gateway.coap.blocks cimport Body
from kaa_gateway.coap.options cimport encode_response, is_cut, start_response
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.net.proxy cimport describe_peer
from kaa_gateway.wire.buffer cimport Buffer, slice_of
from kaa_gateway.wire.coap cimport BAD_REQUEST, CON, EMPTY, HEADER_SIZE, INTERNAL_SERVER_ERROR, append_header

from kaa_gateway.bus import push_receipts

cdef str SENT = push_receipts.SENT

cdef enum:
    # How the limit for an unverified address is shared out, so that lost messages can be sent again within it:
    COPIES = 3                      # transmissions of a confirmable message
    NOTIFICATION_ROOM = 144         # bytes that the response to a registration leaves for the first notification

# Seconds for which an address stays verified.
cdef double VERIFIED_LIFETIME = 3600.0
# Seconds for which a response is held that may not be sent; its client waits no longer (EXCHANGE_LIFETIME).
cdef double HELD_LIFETIME = 247.0

# The `transmissions` of a peer that has not sent any yet. Nothing is added to it.
cdef dict NONE_SENT = {}


@cython.final
cdef class Outbox:
    """Sends messages to one peer, within the limit that holds until its address is verified."""

    cdef dict describe(self):
        """Return what an operator may see of the peer's address and connection."""
        if self.stream is not None:
            return self.stream.transport.describe()
        return describe_peer(self.context.core.socket.client_address(&self.address), None)

    cdef uint16_t new_message_id(self) noexcept:
        self.last_message_id += 1
        return self.last_message_id

    cdef bint encode(
        self, Type type, uint16_t message_id, Slice token, Response* response, Slice transfer_key, int64_t limit
    ) except -1:
        """Write a response into `context.out`, in at most `limit` bytes. Return False if that is impossible.

        A body of more than one block is kept for the requests for its other blocks, and has an ETag. Hot path.
        """
        cdef CoapContext context = self.context
        cdef Body body
        cdef bytes echo
        if not self.fit(type, message_id, token, response, limit):
            context.counters.count("dropped", "coap_amplification")
            return False
        if response.kept or not is_cut(response):
            return True
        body = context.responses.keep(
            self.peer, transfer_key.data[:transfer_key.size], token.data[:token.size], response, context.now
        )
        if body is None:
            context.counters.count("dropped", "coap_response_too_large")
            start_response(response, INTERNAL_SERVER_ERROR)
        else:
            response.kept = True
            response.etag = slice_of(body.etag)
            if limit < response.body.size and type != CON:
                # Returned with the request for the next block, this lifts the limit.
                echo = context.echo.make(address_key(&self.address), context.now)
                response.echo = slice_of(echo)
        return self.fit(type, message_id, token, response, limit)

    cdef bint fit(self, Type type, uint16_t message_id, Slice token, Response* response, int64_t limit) except -1:
        """Write a response into `context.out`, in at most `limit` bytes. Return False if that is impossible. Hot path.

        It is also no larger than the transport can carry. For an unverified address the limit is not used up if smaller
        blocks avoid that: a lost message can be sent again, and a registration is followed by a notification.
        """
        cdef Buffer out = self.context.out
        cdef int64_t planned = limit, carried = self.message_size_max
        cdef Response original
        if limit != ANY_SIZE and response.code < BAD_REQUEST:
            if type == CON:
                planned = limit // COPIES
            elif response.observe >= 0:
                planned = max(limit - NOTIFICATION_ROOM, limit // (COPIES + 1))
        original = response[0]
        while planned < limit:
            if encode_response(out, type, message_id, token, response, min(planned, carried)):
                return True
            response[0] = original
            planned = limit if planned >= limit // 2 else limit // 2
        limit = min(limit, carried)
        if encode_response(out, type, message_id, token, response, limit):
            return True
        if response.location.data == NULL:
            return False
        response.location = Slice(NULL, 0)
        return encode_response(out, type, message_id, token, response, limit)

    cdef int hold_confirmable(
        self, uint16_t message_id, Slice token, Response* response, Slice transfer_key
    ) except -1:
        """Keep a confirmable response, as small as it can be, until it may be sent."""
        cdef CoapContext context = self.context
        cdef Transmission transmission
        response.szx = 0
        if response.code >= BAD_REQUEST:
            response.body = Slice(NULL, 0)
        self.encode(CON, message_id, token, response, transfer_key, ANY_SIZE)
        transmission = context.timer.start(self.peer, message_id, context.out.copy(), context.now)
        context.timer.remove(transmission)
        self.add_transmission(transmission)
        return self.hold(transmission)

    cdef int send_confirmable(self, uint16_t message_id, Observation observation) except -1:
        """Send the message in `context.out`, and again until it is acknowledged (RFC 7252 section 4.2)."""
        cdef CoapContext context = self.context
        cdef Transmission transmission
        if self.stream is not None:
            return self.send(context.out.data, context.out.size)
        transmission = context.timer.start(self.peer, message_id, context.out.copy(), context.now)
        self.add_transmission(transmission)
        if observation is not None:
            transmission.observation = observation
            observation.outstanding = transmission
        return self.send(context.out.data, context.out.size)

    cdef int add_transmission(self, Transmission transmission) except -1:
        """Add a message of ours that is not acknowledged."""
        if self.transmissions is NONE_SENT:
            self.transmissions = {}
        self.transmissions[transmission.message_id] = transmission
        return 0

    cdef int set_receipt(self, uint16_t message_id, Receipt receipt) except -1:
        """Report what becomes of a confirmable message, if its extension wants to know."""
        cdef Transmission transmission
        if receipt is None:
            return 0
        if self.stream is not None:
            return receipt.end(SENT, None)
        transmission = self.transmissions[message_id]
        transmission.receipt = receipt
        return 0

    cdef int send(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Send a message, and count it against the limit for unverified addresses. Hot path."""
        if self.stream is not None:
            return self.stream.send_message(data, size)
        self.amplification_credit = max(self.amplification_credit - size, <int64_t>0)
        return self.context.core.socket.send(&self.address, data, size)

    cdef int send_empty(self, Type type, uint16_t message_id) except -1:
        """Send an empty acknowledgement or Reset, if the limit allows even that."""
        cdef Buffer out = self.context.out
        if self.send_limit(self.context.now) < HEADER_SIZE:
            return 0
        out.size = 0
        append_header(out, type, EMPTY, message_id, Slice(NULL, 0))
        return self.send(out.data, out.size)

    # ------------------------------------------------------------ retransmission

    cdef bint retransmit(self, Transmission transmission, double now) except -1:
        """Send a confirmable message again, of which the timer has let go. Return False if it is to be given up."""
        cdef Py_ssize_t size = len(transmission.datagram)
        if transmission.held or not transmission.next_timeout():
            self.context.counters.count("dropped", "coap_unacknowledged")
            return False
        if size > self.send_limit(now):
            self.hold(transmission)
            return True
        self.context.timer.add(transmission, now + transmission.timeout)
        self.send(<const uint8_t*>transmission.datagram, size)
        return True

    cdef int hold(self, Transmission transmission) except -1:
        """Keep a message until more bytes may be sent to this peer: as long as anyone can want it."""
        transmission.held = self.holds = True
        if transmission.observation is None:
            self.context.timer.add(transmission, self.context.now + HELD_LIFETIME)
        return 0

    cdef int send_held(self, double now) except -1:
        """Send messages that were held, as far as they may be sent now."""
        cdef Transmission transmission
        cdef Py_ssize_t size
        self.holds = False
        for transmission in list(self.transmissions.values()):
            size = len(transmission.datagram)
            if not transmission.held:
                continue
            if size > self.send_limit(now):
                self.holds = True
                continue
            transmission.held = False
            self.context.timer.remove(transmission)
            self.context.timer.add(transmission, now + transmission.timeout)
            self.send(<const uint8_t*>transmission.datagram, size)
        return 0

    cdef int end_transmission(self, Transmission transmission) except -1:
        """Stop retransmitting a message."""
        cdef Observation observation = transmission.observation
        self.transmissions.pop(transmission.message_id, None)
        self.context.timer.remove(transmission)
        if observation is not None:
            observation.outstanding = None
        return 0

    cdef int close(self) except -1:
        """Stop retransmitting all messages: the peer is gone."""
        cdef Transmission transmission
        for transmission in list(self.transmissions.values()):
            self.end_transmission(transmission)
        self.peer = None
        return 0

    # ------------------------------------------------------------ the limit

    cdef int verify_address(self, double now) except -1:
        """Lift the limit of what may be sent: the peer receives at its address."""
        self.verified_until = max(self.verified_until, now + VERIFIED_LIFETIME)
        self.verified_observer = self.observes
        return 0
