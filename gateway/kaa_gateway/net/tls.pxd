from kaa_gateway.net.tcp cimport TcpConnection, TcpListener
from kaa_gateway.wire.buffer cimport Buffer


cdef class TlsListener(TcpListener):
    # wiring
    cdef object credentials          # whose context new connections begin with
    cdef object failures             # HandshakeLog
    # settings
    cdef double handshake_timeout    # seconds
    cdef Py_ssize_t handshakes_max
    # state
    cdef dict handshakes             # connections without a finished handshake -> loop time of their beginning
    cdef bytearray plain_storage     # decrypted bytes, shared by all connections: emptied before a callback ends
    cdef object plain_view


cdef class TlsConnection(TcpConnection):
    # wiring
    cdef bytes address               # of the peer, a sockaddr
    # state
    cdef object tls                  # ssl.SSLObject
    cdef object incoming             # ssl.MemoryBIO
    cdef object outgoing             # ssl.MemoryBIO
    cdef bint established
    cdef bint spoke                  # something was received

    cdef int shake_hands(self) except -1
    cdef int decrypt(self) except -1
    cdef int fail(self, str reason, str detail) except -1
    cdef int encrypt(self, Buffer output) except -1
    cdef int write_outgoing(self) except -1
