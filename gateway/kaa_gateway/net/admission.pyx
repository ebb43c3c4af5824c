"""Limits of how much a connection and a source may send: token buckets of messages and bytes, numbers of connections.

A stream beyond its rate is not read until it is within it again, and its sender feels back-pressure; a datagram beyond
the rate is dropped. A source is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer has. Only
the limit of half-open connections is on by default; the others cost one comparison a read while they are off.

What lives here: counting. What does not: pausing and dropping (tcp_connection.pyx, udp.pyx).
"""

import socket
from collections import OrderedDict

from libc.string cimport memcmp

cdef enum:
    SOURCES_MAX = 65536       # remembered; then the oldest without open connections is forgotten
    FORGET_SCAN = 64          # sources looked at for one without connections
    NETWORK_SIZE = 8          # bytes of the network in an IPv6 address
    IPV4_SIZE = 4
    # offsets of the address in a sockaddr_in and a sockaddr_in6
    IPV4_OFFSET = 4
    IPV6_OFFSET = 8
    SOCKADDR_IN6_SIZE = 28

cdef bytes MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2)


cdef inline double take(Bucket* bucket, double rate, double amount, double now) noexcept:
    """Take tokens out of a bucket, and return the seconds until it is out of debt. Hot path if rates are limited."""
    bucket.tokens = min(bucket.tokens + (now - bucket.at) * rate, max(rate, 1.0)) - amount
    bucket.at = now
    return -bucket.tokens / rate if bucket.tokens < 0 else 0


cdef inline bint has_tokens(const Bucket* bucket, double rate, double now) noexcept:
    """Return whether a bucket has tokens. Hot path if rates are limited."""
    return bucket.tokens + (now - bucket.at) * rate > 0


cdef bytes source_of(const uint8_t* address, Py_ssize_t size):
    """Return the source of a sockaddr."""
    if size < SOCKADDR_IN6_SIZE:
        return address[IPV4_OFFSET:IPV4_OFFSET + IPV4_SIZE]
    address += IPV6_OFFSET
    if memcmp(address, <const char*>MAPPED, len(MAPPED)) == 0:
        return address[len(MAPPED):len(MAPPED) + IPV4_SIZE]
    return address[:NETWORK_SIZE]


cpdef str address_text(bytes address):
    """Return host:port of a sockaddr, for operators."""
    family = int.from_bytes(address[:2], "little")
    port = int.from_bytes(address[2:4], "big")
    if family == socket.AF_INET6 and address[IPV6_OFFSET:IPV6_OFFSET + 12] == MAPPED:
        return f"{socket.inet_ntop(socket.AF_INET, address[IPV6_OFFSET + 12:IPV6_OFFSET + 16])}:{port}"
    if family == socket.AF_INET6:
        return f"[{socket.inet_ntop(socket.AF_INET6, address[IPV6_OFFSET:IPV6_OFFSET + 16])}]:{port}"
    return f"{socket.inet_ntop(socket.AF_INET, address[IPV4_OFFSET:IPV4_OFFSET + IPV4_SIZE])}:{port}"


cdef class Source:
    """One source, its open connections and its buckets."""


