"""The CoAP server of one worker for one listener of a reliable transport: TCP, TLS or WebSocket.

Peers, exchanges, blocks and observations are those of CoAP over UDP. Message IDs, acknowledgements, retransmissions and
the table of addresses are not needed. One connection is in stream.pyx.

Source: RFC 8323.
"""

from itertools import islice

from kaa_gateway.coap.ending cimport end_observations, end_unserved, end_waits, expire_waits
from kaa_gateway.coap.outbox cimport Outbox
from kaa_gateway.coap.peer cimport new_peer
from kaa_gateway.coap.stream cimport CoapStream
from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.net.transport cimport ProtocolCore, Transport

from libc.math cimport INFINITY

cdef enum:
    HEADER_ALLOWANCE = 2048       # bytes of a message beside its body: token, options
    BASE_MESSAGE_SIZE = 1152      # bytes that a peer takes before its CSM says otherwise (RFC 8323 section 5.3.1)
    FRONT_SURPLUS = 2             # bytes by which the front of a message over a stream may exceed that of a datagram
    RELEASED_AT_ONCE = 200        # connections


cdef class CoapStreamServer:
    """What the connections of one listener share. Times are in seconds, sizes in bytes.

    `authenticate` is called with the certificate of a new client and returns a Client or a future of it; None admits
    all. `alternative_address` is where clients go when the gateway drains.
    """

    def __init__(
        self, loop, Uplink uplink, Sessions sessions, Counters counters, app_versions, *, authenticate,
        str alternative_address, double csm_timeout, double ping_after, Py_ssize_t max_body_size, **settings,
    ):
        self.loop = loop
        self.context = CoapContext(
            uplink, sessions, counters, app_versions, max_body_size=max_body_size, now=loop.time(), **settings
        )
        self.authenticate = authenticate
        self.alternative_address = None if alternative_address is None else alternative_address.encode()
        self.csm_timeout = csm_timeout
        self.ping_after = ping_after
        self.message_size_max = max_body_size + HEADER_ALLOWANCE
        self.input_memory = InputMemory()
        self.connections = set()
        self.scratch = Buffer()

    @property
    def pending(self):
        """The requests that wait for their answers."""
        return self.context.pending

    def limit(self, InputMemory input_memory not None):
        """Bound the memory of incomplete messages, together with other transports; once, before the start."""
        self.input_memory = input_memory

    cpdef ProtocolCore connect(self, Transport transport):
        """Return the core of a new connection."""
        cdef CoapStream stream = CoapStream()
        cdef Outbox outbox = Outbox()
        cdef double now = self.loop.time()
        outbox.stream = stream
        outbox.message_size_max = BASE_MESSAGE_SIZE - FRONT_SURPLUS
        outbox.verified_until = INFINITY
        stream.server = self
        stream.transport = transport
        stream.began = stream.last_active = now
        stream.peer = new_peer(self.context, outbox, now)
        self.context.sessions.open(stream.peer)
        self.connections.add(stream)
        stream.send_csm()
        return stream

    def list_links(self, app_versions):
        """Answer requests for /.well-known/core by another configuration."""
        self.context.set_links(app_versions)

    def begin_drain(self):
        """Answer further requests with 5.03, end observations, and ask all clients to leave."""
        self.context.draining = True
        self.end_some_observations()
        self.end_some_waits()
        self.release_some(iter(list(self.connections)))

    def end_some_observations(self):
        """End observations because the server drains, a slice at a time."""
        if end_observations(self.context):
            self.loop.call_soon(self.end_some_observations)

    def end_some_waits(self):
        """Answer requests that wait for a push because the server drains, a slice at a time."""
        if end_waits(self.context):
            self.loop.call_soon(self.end_some_waits)

    def release_some(self, streams):
        """Send Release over these connections, a slice at a time."""
        cdef CoapStream stream
        cdef int count = 0
        for stream in islice(streams, RELEASED_AT_ONCE):
            stream.release()
            count += 1
        if count == RELEASED_AT_ONCE:
            self.loop.call_soon(self.release_some, streams)

    def has_observers(self):
        """Return whether clients observe or wait for a push."""
        return len(self.context.observations) > 0 or self.context.waiting.count > 0

    def check(self):
        """Do what is due: the end of waits, of bodies, and of observations that are no longer served.

        Call it about once a second, and again if it returns True.
        """
        self.context.now = self.loop.time()
        end_unserved(self.context)
        self.context.expire_bodies(self.context.now)
        return expire_waits(self.context, self.context.now)

    def table_sizes(self):
        """Return {table: entries}, and for the block tables also {..._bytes: bytes}."""
        return {"peers": len(self.connections), **self.context.table_sizes()}
