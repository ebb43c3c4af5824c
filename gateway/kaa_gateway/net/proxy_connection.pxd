from kaa_gateway.net.tcp_connection cimport TcpConnection
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.proxy_header cimport ProxyHeader


cdef class ProxyConnection(TcpConnection):
    # state
    cdef Buffer header      # bytes of the header so far

    cdef int fail(self, str reason) except -1
    cdef int hand_over(self, const ProxyHeader* header, Py_ssize_t rest) except -1
