"""Which proxies are trusted to tell, by a header of the PROXY protocol, for which client they speak.

What lives here: the trusted networks, and what a header says beside the address. What does not: the header's format
(`kaa_gateway.wire.proxy_header`), and reading it (proxy_connection.pyx for TCP, udp.pyx for datagrams).
"""

import ipaddress
from typing import NamedTuple

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset

from kaa_gateway.net.admission cimport address_text
from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    ADDRESS_SIZE = 16
    # offsets of the address in a sockaddr_in and a sockaddr_in6
    IPV4_OFFSET = 4
    IPV6_OFFSET = 8
    IPV4_SIZE = 4
    SOCKADDR_IN_SIZE = 16
    SOCKADDR_IN6_SIZE = 28
    MAPPED_BITS = 96              # before an IPv4 address in an IPv6 one (RFC 4291 section 2.5.5.2)

cdef bytes MAPPED = bytes(10) + b"\xff\xff"


cdef struct Network:
    # An IPv4 network stands as its mapped IPv6 one.
    uint8_t[ADDRESS_SIZE] address
    int bits


class Proxied(NamedTuple):
    """What a trusted proxy has told about a connection, beside the client's address."""

    tls: bool                 # the client speaks TLS to the proxy
    server_name: str | None   # the host name that the client asked for
    common_name: str | None   # of the client's certificate, if the proxy has verified one


cdef str text_of(Slice value):
    """Return printable text, or None: what is not printable is no name."""
    if value.data == NULL:
        return None
    try:
        text = value.data[:value.size].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


cdef object proxied_of(const ProxyHeader* header):
    """Return what a header says beside the address, or None if that is nothing."""
    if not header.tls and header.authority.data == NULL:
        return None
    return Proxied(
        bool(header.tls), text_of(header.authority), text_of(header.common_name) if header.verified else None
    )


cdef dict describe_peer(bytes address, proxied):
    """Return what an operator may see of the peer at a sockaddr, as JSON values."""
    described = {"peer": address_text(address) if len(address) >= SOCKADDR_IN_SIZE else None}
    if proxied is not None:
        described["proxied"] = {
            "tls": proxied.tls, "serverName": proxied.server_name, "commonName": proxied.common_name,
        }
    return described


cdef class ProxyProtocol:
    """The settings of the PROXY protocol. `networks` are CIDRs; a header from them is required and believed."""

    def __init__(self, networks, *, bint refuses_others, double header_timeout):
        cdef Network network
        self.refuses_others = refuses_others
        self.header_timeout = header_timeout
        self.networks = Buffer()
        for each in map(ipaddress.ip_network, networks):
            packed = each.network_address.packed
            network.bits = each.prefixlen
            if each.version == 4:
                packed = MAPPED + packed
                network.bits += MAPPED_BITS
            memcpy(network.address, <const uint8_t*><bytes>packed, ADDRESS_SIZE)
            self.networks.append(&network, sizeof(Network))

    def trusts_address(self, bytes address not None):
        """Return whether a sockaddr is that of a trusted proxy."""
        return self.trusts(address, len(address))

    cdef bint trusts(self, const uint8_t* address, Py_ssize_t size) noexcept:
        """Return whether a sockaddr is that of a trusted proxy."""
        cdef const Network* networks = <const Network*>self.networks.data
        cdef Py_ssize_t i, whole
        cdef int rest
        cdef uint8_t[ADDRESS_SIZE] packed
        if size >= SOCKADDR_IN6_SIZE:
            memcpy(packed, address + IPV6_OFFSET, ADDRESS_SIZE)
        elif size >= SOCKADDR_IN_SIZE:
            memset(packed, 0, 10)
            memset(packed + 10, 0xFF, 2)
            memcpy(packed + 12, address + IPV4_OFFSET, IPV4_SIZE)
        else:
            return False
        for i in range(self.networks.size // <Py_ssize_t>sizeof(Network)):
            whole = networks[i].bits // 8
            rest = networks[i].bits % 8
            if memcmp(packed, networks[i].address, <size_t>whole) == 0 and (
                    rest == 0 or (packed[whole] ^ networks[i].address[whole]) >> (8 - rest) == 0):
                return True
        return False
