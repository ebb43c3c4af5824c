"""What a CoAP server must remember of messages: requests until they are answered, its own for their retransmission.

No message has a timer of its own: exchanges are in a list in order of their deadlines, transmissions in slots of a
tenth of a second. What is done with them is the peer's (coap_peer.pyx).

Source: RFC 7252 section 4.
"""

cimport cython

from kaa_gateway.wire.buffer cimport Buffer

cdef enum:
    BUCKETS_AT_FIRST = 4

cdef double SLOTS_PER_SECOND = 10.0


# The garbage collector need not look through them: the list and the peer let go of each when it is answered.
@cython.no_gc
cdef class Exchange:
    """A request, and how far its answer has got."""

    def __cinit__(self):
        self.resource = Buffer()

    cdef Slice token(self) noexcept:
        return Slice(&self.token_bytes[0], self.token_size)


cdef class ExchangeList:
    """Exchanges in the order in which they were put here; one is in one list at most."""

    cdef int append(self, Exchange exchange) except -1:
        """Hot path."""
        exchange.list = self
        exchange.previous = self.last
        if self.last is None:
            self.first = exchange
        else:
            self.last.next = exchange
        self.last = exchange
        self.count += 1
        return 0

    cdef int remove(self, Exchange exchange) except -1:
        """Take out one that is in it. Hot path."""
        if exchange.previous is None:
            self.first = exchange.next
        else:
            exchange.previous.next = exchange.next
        if exchange.next is None:
            self.last = exchange.previous
        else:
            exchange.next.previous = exchange.previous
        exchange.previous = exchange.next = None
        exchange.list = None
        self.count -= 1
        return 0


cdef class ExchangeTable:
    """The exchanges of one peer, found by message ID. IDs mostly count up: they need no hashing."""

    def __cinit__(self):
        self.buckets = [None] * BUCKETS_AT_FIRST

    cdef Exchange find(self, uint16_t message_id):
        """The exchange that a message ID names, or None. Hot path."""
        cdef Exchange exchange = <Exchange>self.buckets[message_id & (len(self.buckets) - 1)]
        while exchange is not None and exchange.message_id != message_id:
            exchange = exchange.chained
        return exchange

    cdef Exchange any_one(self):
        """One of those that are in it, or None."""
        cdef Exchange exchange
        if self.count:
            for exchange in self.buckets:
                if exchange is not None:
                    return exchange
        return None

    cdef int add(self, Exchange exchange) except -1:
        """Add one whose message ID names no other. Hot path."""
        cdef Py_ssize_t bucket
        if self.count >= len(self.buckets):
            self.grow()
        bucket = exchange.message_id & (len(self.buckets) - 1)
        exchange.chained = <Exchange>self.buckets[bucket]
        self.buckets[bucket] = exchange
        self.count += 1
        return 0

    cdef int remove(self, Exchange exchange) except -1:
        """Take out one that is in it. Hot path."""
        cdef Py_ssize_t bucket = exchange.message_id & (len(self.buckets) - 1)
        cdef Exchange before = <Exchange>self.buckets[bucket]
        if before is exchange:
            self.buckets[bucket] = exchange.chained
        else:
            while before is not None and before.chained is not exchange:
                before = before.chained
            if before is None:
                raise KeyError(exchange.message_id)
            before.chained = exchange.chained
        exchange.chained = None
        self.count -= 1
        return 0

    cdef int grow(self) except -1:
        cdef list former = self.buckets
        cdef Exchange exchange, following
        cdef Py_ssize_t bucket
        self.buckets = [None] * (2 * len(former))
        for exchange in former:
            while exchange is not None:
                following = exchange.chained
                bucket = exchange.message_id & (len(self.buckets) - 1)
                exchange.chained = <Exchange>self.buckets[bucket]
                self.buckets[bucket] = exchange
                exchange = following
        return 0


cdef class Transmission:
    """A confirmable message that is sent again until it is acknowledged."""


cdef class RetransmissionTimer:
    """Transmissions by the tenth of a second in which they are due."""

    def __init__(self, double now):
        self.slots = {}
        self.now = <int64_t>(now * SLOTS_PER_SECOND)

    cdef int add(self, Transmission transmission, double deadline) except -1:
        """Let a transmission be due at `deadline`, the loop's time."""
        transmission.slot = max(<int64_t>(deadline * SLOTS_PER_SECOND), self.now) + 1
        slot = self.slots.get(transmission.slot)
        if slot is None:
            slot = self.slots[transmission.slot] = {}
        slot[transmission] = None
        self.count += 1
        return 0

    cdef int remove(self, Transmission transmission) except -1:
        """It is acknowledged, or given up."""
        slot = self.slots.get(transmission.slot)
        if slot is not None and slot.pop(transmission, self) is None:
            self.count -= 1
            if not slot:
                del self.slots[transmission.slot]
        return 0

    cdef list due(self, double now):
        """Take out what is due at `now`."""
        cdef int64_t slot, last = <int64_t>(now * SLOTS_PER_SECOND)
        cdef list result = []
        if last - self.now > len(self.slots):
            passed = sorted([slot for slot in self.slots if slot <= last])
        else:
            passed = range(self.now + 1, last + 1)
        for slot in passed:
            transmissions = self.slots.pop(slot, None)
            if transmissions is not None:
                result.extend(transmissions)
        self.now = last
        self.count -= len(result)
        return result
