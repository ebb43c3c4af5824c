"""What a CoAP server must remember of messages: requests for their duplicates, its own for their retransmission.

No message has a timer of its own: exchanges are in lists in order of their deadlines, transmissions in slots of a
tenth of a second. What is done with them is the peer's (coap_peer.pyx).

Source: RFC 7252 section 4.
"""

cimport cython

cdef double SLOTS_PER_SECOND = 10.0


# There may be a hundred thousand, which the garbage collector need not look through: the lists and the peer let go of
# each when its time is over.
@cython.no_gc
@cython.freelist(256)
cdef class Exchange:
    """A request, its answer, and how far it has got."""

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
