from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.proxy_header cimport ProxyHeader


cdef class ProxyProtocol:
    # settings
    cdef bint refuses_others         # connections from sources that are not trusted are closed
    cdef double header_timeout       # seconds
    cdef Buffer networks             # a Network for each trusted one

    cdef bint trusts(self, const uint8_t* address, Py_ssize_t size) noexcept


cdef object proxied_of(const ProxyHeader* header)
cdef dict describe_peer(bytes address, proxied)