cdef class Admission:
    """The limits that are common to all listeners of a worker, and its table of sources.

    Rates are per second; 0 is no limit. `half_open_max` bounds the connections of a listener whose peer is not admitted
    yet.
    """

    def __init__(
        self, Counters counters not None, *, Py_ssize_t half_open_max, double message_rate, double byte_rate,
        Py_ssize_t source_connections, double source_message_rate, double source_byte_rate,
        Py_ssize_t sources_max=SOURCES_MAX,
    ):
        self.counters = counters
        self.sources_max = sources_max
        self.sources = OrderedDict()
        self.set_limits(
            half_open_max=half_open_max, message_rate=message_rate, byte_rate=byte_rate,
            source_connections=source_connections, source_message_rate=source_message_rate,
            source_byte_rate=source_byte_rate,
        )

    def set_limits(
        self, *, Py_ssize_t half_open_max, double message_rate, double byte_rate, Py_ssize_t source_connections,
        double source_message_rate, double source_byte_rate,
    ):
        """Set other limits, for what comes from now on.

        Sources are known from their new connections on, if none was limited before.
        """
        cdef Source source
        self.half_open_max = half_open_max
        self.message_rate = message_rate
        self.byte_rate = byte_rate
        self.source_connections = source_connections
        self.source_message_rate = source_message_rate
        self.source_byte_rate = source_byte_rate
        self.source_rates = source_message_rate > 0 or source_byte_rate > 0
        self.knows_sources = source_connections > 0 or self.source_rates
        if not self.rates:
            self.rates_begun += 1
        self.rates = message_rate > 0 or byte_rate > 0 or self.source_rates
        if not self.source_rates:
            for address, source in list(self.sources.items()):
                if source.connections == 0:
                    del self.sources[address]

    def source_count(self):
        """Return the number of sources that are remembered."""
        return len(self.sources)

    cdef Source source(self, bytes address, double now):
        """Return the source at an address. A new one starts with full buckets. Hot path if sources are limited."""
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
        """Forget an old source without connections, if there is one among the first FORGET_SCAN."""
        cdef Source source
        for _ in range(min(len(self.sources), FORGET_SCAN)):
            address, source = next(iter(self.sources.items()))
            if source.connections == 0:
                del self.sources[address]
                return
            self.sources.move_to_end(address)  # so many entries there may be: one for each connection at most

    cdef Source open(self, bytes address, double now):
        """Count a new connection, and return its source. Return None if that has as many as it may."""
        cdef Source source = self.source(address, now)
        if self.source_connections and source.connections >= self.source_connections:
            return None
        source.connections += 1
        return source

    cdef int close(self, bytes address, Source source) except -1:
        """Count the end of a connection. A source with a rate is remembered, and so is the state of its buckets."""
        source.connections -= 1
        if source.connections == 0 and not self.source_message_rate and not self.source_byte_rate:
            del self.sources[address]
        return 0

    cdef double charge(
        self, Bucket* message_bucket, Bucket* byte_bucket, Source source, uint64_t count, Py_ssize_t size, double now
    ) except -1:
        """Count what was read from a connection. Return the seconds of pause that it needs. Hot path if limited."""
        cdef double wait = 0, source_wait = 0
        if self.message_rate > 0:
            wait = take(message_bucket, self.message_rate, <double>count, now)
        if self.byte_rate > 0:
            wait = max(wait, take(byte_bucket, self.byte_rate, <double>size, now))
        if source is not None:
            if self.source_message_rate > 0:
                source_wait = take(&source.message_bucket, self.source_message_rate, <double>count, now)
            if self.source_byte_rate > 0:
                source_wait = max(source_wait, take(&source.byte_bucket, self.source_byte_rate, <double>size, now))
        if source_wait > wait:
            self.counters.count("paused", "source_rate")
            return source_wait
        if wait > 0:
            self.counters.count("paused", "connection_rate")
        return wait

    cdef bint allows(self, bytes address, Py_ssize_t size, double now) except -1:
        """Count a datagram of a source. Return False if the source is beyond its rate. Hot path if limited."""
        cdef Source source = self.source(address, now)
        if (self.source_message_rate > 0 and not has_tokens(&source.message_bucket, self.source_message_rate, now)) \
                or (self.source_byte_rate > 0 and not has_tokens(&source.byte_bucket, self.source_byte_rate, now)):
            self.counters.count("dropped", "source_rate")
            return False
        if self.source_message_rate > 0:
            take(&source.message_bucket, self.source_message_rate, 1, now)
        if self.source_byte_rate > 0:
            take(&source.byte_bucket, self.source_byte_rate, <double>size, now)
        return True
