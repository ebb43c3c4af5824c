"""UDP: the adapter between a datagram socket and a protocol core, many datagrams a system call.

A readable socket is emptied with recvmmsg; what the core sends in a tick leaves with sendmmsg at its end. asyncio's
datagram transports would cost an object and a system call for each.

Source: recvmmsg(2), sendmmsg(2).
"""

import socket

from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

import structlog

from kaa_gateway.errors import ProtocolError

from kaa_gateway.net.admission cimport source_of

log = structlog.get_logger("gateway.transports")

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags)
    int MSG_DONTWAIT
    int MSG_TRUNC

cdef enum:
    DATAGRAMS_AT_ONCE = 64             # of a system call, each way
    READS_PER_TICK = 8                 # recvmmsg calls before others have their turn
    DATAGRAM_SIZE_MAX = 65536          # bytes; more than UDP can carry
    DATAGRAM_STRIDE = 65536 + 4 * 64   # bytes: at a power of two all datagrams would share the same few cache lines
    OUTGOING_MAX = 8 * 1024 * 1024     # bytes that wait for the socket; more are dropped, as UDP may
    SOCKET_BUFFER = 4 * 1024 * 1024    # bytes asked of the kernel, each way
    OUTGOING_KEEP = 256 * 1024         # bytes of send buffer kept between ticks


cdef struct Inbox:
    # What recvmmsg fills: prepared once, since its pointers never change.
    mmsghdr[DATAGRAMS_AT_ONCE] messages
    iovec[DATAGRAMS_AT_ONCE] vectors
    Address[DATAGRAMS_AT_ONCE] sources


cdef struct Entry:
    Address destination
    Py_ssize_t offset
    Py_ssize_t size


cdef class DatagramCore:
    """The core of a datagram protocol: datagrams in, and through `socket.send` out."""

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Take a datagram, borrowed for the call. Hot path. ProtocolError counts it as malformed."""
        return 0

    cdef int check(self, double now) except -1:
        """Called some ten times a second with the loop's time, for what depends on time."""
        return 0


cdef class Batch:
    """Datagrams that wait to be sent."""

    def __cinit__(self):
        self.bytes = Buffer()
        self.entries = Buffer()


