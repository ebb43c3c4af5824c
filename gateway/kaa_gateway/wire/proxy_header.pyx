"""The header of the PROXY protocol, versions 1 and 2: a proxy tells for which client it has made a connection.

Version 1 is a line of text, version 2 is binary and may carry more: the name that the client asked for in TLS, and the
common name of its certificate. Unknown types of such fields are passed over.

Source: "The PROXY protocol, versions 1 & 2" of HAProxy, whose sections the comments cite.
"""

from typing import NamedTuple

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset

from kaa_gateway.errors import ProtocolError

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)
    int AF_INET
    int AF_INET6

cdef enum:
    # Version 1 (section 2.1), in bytes
    LINE_MAX = 107              # with CRLF
    PREFIX_SIZE = 6
    TEXT_ADDRESS_MAX = 46       # of an IPv6 address, with the final zero
    # Version 2 (section 2.2), in bytes
    SIGNATURE_SIZE = 12
    HEAD_SIZE = 16
    IPV4_SIZE = 4
    IPV4_ADDRESSES = 12         # two addresses and two ports
    IPV6_SIZE = 16
    IPV6_ADDRESSES = 36
    UNIX_ADDRESSES = 216
    # Version and command
    LOCAL = 0x20
    PROXY = 0x21
    # Address family, and whether the client uses streams or datagrams
    UNSPECIFIED = 0x00
    STREAM = 0x01
    DATAGRAM = 0x02
    INET = 0x10
    INET6 = 0x20
    UNIX = 0x30
    # Types of further fields (section 2.2.1 to 2.2.6)
    FIELD_HEAD_SIZE = 3
    AUTHORITY = 0x02
    CHECKSUM = 0x03
    CHECKSUM_SIZE = 4
    TLS = 0x20
    TLS_HEAD_SIZE = 5
    TLS_USED = 0x01             # bits of the first byte of a TLS field
    TLS_CERTIFICATE = 0x06      # in this connection, or in the session that it resumes
    TLS_COMMON_NAME = 0x22
    # Offsets in a sockaddr_in and a sockaddr_in6
    PORT_OFFSET = 2
    IPV4_OFFSET = 4
    IPV6_OFFSET = 8
    SOCKADDR_IN_SIZE = 16
    SOCKADDR_IN6_SIZE = 28

cdef uint32_t CRC_32C = 0x82F63B78  # the polynomial, its lowest bit first

FORMAT_REASONS = ("", "", "proxy_missing_header", "proxy_malformed_header")  # by ProxyFormat

cdef const char* PREFIX = b"PROXY "
cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Header(NamedTuple):
    """A header as Python sees it, for tests."""

    size: int
    address: bytes   # the client's sockaddr; empty if the header names none
    tls: bool
    verified: bool
    authority: bytes | None
    common_name: bytes | None


