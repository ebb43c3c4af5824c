"""How much one connection, and one source, may send: token buckets in messages and bytes, and numbers of connections.

A stream beyond its rate is not read until it is within it again, which its sender feels as back-pressure; a datagram
beyond it is dropped. A source is an IPv4 address or an IPv6 network of 64 bits, which is what one customer has. All
limits but that of half-open connections are off unless they are configured, and then cost a compare a read.

What is half-open, and what pauses, is the adapters' (tcp.pyx, udp.pyx).
"""

import socket
from collections import OrderedDict

from libc.string cimport memcmp

cdef enum:
    SOURCES_MAX = 65536       # beyond those with open connections, the longest known is forgotten
    FORGET_SCAN = 64          # sources looked at for one without connections
    NETWORK_SIZE = 8          # bytes of an IPv6 address that name a customer's network
    IPV4_SIZE = 4
    # Where a sockaddr_in and a sockaddr_in6 have the address.
    IPV4_OFFSET = 4
    IPV6_OFFSET = 8
    SOCKADDR_IN6_SIZE = 28

cdef bytes MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2)


cdef inline double owed(Bucket* bucket, double rate, double amount, double now) noexcept:
    """Take an amount out of a bucket: the seconds until it is out of debt. Hot path where rates are limited."""
    bucket.tokens = min(bucket.tokens + (now - bucket.at) * rate, max(rate, 1.0)) - amount
    bucket.at = now
    return -bucket.tokens / rate if bucket.tokens < 0 else 0


cdef inline bint has(const Bucket* bucket, double rate, double now) noexcept:
    """Whether there is anything in a bucket. Hot path where rates are limited."""
    return bucket.tokens + (now - bucket.at) * rate > 0


cdef bytes source_of(const uint8_t* address, Py_ssize_t size):
    """The source of a sockaddr."""
    if size < SOCKADDR_IN6_SIZE:
        return address[IPV4_OFFSET:IPV4_OFFSET + IPV4_SIZE]
    address += IPV6_OFFSET
    if memcmp(address, <const char*>MAPPED, len(MAPPED)) == 0:
        return address[len(MAPPED):len(MAPPED) + IPV4_SIZE]
    return address[:NETWORK_SIZE]


cdef str address_text(bytes address):
    """host:port of a sockaddr, for a log line."""
    family = int.from_bytes(address[:2], "little")
    port = int.from_bytes(address[2:4], "big")
    if family == socket.AF_INET6:
        return f"[{socket.inet_ntop(socket.AF_INET6, address[IPV6_OFFSET:IPV6_OFFSET + 16])}]:{port}"
    return f"{socket.inet_ntop(socket.AF_INET, address[IPV4_OFFSET:IPV4_OFFSET + IPV4_SIZE])}:{port}"


cdef class Source:
    """What is known of one source."""


cdef class Admission:
    """The limits of a worker, common to its listeners, and its table of sources.

    Rates are a second; 0 is no limit. `half_open_max` bounds the connections of a listener that have not yet said who
    they are.
    """

    def __init__(
        self, Counters counters not None, *, Py_ssize_t half_open_max, double message_rate, double byte_rate,
        Py_ssize_t source_connections, double source_message_rate, double source_byte_rate,
        Py_ssize_t sources_max=SOURCES_MAX,
    ):
        self.counters = counters
        self.half_open_max = half_open_max
        self.message_rate = message_rate
        self.byte_rate = byte_rate
        self.source_connections = source_connections
        self.source_message_rate = source_message_rate
        self.source_byte_rate = source_byte_rate
        self.knows_sources = source_connections > 0 or source_message_rate > 0 or source_byte_rate > 0
        self.rates = message_rate > 0 or byte_rate > 0 or source_message_rate > 0 or source_byte_rate > 0
        self.sources_max = sources_max
        self.sources = OrderedDict()

    def source_count(self):
        """Sources that are remembered."""
        return len(self.sources)

    cdef Source source(self, bytes address, double now):
        """What is known of an address; a new one begins with a full bucket. Hot path where sources are limited."""
        cdef Source source = self.sources.get(address)
        if source is None:
            if len(self.sources) >= self.sources_max:
                self.forget_one()
            source = Source()
            source.message_bucket = Bucket(max(self.source_message_rate, 1.0), now)
            source.byte_bucket = Bucket(self.source_byte_rate, now)
            self.sources[address] = source
        return source

    def forget_one(self):
        """Make room for another source, if one is found soon that has no connections."""
        cdef Source source
        for _ in range(min(len(self.sources), FORGET_SCAN)):
            address, source = next(iter(self.sources.items()))
            if source.connections == 0:
                del self.sources[address]
                return
            self.sources.move_to_end(address)  # there are no more of these than connections

    cdef Source open(self, bytes address, double now):
        """Count a new connection of an address; None if it has as many as it may."""
        cdef Source source = self.source(address, now)
        if self.source_connections and source.connections >= self.source_connections:
            return None
        source.connections += 1
        return source

    cdef int close(self, bytes address, Source source) except -1:
        """A connection has ended. Its source is remembered, or a new connection would have a full bucket again."""
        source.connections -= 1
        if source.connections == 0 and not self.source_message_rate and not self.source_byte_rate:
            del self.sources[address]
        return 0

    cdef double charge(
        self, Bucket* message_bucket, Bucket* byte_bucket, Source source, uint64_t count, Py_ssize_t size, double now
    ) except -1:
        """Count what a connection was read: the seconds for which it is then not to be read. Hot path if limited."""
        cdef double wait = 0, of_source = 0
        if self.message_rate > 0:
            wait = owed(message_bucket, self.message_rate, <double>count, now)
        if self.byte_rate > 0:
            wait = max(wait, owed(byte_bucket, self.byte_rate, <double>size, now))
        if source is not None:
            if self.source_message_rate > 0:
                of_source = owed(&source.message_bucket, self.source_message_rate, <double>count, now)
            if self.source_byte_rate > 0:
                of_source = max(of_source, owed(&source.byte_bucket, self.source_byte_rate, <double>size, now))
        if of_source > wait:
            self.counters.count("paused", "source_rate")
            return of_source
        if wait > 0:
            self.counters.count("paused", "connection_rate")
        return wait

    cdef bint allows(self, bytes address, Py_ssize_t size, double now) except -1:
        """Whether a source may send this datagram, which is then counted. Hot path if limited."""
        cdef Source source = self.source(address, now)
        if (self.source_message_rate > 0 and not has(&source.message_bucket, self.source_message_rate, now)) \
                or (self.source_byte_rate > 0 and not has(&source.byte_bucket, self.source_byte_rate, now)):
            self.counters.count("dropped", "source_rate")
            return False
        if self.source_message_rate > 0:
            owed(&source.message_bucket, self.source_message_rate, 1, now)
        if self.source_byte_rate > 0:
            owed(&source.byte_bucket, self.source_byte_rate, <double>size, now)
        return True
