"""What the peers of one CoAP server share: its settings and its tables, over datagrams and over streams alike."""

import secrets

from kaa_gateway.coap.echo import EchoValues
from kaa_gateway.coap.links import Links

cdef enum:
    SECRET_SIZE = 16              # bytes

# Seconds between two blocks of a transfer: a client may still retransmit until then (MAX_TRANSMIT_WAIT).
cdef double BODY_LIFETIME = 93.0
# Seconds for which an Echo value may be returned.
cdef double ECHO_LIFETIME = 300.0


cdef class CoapContext:
    """The settings and tables of one CoAP server. Times are in seconds, sizes in bytes."""

    def __init__(
        self, Uplink uplink not None, Sessions sessions not None, Counters counters not None, app_versions, *,
        double response_timeout, Py_ssize_t pending_requests, Py_ssize_t max_body_size, Py_ssize_t block_memory,
        Py_ssize_t transfers_per_peer, Py_ssize_t outstanding_per_peer, Py_ssize_t observers,
        Py_ssize_t observers_per_peer, double max_wait, double requests_per_second, double now,
        double piggyback_delay=0, double ack_timeout=1, Py_ssize_t exchanges=1, Py_ssize_t exchanges_per_peer=65536,
        bint require_echo=False,
    ):
        self.uplink = uplink
        self.sessions = sessions
        self.counters = counters
        self.echo = EchoValues(secrets.token_bytes(SECRET_SIZE), ECHO_LIFETIME)
        self.piggyback_delay = piggyback_delay
        self.body_size_max = max_body_size
        self.exchanges_per_peer = exchanges_per_peer
        # A request that is answered must find room too, for its duplicates.
        self.outstanding_per_peer = min(outstanding_per_peer, exchanges_per_peer - 1)
        self.requests_per_second = requests_per_second
        self.require_echo = require_echo
        self.set_links(app_versions)
        self.pending = PendingRequests(pending_requests, response_timeout)
        self.unacknowledged = ExchangeList()
        self.completed = DeduplicationTable(exchanges)
        self.timer = RetransmissionTimer(ack_timeout, now)
        self.requests = BodyTable(block_memory, transfers_per_peer, BODY_LIFETIME)
        self.responses = BodyTable(block_memory, transfers_per_peer, BODY_LIFETIME)
        self.observations = ObservationTable(counters, observers, observers_per_peer)
        self.waiting = WaitingTable(observers, observers_per_peer, max_wait, now)
        self.spare = []
        self.now = now
        self.path = Buffer()
        self.out = Buffer()

    cdef int set_links(self, app_versions) except -1:
        """Serve the extension instances of these application versions from now on."""
        self.links = Links(app_versions)
        self.served = {
            version.encode(): frozenset([extension.encode() for extension in allowed])
            for version, allowed in app_versions.items()
        }
        return 0

    cdef int expire_bodies(self, double now) except -1:
        """Remove the bodies of transfers whose lifetime is over."""
        self.requests.expire(now)
        return self.responses.expire(now)

    cdef dict table_sizes(self):
        """Return {table: entries}, and for the block tables also {..._bytes: bytes}."""
        return {
            "waiting": self.unacknowledged.count,
            "answered": self.completed.count,
            "transmissions": self.timer.count,
            "observers": len(self.observations),
            "waits": self.waiting.count,
            "requests": len(self.requests),
            "requests_bytes": self.requests.bytes,
            "responses": len(self.responses),
            "responses_bytes": self.responses.bytes,
        }