cdef inline uint16_t get_16(const uint8_t* at) noexcept nogil:
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline uint32_t get_32(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef void set_address(ProxyHeader* header, int family, const uint8_t* address, const uint8_t* port) noexcept nogil:
    """Make the sockaddr of an address and a port in network order."""
    cdef bint four = family == AF_INET
    cdef uint16_t family_of_16_bits = <uint16_t>family
    header.address_size = SOCKADDR_IN_SIZE if four else SOCKADDR_IN6_SIZE
    memcpy(header.address, &family_of_16_bits, 2)
    memcpy(header.address + PORT_OFFSET, port, 2)
    memcpy(header.address + (IPV4_OFFSET if four else IPV6_OFFSET), address, IPV4_SIZE if four else IPV6_SIZE)


cdef ProxyFormat read_proxy_header(
    const uint8_t* data, Py_ssize_t size, bint datagram, ProxyHeader* header
) noexcept nogil:
    """Read a header at the front of a stream, or of a datagram, where it must be whole and of version 2."""
    memset(header, 0, sizeof(ProxyHeader))
    if memcmp(data, SIGNATURE, <size_t>min(size, SIGNATURE_SIZE)) == 0:
        return read_binary(data, size, datagram, header)
    if not datagram and memcmp(data, PREFIX, <size_t>min(size, PREFIX_SIZE)) == 0:
        return read_line(data, size, header)
    return PROXY_MISSING


# ------------------------------------------------------------ version 1

cdef ProxyFormat read_line(const uint8_t* data, Py_ssize_t size, ProxyHeader* header) noexcept nogil:
    """Read a line (section 2.1)."""
    cdef const uint8_t* at = data + PREFIX_SIZE
    cdef const uint8_t* end = <const uint8_t*>memchr(data, 10, <size_t>min(size, LINE_MAX))
    cdef uint8_t[IPV6_SIZE] source
    cdef uint8_t[IPV6_SIZE] destination
    cdef uint8_t[2] source_port
    cdef uint8_t[2] destination_port
    cdef int family
    if end == NULL:
        return PROXY_INCOMPLETE if size < LINE_MAX else PROXY_MALFORMED
    header.size = end + 1 - data
    end -= 1
    if end < at or end[0] != 13:
        return PROXY_MALFORMED
    if end - at >= 7 and memcmp(at, <const char*>b"UNKNOWN", 7) == 0:
        return PROXY_WELL_FORMED if end - at == 7 or at[7] == 32 else PROXY_MALFORMED
    if end - at < 5 or memcmp(at, <const char*>b"TCP", 3) != 0 or at[4] != 32:
        return PROXY_MALFORMED
    if at[3] == 52:
        family = AF_INET
    elif at[3] == 54:
        family = AF_INET6
    else:
        return PROXY_MALFORMED
    at += 5
    if not take_address(&at, end, family, source) or not take_address(&at, end, family, destination):
        return PROXY_MALFORMED
    if not take_port(&at, end, 32, source_port) or not take_port(&at, end, 13, destination_port):
        return PROXY_MALFORMED
    set_address(header, family, source, source_port)
    return PROXY_WELL_FORMED


cdef bint take_address(const uint8_t** at, const uint8_t* end, int family, uint8_t* address) noexcept nogil:
    """Take an address in text and the space behind it."""
    cdef char[TEXT_ADDRESS_MAX] text
    cdef const uint8_t* space = <const uint8_t*>memchr(at[0], 32, <size_t>(end - at[0]))
    cdef Py_ssize_t size
    if space == NULL:
        return False
    size = space - at[0]
    if size == 0 or size >= TEXT_ADDRESS_MAX or memchr(at[0], 0, <size_t>size) != NULL:
        return False
    memcpy(text, at[0], <size_t>size)
    text[size] = 0
    at[0] = space + 1
    return inet_pton(family, text, address) == 1


cdef bint take_port(const uint8_t** at, const uint8_t* end, uint8_t behind, uint8_t* port) noexcept nogil:
    """Take a port in decimal, without leading zeros, and the byte behind it, which may be the one at `end`."""
    cdef const uint8_t* begin = at[0]
    cdef int number = 0
    while at[0] < end and 48 <= at[0][0] <= 57 and at[0] - begin < 5:
        number = number * 10 + at[0][0] - 48
        at[0] += 1
    if at[0] == begin or number > 0xFFFF or (begin[0] == 48 and at[0] - begin > 1):
        return False
    if at[0][0] != behind or (behind == 13 and at[0] != end):
        return False
    at[0] += 1
    port[0] = <uint8_t>(number >> 8)
    port[1] = <uint8_t>(number & 0xFF)
    return True


# ------------------------------------------------------------ version 2

cdef ProxyFormat read_binary(const uint8_t* data, Py_ssize_t size, bint datagram, ProxyHeader* header) noexcept nogil:
    """Read a binary header (section 2.2)."""
    cdef Py_ssize_t end, addresses = 0
    cdef uint8_t family, expected = DATAGRAM if datagram else STREAM
    if size > SIGNATURE_SIZE and data[SIGNATURE_SIZE] not in (LOCAL, PROXY):
        return PROXY_MALFORMED
    if size < HEAD_SIZE:
        return PROXY_MALFORMED if datagram else PROXY_INCOMPLETE
    end = HEAD_SIZE + get_16(data + 14)
    if end > PROXY_HEADER_MAX:
        return PROXY_MALFORMED
    if size < end:
        return PROXY_MALFORMED if datagram else PROXY_INCOMPLETE
    header.size = end
    if data[SIGNATURE_SIZE] == LOCAL:
        return PROXY_WELL_FORMED  # what follows is to be passed over
    family = data[13]
    if family == INET | expected:
        addresses = IPV4_ADDRESSES
    elif family == INET6 | expected:
        addresses = IPV6_ADDRESSES
    elif family == UNIX | expected:
        addresses = UNIX_ADDRESSES
    elif family != UNSPECIFIED:
        return PROXY_MALFORMED
    if HEAD_SIZE + addresses > end:
        return PROXY_MALFORMED
    if addresses == IPV4_ADDRESSES:
        set_address(header, AF_INET, data + HEAD_SIZE, data + HEAD_SIZE + 2 * IPV4_SIZE)
    elif addresses == IPV6_ADDRESSES:
        set_address(header, AF_INET6, data + HEAD_SIZE, data + HEAD_SIZE + 2 * IPV6_SIZE)
    return read_fields(data, HEAD_SIZE + addresses, end, header)


cdef ProxyFormat read_fields(const uint8_t* data, Py_ssize_t at, Py_ssize_t end, ProxyHeader* header) noexcept nogil:
    """Read the fields behind the addresses (section 2.2.1)."""
    cdef uint8_t kind
    cdef Py_ssize_t size
    while at < end:
        if at + FIELD_HEAD_SIZE > end:
            return PROXY_MALFORMED
        kind = data[at]
        size = get_16(data + at + 1)
        at += FIELD_HEAD_SIZE
        if at + size > end:
            return PROXY_MALFORMED
        if kind == AUTHORITY:
            header.authority = Slice(data + at, size)
        elif kind == CHECKSUM and (size != CHECKSUM_SIZE or checksum_of(data, end, at) != get_32(data + at)):
            return PROXY_MALFORMED
        elif kind == TLS and not read_tls(data + at, size, header):
            return PROXY_MALFORMED
        at += size
    return PROXY_WELL_FORMED


cdef bint read_tls(const uint8_t* data, Py_ssize_t size, ProxyHeader* header) noexcept nogil:
    """Read the field about TLS between client and proxy, which has fields of its own (section 2.2.6)."""
    cdef Py_ssize_t at = TLS_HEAD_SIZE, field_size
    cdef uint8_t kind
    if size < TLS_HEAD_SIZE:
        return False
    header.tls = (data[0] & TLS_USED) != 0
    header.verified = (data[0] & TLS_CERTIFICATE) != 0 and get_32(data + 1) == 0
    while at < size:
        if at + FIELD_HEAD_SIZE > size:
            return False
        kind = data[at]
        field_size = get_16(data + at + 1)
        at += FIELD_HEAD_SIZE
        if at + field_size > size:
            return False
        if kind == TLS_COMMON_NAME:
            header.common_name = Slice(data + at, field_size)
        at += field_size
    return True


cdef uint32_t checksum_of(const uint8_t* data, Py_ssize_t size, Py_ssize_t own) noexcept nogil:
    """Return the CRC-32C of a header, whose own four bytes at `own` count as 0 (section 2.2.3, RFC 4960 appendix B)."""
    cdef uint32_t crc = <uint32_t>0xFFFFFFFF
    cdef Py_ssize_t i
    cdef int _
    for i in range(size):
        if i < own or i >= own + CHECKSUM_SIZE:
            crc ^= data[i]
        for _ in range(8):
            crc = (crc >> 1) ^ (CRC_32C & (~(crc & 1) + 1))
    return ~crc


def decode_proxy_header(const uint8_t[::1] data not None, *, bint datagram=False):
    """Return the header that the bytes begin with, or None if it is incomplete. Raises ProtocolError."""
    cdef ProxyHeader header
    cdef const uint8_t* at = &data[0] if len(data) else <const uint8_t*>b""
    cdef ProxyFormat form = read_proxy_header(at, len(data), datagram, &header)
    if form == PROXY_INCOMPLETE:
        return None
    if form != PROXY_WELL_FORMED:
        raise ProtocolError(FORMAT_REASONS[<int>form])
    return Header(
        header.size, header.address[:header.address_size], bool(header.tls), bool(header.verified),
        None if header.authority.data == NULL else header.authority.data[:header.authority.size],
        None if header.common_name.data == NULL else header.common_name.data[:header.common_name.size],
    )
