"""The requests of a CoAP server that wait for a push, by the second in which their time is over.

What a waiting request does is in waiting_request.pyx.

Source: docs/coap.md, "Wait for a push".
"""

from itertools import islice


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
        """Let the time of a request be over at `deadline`, a loop time."""
        cdef dict slot
        exchange.waits_until = max(<int64_t>deadline + 1, self.earliest)
        slot = self.slots.get(exchange.waits_until)
        if slot is None:
            slot = self.slots[exchange.waits_until] = {}
        slot[exchange] = None
        return 0

    cdef int remove(self, Exchange exchange) except -1:
        """Forget a request that was admitted."""
        cdef dict slot
        self.count -= 1
        if exchange.waits_until:
            slot = self.slots[exchange.waits_until]
            del slot[exchange]
            if not slot:
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
                return list(islice(slot, limit))
            self.earliest += 1
        return []

    cdef list some(self, Py_ssize_t limit):
        """Return any requests, at most so many."""
        return list(islice((exchange for slot in self.slots.values() for exchange in slot), limit))