cdef class UdpSocket:
    """A bound socket and the core that it serves."""

    def __init__(self, loop, DatagramCore core not None, Counters counters not None):
        self.loop = loop
        self.core = core
        self.counters = counters
        self.fd = -1
        self.receive_storage = Buffer()
        self.inbox = Buffer()
        self.prepare_inbox()
        self.outgoing = Batch()
        self.flush_callback = self.run_flush
        core.socket = self

    def limit(self, Admission admission not None):
        """Hold each source to the limits that are common to a worker's listeners; once, before the start."""
        if admission.source_message_rate > 0 or admission.source_byte_rate > 0:
            self.admission = admission

    def start(self, host, port, *, reuse_port):
        """Bind; OSError if the port is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                # As over TCP: and an IPv4 address within an IPv6 one would be of one source with all others.
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if reuse_port:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            self.socket.bind((host, port))
        except OSError:
            self.socket.close()
            raise
        self.fd = self.socket.fileno()
        self.loop.add_reader(self.fd, self.on_readable)

    @property
    def port(self):
        """The port it is bound to, which the system chose if 0 was asked for."""
        return self.socket.getsockname()[1]

    def check(self):
        """Call about ten times a second: lets the core act on time that has passed."""
        if self.fd >= 0:
            self.core.check(self.loop.time())

    def stop(self):
        """Send what waits if the socket takes it, and close."""
        if self.fd < 0:
            return
        self.flush()
        self.loop.remove_reader(self.fd)
        if self.writer_added:
            self.loop.remove_writer(self.fd)
        self.fd = -1
        self.socket.close()

    cdef int prepare_inbox(self) except -1:
        cdef uint8_t* storage = self.receive_storage.reserve(DATAGRAMS_AT_ONCE * DATAGRAM_STRIDE)
        cdef Inbox* inbox = <Inbox*>self.inbox.reserve(sizeof(Inbox))
        cdef int i
        memset(inbox, 0, sizeof(Inbox))
        for i in range(DATAGRAMS_AT_ONCE):
            inbox.vectors[i].iov_base = storage + i * DATAGRAM_STRIDE
            inbox.vectors[i].iov_len = DATAGRAM_SIZE_MAX
            inbox.messages[i].msg_hdr.msg_name = inbox.sources[i].bytes
            inbox.messages[i].msg_hdr.msg_namelen = ADDRESS_SIZE_MAX
            inbox.messages[i].msg_hdr.msg_iov = &inbox.vectors[i]
            inbox.messages[i].msg_hdr.msg_iovlen = 1
        return 0

    def on_readable(self):
        """Hot path."""
        cdef Inbox* inbox = <Inbox*>self.inbox.data
        cdef mmsghdr* message
        cdef Address* source
        cdef int i, count
        self.now = self.loop.time()
        for _turn in range(READS_PER_TICK):
            count = recvmmsg(self.fd, inbox.messages, DATAGRAMS_AT_ONCE, MSG_DONTWAIT, NULL)
            if count <= 0:
                # What else can be wrong is an earlier datagram's ICMP error, which concerns that peer only.
                return
            for i in range(count):
                message = &inbox.messages[i]
                source = &inbox.sources[i]
                source.size = min(message.msg_hdr.msg_namelen, <unsigned int>ADDRESS_SIZE_MAX)
                message.msg_hdr.msg_namelen = ADDRESS_SIZE_MAX
                self.datagrams_in += 1
                self.bytes_in += message.msg_len
                if message.msg_hdr.msg_flags & MSG_TRUNC:
                    self.counters.count("dropped", "udp_truncated")
                    continue
                if self.admission is not None and not self.admission.allows(
                    source_of(source.bytes, source.size), <Py_ssize_t>message.msg_len, self.now
                ):
                    continue
                try:
                    self.core.receive(
                        <const uint8_t*>inbox.vectors[i].iov_base, <Py_ssize_t>message.msg_len, source
                    )
                except ProtocolError as error:
                    self.counters.count("dropped", error.reason)
                if self.fd < 0:
                    return
            if count < DATAGRAMS_AT_ONCE:
                return

    cdef int send(self, const Address* destination, const uint8_t* data, Py_ssize_t size) except -1:
        """Send a datagram at the end of this tick; the bytes are copied. Hot path."""
        cdef Entry entry
        if self.outgoing.bytes.size + size > OUTGOING_MAX:
            return self.counters.count("dropped", "udp_send_buffer_full")
        entry.destination = destination[0]
        entry.offset = self.outgoing.bytes.size
        entry.size = size
        self.outgoing.entries.append(&entry, sizeof(Entry))
        self.outgoing.bytes.append(data, size)
        if not self.flush_scheduled and not self.writer_added:
            self.flush_scheduled = True
            self.loop.call_soon(self.flush_callback)
        return 0

    def run_flush(self):
        """The end of a tick, or the socket takes datagrams again."""
        self.flush_scheduled = False
        if self.fd >= 0:
            self.flush()

    cdef int flush(self) except -1:
        """Write what waits: DATAGRAMS_AT_ONCE a system call."""
        cdef mmsghdr[DATAGRAMS_AT_ONCE] messages
        cdef iovec[DATAGRAMS_AT_ONCE] vectors
        cdef Entry* entries = <Entry*>self.outgoing.entries.data
        cdef Py_ssize_t total = self.outgoing.entries.size // <Py_ssize_t>sizeof(Entry), done = 0, i, count
        cdef int sent
        memset(messages, 0, <size_t>min(total, <Py_ssize_t>DATAGRAMS_AT_ONCE) * sizeof(mmsghdr))
        while done < total:
            count = min(total - done, <Py_ssize_t>DATAGRAMS_AT_ONCE)
            for i in range(count):
                vectors[i].iov_base = self.outgoing.bytes.data + entries[done + i].offset
                vectors[i].iov_len = <size_t>entries[done + i].size
                messages[i].msg_hdr.msg_name = entries[done + i].destination.bytes
                messages[i].msg_hdr.msg_namelen = entries[done + i].destination.size
                messages[i].msg_hdr.msg_iov = &vectors[i]
                messages[i].msg_hdr.msg_iovlen = 1
            sent = sendmmsg(self.fd, messages, <unsigned int>count, MSG_DONTWAIT)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                # The first datagram of the batch cannot be sent to its peer: it is lost, as UDP may lose it.
                self.counters.count("dropped", "udp_unsendable")
                done += 1
                continue
            for i in range(sent):
                self.datagrams_out += 1
                self.bytes_out += <uint64_t>entries[done + i].size
            done += sent
        return self.keep_from(done, total)

    cdef int keep_from(self, Py_ssize_t done, Py_ssize_t total) except -1:
        """Forget the datagrams before `done`; wait for the socket if any are left."""
        cdef Entry* entries = <Entry*>self.outgoing.entries.data
        cdef Py_ssize_t offset, i
        if done == total:
            self.outgoing.bytes.clear(OUTGOING_KEEP)
            self.outgoing.entries.clear(OUTGOING_KEEP)
            if self.writer_added:
                self.writer_added = False
                self.loop.remove_writer(self.fd)
            return 0
        offset = entries[done].offset
        for i in range(done, total):
            entries[i].offset -= offset
        self.outgoing.bytes.consume(offset)
        self.outgoing.entries.consume(done * <Py_ssize_t>sizeof(Entry))
        if not self.writer_added:
            self.writer_added = True
            self.loop.add_writer(self.fd, self.flush_callback)
        return 0


cdef bytes address_key(const Address* address):
    """The bytes that tell a peer from all others."""
    return address.bytes[:address.size]
