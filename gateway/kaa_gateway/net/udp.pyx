"""The UDP adapter: it carries datagrams between a socket and a protocol core, many in a system call.

A readable socket is emptied with recvmmsg. What the core sends in a tick leaves with sendmmsg at the end of the tick.
asyncio's datagram transports would cost an object and a system call for each datagram.

A socket that is bound to all addresses answers from the address that was asked (RFC 7252 section 5.3.2): the kernel
tells it with each datagram, and is told it with the answer.

Source: recvmmsg(2), sendmmsg(2), ip(7) IP_PKTINFO, RFC 3542 section 6 (IPV6_PKTINFO).
"""

import socket
import struct
from collections import OrderedDict

from libc.errno cimport EAGAIN, EINTR, ENODEV, errno
from libc.string cimport memcmp, memcpy, memset

from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.proxy_header import FORMAT_REASONS

from kaa_gateway.net.addresses cimport ADDRESS_SIZE_MAX, LOCAL_SIZE_MAX, address_key
from kaa_gateway.net.admission cimport source_of
from kaa_gateway.net.sockets cimport (
    CMSG_DATA, CMSG_LEN, CMSG_SPACE, IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, IPV6_RECVPKTINFO,
    MSG_DONTWAIT, MSG_TRUNC, cmsghdr, in6_pktinfo, in_addr, in_pktinfo, iovec, mmsghdr, recvmmsg, sendmmsg,
)
from kaa_gateway.tick cimport tick_of
from kaa_gateway.wire.proxy_header cimport PROXY_WELL_FORMED, ProxyFormat, ProxyHeader, read_proxy_header

cdef enum:
    DATAGRAMS_AT_ONCE = 64             # datagrams in a system call, each way
    READS_PER_TICK = 8                 # recvmmsg calls before other sockets have their turn
    DATAGRAM_SIZE_MAX = 65536          # bytes; more than UDP can carry
    DATAGRAM_STRIDE = 65536 + 4 * 64   # bytes; with a power of two all datagrams would share the same few cache lines
    OUTGOING_MAX = 8 * 1024 * 1024     # bytes that wait for the socket; more are dropped, as UDP may
    OUTGOING_KEEP = 256 * 1024         # bytes of the send buffer kept between ticks
    SOCKET_BUFFER = 4 * 1024 * 1024    # bytes asked of the kernel, each way
    CONTROL_WORDS = 8                  # of 64 bits; more than a cmsghdr with an in6_pktinfo takes
    CONTROL_SIZE = 8 * CONTROL_WORDS   # bytes
    CLIENTS_MAX = 65536                # of proxies, that are remembered to show their addresses
    MULTICAST = 0xFF                   # the first byte of an IPv6 multicast address
    IPV4_MULTICAST = 0xE0              # the upper bits of the first byte of an IPv4 multicast address
    IPV4_MULTICAST_MASK = 0xF0
    IP_MULTICAST_ALL = 49              # <linux/in.h>
    IPV6_MULTICAST_ALL = 29            # <linux/in6.h>
    IPV4_SIZE = 4                      # bytes of an address
    MAPPED_SIZE = 12                   # bytes before an IPv4 address in an IPv6 one


COAP_NODES = ("224.0.1.187", "ff02::fd", "ff05::fd")
"""All CoAP Nodes: IPv4, link-local and site-local IPv6 (RFC 7252 section 12.8)."""
BOTH_FAMILIES = "*"
"""The host that stands for all addresses of IPv4 and IPv6."""

cdef uint8_t[LOCAL_SIZE_MAX] NOWHERE
memset(NOWHERE, 0, LOCAL_SIZE_MAX)
cdef bytes MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2)
cdef frozenset ALL_ADDRESSES = frozenset(("0.0.0.0", "::"))


cdef struct Inbox:
    # What recvmmsg fills. It is prepared once, since its pointers never change.
    mmsghdr[DATAGRAMS_AT_ONCE] messages
    iovec[DATAGRAMS_AT_ONCE] vectors
    Address[DATAGRAMS_AT_ONCE] sources
    uint64_t[DATAGRAMS_AT_ONCE][CONTROL_WORDS] controls


