from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Slice

cdef enum:
    PROXY_HEADER_MAX = 4096   # bytes of a header that is accepted; the protocol would allow 64 KiB
    PROXY_ADDRESS_MAX = 28    # bytes of a sockaddr_in6


cdef struct ProxyHeader:
    Py_ssize_t size                       # bytes of the whole header
    unsigned int address_size             # of the sockaddr; 0: the header names none, the proxy speaks for itself
    uint8_t[PROXY_ADDRESS_MAX] address    # the client's sockaddr_in or sockaddr_in6
    bint tls                              # the client speaks TLS to the proxy
    bint verified                         # it has shown a certificate there, which the proxy has verified
    # Borrowed from the header; NULL if it has none.
    Slice authority                       # the host name that the client asked for: SNI
    Slice common_name                     # of the client's certificate


# The result of read_proxy_header.
cdef enum ProxyFormat:
    PROXY_INCOMPLETE
    PROXY_WELL_FORMED
    PROXY_MISSING             # these bytes begin no header
    PROXY_MALFORMED


cdef ProxyFormat read_proxy_header(
    const uint8_t* data, Py_ssize_t size, bint datagram, ProxyHeader* header
) noexcept nogil
