"""What a worker counts: plain C integers for what happens per message, a dict by reason for what is rare.

The management API exports them at scrape. A reason is a code of ours, never data of a peer.
"""

cdef tuple PROTOCOL_NAMES = ("mqtt", "http", "coap", "udp")


cdef class Counters:
    """One worker's counts since its start."""

    def __init__(self):
        self.reasons = {}

    cdef int count(self, str event, str reason) except -1:
        """Add one to an event that carries a reason: "refused", "dropped", "closed", "ignored"."""
        key = (event, reason)
        self.reasons[key] = self.reasons.get(key, 0) + 1
        return 0

    def add(self, str event not None, str reason not None):
        """The same, for Python."""
        self.count(event, reason)

    def by_protocol(self):
        """{counter name: {protocol: count}}."""
        cdef int i
        result = {
            name: {} for name in
            ("messages_in", "bytes_in", "messages_out", "bytes_out", "connections_opened", "connections_closed")
        }
        for i in range(PROTOCOL_COUNT):
            protocol = PROTOCOL_NAMES[i]
            result["messages_in"][protocol] = self.messages_in[i]
            result["bytes_in"][protocol] = self.bytes_in[i]
            result["messages_out"][protocol] = self.messages_out[i]
            result["bytes_out"][protocol] = self.bytes_out[i]
            result["connections_opened"][protocol] = self.connections_opened[i]
            result["connections_closed"][protocol] = self.connections_closed[i]
        return result

    def by_reason(self):
        """{(event, reason): count}."""
        return self.reasons