cdef struct Outgoing:
    # A datagram that waits to be sent.
    Address destination
    Py_ssize_t offset
    Py_ssize_t size


def bind(host, port, reuse_port):
    """Return a new socket that is bound. Raises OSError if the port is taken."""
    both = host == BOTH_FAMILIES
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    result = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            result.setsockopt(IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
            result.setsockopt(IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
        if both or family == socket.AF_INET:
            # Otherwise the datagrams to a group that any program here has joined would come.
            result.setsockopt(IPPROTO_IP, IP_MULTICAST_ALL, 0)
        if reuse_port:
            result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        result.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        result.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        result.bind(("::" if both else host, port))
        if result.getsockname()[0] not in ALL_ADDRESSES:
            pass
        elif family == socket.AF_INET6:
            result.setsockopt(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            result.setsockopt(IPPROTO_IP, IP_PKTINFO, 1)
    except OSError:
        result.close()
        raise
    return result


cdef class DatagramCore:
    """The core of a datagram protocol. It receives datagrams, and sends through `socket.send`."""

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Handle a datagram, borrowed for the call. Hot path. A ProtocolError counts it as malformed."""
        return 0

    cdef bint check(self, double now) except -1:
        """Act on time that has passed: called some ten times a second with the loop's time."""
        return 0

    cdef int forget(self, const Address* address) except -1:
        """Forget the peer at an address: its session below has ended, and what comes next is from another."""
        return 0


cdef class UdpSocket:
    """A bound socket and the core that it serves."""

    def __init__(self, loop, DatagramCore core not None, Counters counters not None):
        self.loop = loop
        self.tick = tick_of(loop)
        self.core = core
        self.counters = counters
        self.fd = -1
        self.receive_storage = Buffer()
        self.inbox = Buffer()
        self.prepare_inbox()
        self.outgoing_bytes = Buffer()
        self.outgoing = Buffer()
        self.clients = OrderedDict()
        core.socket = self

    def limit(self, Admission admission not None):
        """Limit each source as the other listeners of the worker do. Call it before `start`."""
        self.admission = admission

    def use_proxy_protocol(self, ProxyProtocol proxy not None):
        """Believe trusted proxies for which client they send a datagram. Call it before `start`."""
        self.proxy = proxy

    def start(self, host, port, *, reuse_port, bound=None):
        """Read a new socket, or one that is `bound` already. Raises OSError if the port is taken."""
        self.socket = bind(host, port, reuse_port) if bound is None else bound
        self.ipv6 = self.socket.family == socket.AF_INET6
        self.several_addresses = self.socket.getsockname()[0] in ALL_ADDRESSES
        self.fd = self.socket.fileno()
        self.loop.add_reader(self.fd, self.on_readable)

    def join(self, str group not None):
        """Receive what is sent to an IPv4 multicast group at the port. Call it after `start`."""
        if self.ipv6 and not self.joins_ipv4():
            raise ValueError("an IPv4 group needs a socket that receives over IPv4")
        membership = socket.inet_aton(group) + socket.inet_aton("0.0.0.0")
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    def join_coap_nodes(self, interfaces):
        """Receive what is sent to All CoAP Nodes on these interfaces (RFC 7252 section 12.8). Raises OSError."""
        for name in interfaces:
            try:
                index = socket.if_nametoindex(name)
            except OSError:
                raise OSError(ENODEV, f"there is no interface {name}") from None
            for group in COAP_NODES:
                address = socket.inet_pton(socket.AF_INET6 if ":" in group else socket.AF_INET, group)
                if len(address) == IPV4_SIZE and (not self.ipv6 or self.joins_ipv4()):
                    request = struct.pack("4s4si", address, bytes(IPV4_SIZE), index)
                    self.socket.setsockopt(IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
                elif len(address) > IPV4_SIZE and self.ipv6:
                    request = struct.pack("16sI", address, index)
                    self.socket.setsockopt(IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)

    def joins_ipv4(self):
        """Return whether a socket of IPv6 receives over IPv4 too."""
        return self.socket.getsockopt(IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0

    @property
    def port(self):
        """The port that the socket is bound to; the system has chosen it if 0 was asked for."""
        return self.socket.getsockname()[1]

    def check(self):
        """Let the core act on time that has passed. Call it about ten times a second, and again if it returns True."""
        return self.fd >= 0 and self.core.check(self.loop.time())

    def stop(self):
        """Send what waits, as far as the socket takes it, and close."""
        if self.fd < 0:
            return
        self.flush()
        self.loop.remove_reader(self.fd)
        if self.writer_added:
            self.loop.remove_writer(self.fd)
        self.fd = -1
        self.socket.close()

    cdef int prepare_inbox(self) except -1:
        """Point each message of the inbox to its part of the storage."""
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
            inbox.messages[i].msg_hdr.msg_control = inbox.controls[i]
            inbox.messages[i].msg_hdr.msg_controllen = CONTROL_SIZE
        return 0

    cdef int note_local_address(self, msghdr* message, Address* source) noexcept:
        """Note to which address of ours a datagram was sent. Hot path."""
        cdef cmsghdr* control = <cmsghdr*>message.msg_control
        cdef const uint8_t* destination
        self.to_group = False
        if message.msg_controllen >= CMSG_LEN(0):
            if self.ipv6 and control.cmsg_type == IPV6_PKTINFO:
                memcpy(source.local, &(<in6_pktinfo*>CMSG_DATA(control)).ipi6_addr, LOCAL_SIZE_MAX)
                if source.local[0] == MULTICAST or (
                        source.local[MAPPED_SIZE] & IPV4_MULTICAST_MASK == IPV4_MULTICAST
                        and memcmp(source.local, <const char*>MAPPED, MAPPED_SIZE) == 0):
                    self.to_group = True
                    memset(source.local, 0, LOCAL_SIZE_MAX)  # no address to answer from
            elif not self.ipv6 and control.cmsg_type == IP_PKTINFO:
                memcpy(source.local, &(<in_pktinfo*>CMSG_DATA(control)).ipi_spec_dst, sizeof(in_addr))
                destination = <const uint8_t*>&(<in_pktinfo*>CMSG_DATA(control)).ipi_addr
                if destination[0] & IPV4_MULTICAST_MASK == IPV4_MULTICAST:
                    self.to_group = True
                    memset(source.local, 0, LOCAL_SIZE_MAX)
        message.msg_controllen = CONTROL_SIZE
        return 0

    cdef int set_local_address(self, msghdr* message, Address* destination) noexcept:
        """Let a datagram be sent from the address of ours that its peer has sent to. Hot path.

        `message.msg_control` has CONTROL_SIZE bytes, all 0.
        """
        cdef cmsghdr* control = <cmsghdr*>message.msg_control
        if memcmp(destination.local, NOWHERE, LOCAL_SIZE_MAX) == 0:  # asked by multicast: the kernel chooses
            message.msg_control = NULL
            message.msg_controllen = 0
            return 0
        if self.ipv6:
            control.cmsg_len = CMSG_LEN(sizeof(in6_pktinfo))
            control.cmsg_level = IPPROTO_IPV6
            control.cmsg_type = IPV6_PKTINFO
            memcpy(&(<in6_pktinfo*>CMSG_DATA(control)).ipi6_addr, destination.local, LOCAL_SIZE_MAX)
            message.msg_controllen = CMSG_SPACE(sizeof(in6_pktinfo))
        else:
            control.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
            control.cmsg_level = IPPROTO_IP
            control.cmsg_type = IP_PKTINFO
            memcpy(&(<in_pktinfo*>CMSG_DATA(control)).ipi_spec_dst, destination.local, sizeof(in_addr))
            message.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo))
        return 0

    def on_readable(self):
        """Read what has arrived, then write what is due. Hot path."""
        cdef bint begun = self.tick.begin()
        try:
            self.read()
        finally:
            if begun:
                self.tick.end()

    cdef int read(self) except -1:
        """Read what has arrived. Hot path."""
        cdef Inbox* inbox = <Inbox*>self.inbox.data
        cdef mmsghdr* message
        cdef Address* source
        cdef Address client
        cdef const Address* sender
        cdef Py_ssize_t header_size = 0
        cdef int i, count
        self.now = self.loop.time()
        for _turn in range(READS_PER_TICK):
            count = recvmmsg(self.fd, inbox.messages, DATAGRAMS_AT_ONCE, MSG_DONTWAIT, NULL)
            if count <= 0:
                # Besides EAGAIN this is the ICMP error of an earlier datagram, which concerns its peer only.
                return 0
            for i in range(count):
                message = &inbox.messages[i]
                source = &inbox.sources[i]
                source.size = min(message.msg_hdr.msg_namelen, <unsigned int>ADDRESS_SIZE_MAX)
                message.msg_hdr.msg_namelen = ADDRESS_SIZE_MAX
                if self.several_addresses:
                    self.note_local_address(&message.msg_hdr, source)
                self.datagrams_in += 1
                self.bytes_in += message.msg_len
                if message.msg_hdr.msg_flags & MSG_TRUNC:
                    self.counters.count("dropped", "udp_truncated")
                    continue
                sender = source
                if self.proxy is not None:
                    header_size = self.take_header(
                        <const uint8_t*>inbox.vectors[i].iov_base, <Py_ssize_t>message.msg_len, source, &client
                    )
                    if header_size < 0:
                        continue
                    if header_size:
                        sender = &client
                if self.admission is not None and self.admission.source_rates and not self.admission.allows(
                    source_of(sender.bytes, sender.size), <Py_ssize_t>message.msg_len, self.now
                ):
                    continue
                try:
                    self.on_datagram(
                        <const uint8_t*>inbox.vectors[i].iov_base + header_size,
                        <Py_ssize_t>message.msg_len - header_size, source,
                    )
                except ProtocolError as error:
                    self.counters.count("dropped", error.reason)
                if self.fd < 0:
                    return 0
            if count < DATAGRAMS_AT_ONCE:
                return 0
        return 0

    cdef Py_ssize_t take_header(
        self, const uint8_t* data, Py_ssize_t size, const Address* source, Address* client
    ) except -2:
        """Read the header at the front of a proxy's datagram. Return its size, or -1 if the datagram is dropped.

        The client's address counts for limits and is shown. Answers go to the proxy, which has a port for each client.
        """
        cdef ProxyHeader header
        cdef ProxyFormat form
        if not self.proxy.trusts(source.bytes, source.size):
            if not self.proxy.refuses_others:
                return 0
            self.counters.count("dropped", "proxy_untrusted_source")
            return -1
        form = read_proxy_header(data, size, True, &header)
        if form != PROXY_WELL_FORMED:
            self.counters.count("dropped", FORMAT_REASONS[<int>form])
            return -1
        client[0] = source[0]
        if header.address_size:
            memset(client.bytes, 0, ADDRESS_SIZE_MAX)
            memcpy(client.bytes, header.address, header.address_size)
            client.size = header.address_size
            self.remember_client(source, client)
        return -1 if header.size == size else header.size  # an empty datagram is a health check

    cdef int remember_client(self, const Address* source, const Address* client) except -1:
        """Remember for which client a proxy sends from an address."""
        cdef bytes key = address_key(source)
        cdef bytes known = self.clients.get(key)
        if known is None and len(self.clients) >= CLIENTS_MAX:
            self.clients.popitem(last=False)
        if known is None or len(known) != client.size or memcmp(<const uint8_t*>known, client.bytes, client.size) != 0:
            self.clients[key] = client.bytes[:client.size]
        return 0

    cdef bytes client_address(self, const Address* address):
        """Return the sockaddr of the client at an address, which is that of its proxy if it has one."""
        cdef bytes client = self.clients.get(address_key(address)) if self.clients else None
        return address.bytes[:address.size] if client is None else client

    cdef int on_datagram(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Hand a datagram to the core. Hot path."""
        return self.core.receive(data, size, source)

    cdef object client_of(self, const Address* address):
        """Return the admitted client whose session is at an address, or None where the socket knows no clients."""
        return None

    cdef Py_ssize_t message_size_max(self, const Address* address) except -1:
        """Return how many bytes a message to an address may have."""
        return DATAGRAM_SIZE_MAX

    cdef int disconnect(self, const Address* address) except -1:
        """End the session of the client at an address, where the socket has sessions."""
        return 0

    cdef int send(self, const Address* destination, const uint8_t* data, Py_ssize_t size) except -1:
        """Send a datagram at the end of this tick; the bytes are copied. Hot path."""
        cdef Outgoing* outgoing
        if self.outgoing_bytes.size + size > OUTGOING_MAX:
            return self.counters.count("dropped", "udp_send_buffer_full")
        outgoing = <Outgoing*>self.outgoing.reserve(sizeof(Outgoing))
        outgoing.destination = destination[0]
        outgoing.offset = self.outgoing_bytes.size
        outgoing.size = size
        self.outgoing_bytes.append(data, size)
        self.outgoing.size += <Py_ssize_t>sizeof(Outgoing)
        return 0 if self.writer_added else self.tick.add(self)

    cdef int write_due(self) except -1:
        """Send what waits, at the end of a tick. Hot path."""
        return self.flush() if self.fd >= 0 else 0

    def on_writable(self):
        """Send what waits: the socket takes datagrams again."""
        self.flush()

    cdef int flush(self) except -1:
        """Send what waits, DATAGRAMS_AT_ONCE in a system call."""
        cdef uint64_t[DATAGRAMS_AT_ONCE][CONTROL_WORDS] controls
        cdef mmsghdr[DATAGRAMS_AT_ONCE] messages
        cdef iovec[DATAGRAMS_AT_ONCE] vectors
        cdef Outgoing* waiting = <Outgoing*>self.outgoing.data
        cdef Py_ssize_t total = self.outgoing.size // <Py_ssize_t>sizeof(Outgoing), done = 0, i, count
        cdef int sent
        memset(messages, 0, <size_t>min(total, <Py_ssize_t>DATAGRAMS_AT_ONCE) * sizeof(mmsghdr))
        while done < total:
            count = min(total - done, <Py_ssize_t>DATAGRAMS_AT_ONCE)
            for i in range(count):
                vectors[i].iov_base = self.outgoing_bytes.data + waiting[done + i].offset
                vectors[i].iov_len = <size_t>waiting[done + i].size
                messages[i].msg_hdr.msg_name = waiting[done + i].destination.bytes
                messages[i].msg_hdr.msg_namelen = waiting[done + i].destination.size
                messages[i].msg_hdr.msg_iov = &vectors[i]
                messages[i].msg_hdr.msg_iovlen = 1
                if self.several_addresses:
                    memset(controls[i], 0, CONTROL_SIZE)
                    messages[i].msg_hdr.msg_control = controls[i]
                    self.set_local_address(&messages[i].msg_hdr, &waiting[done + i].destination)
            sent = sendmmsg(self.fd, messages, <unsigned int>count, MSG_DONTWAIT)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                # The first datagram of these cannot be sent to its peer. It is lost, as UDP may lose it.
                self.counters.count("dropped", "udp_unsendable")
                done += 1
                continue
            for i in range(sent):
                self.datagrams_out += 1
                self.bytes_out += <uint64_t>waiting[done + i].size
            done += sent
        return self.keep_from(done, total)

    cdef int keep_from(self, Py_ssize_t done, Py_ssize_t total) except -1:
        """Drop the datagrams before `done`, and wait for the socket if any are left."""
        cdef Outgoing* waiting = <Outgoing*>self.outgoing.data
        cdef Py_ssize_t offset, i
        if done == total:
            self.outgoing_bytes.clear(OUTGOING_KEEP)
            self.outgoing.clear(OUTGOING_KEEP)
            if self.writer_added:
                self.writer_added = False
                self.loop.remove_writer(self.fd)
            return 0
        offset = waiting[done].offset
        for i in range(done, total):
            waiting[i].offset -= offset
        self.outgoing_bytes.consume(offset)
        self.outgoing.consume(done * <Py_ssize_t>sizeof(Outgoing))
        if not self.writer_added:
            self.writer_added = True
            self.loop.add_writer(self.fd, self.on_writable)
        return 0
