"""The requests of a CoAP server that wait for a push, by the second in which their time is over.

What a waiting request does is in waiting_request.pyx.

Source: docs/coap.md, "Wait for a push".
"""


cdef class WaitingTable:
    """The waiting requests of all peers: at most `requests_max`, each for at most `wait_max` seconds."""

    def __init__(self, Py_ssize_t requests_max, Py_ssize_t per_peer_max, double wait_max, double now):
        self.requests_max = requests_max
        self.per_peer_max = per_peer_max
        self.wait_max = wait_max
        self.slots = {}
        self.earliest = <int64_t>now

    cdef bint admit(self, Py_ssize_t of_peer) noexcept:
        """Count one more request, of a peer that has `of_peer` waiting requests. Return False if there are too many."""
        if of_peer >= self.per_peer_max or self.count >= self.requests_max:
            return False
        self.count += 1
        return True

    cdef int schedule(self, Exchange exchange, double deadline) except -1:
        """Let the time of a request, which is in no list, be over at `deadline`, a loop time."""
        cdef ExchangeList slot
        exchange.waits_until = max(<int64_t>deadline + 1, self.earliest)
        slot = self.slots.get(exchange.waits_until)
        if slot is None:
            slot = self.slots[exchange.waits_until] = ExchangeList()
        return slot.append(exchange)

    cdef int remove(self, Exchange exchange) except -1:
        """Forget a request that was admitted, and that is in no list any more."""
        self.count -= 1
        if exchange.waits_until:
            if (<ExchangeList>self.slots[exchange.waits_until]).count == 0:
                del self.slots[exchange.waits_until]
            exchange.waits_until = 0
        return 0

    cdef list due(self, double now, Py_ssize_t limit):
        """Return requests whose time is over, at most so many. They stay in the table until they are answered."""
        if not self.slots:
            self.earliest = <int64_t>now
        while self.earliest <= <int64_t>now:
            slot = self.slots.get(self.earliest)
            if slot is not None:
                return first_of(<ExchangeList>slot, limit)
            self.earliest += 1
        return []

    cdef list some(self, Py_ssize_t limit):
        """Return any requests, at most so many."""
        cdef list found = []
        cdef ExchangeList slot
        for slot in self.slots.values():
            if len(found) >= limit:
                break
            found += first_of(slot, limit - len(found))
        return found


cdef list first_of(ExchangeList exchanges, Py_ssize_t limit):
    """Return the first exchanges of a list, at most so many."""
    cdef Exchange exchange = exchanges.first
    cdef list found = []
    while exchange is not None and len(found) < limit:
        found.append(exchange)
        exchange = exchange.next
    return found
