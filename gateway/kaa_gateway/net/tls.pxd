from libc.stdint cimport uint8_t

from kaa_gateway.net.openssl cimport Records
from kaa_gateway.net.tcp_connection cimport TcpConnection
from kaa_gateway.net.tcp_listener cimport TcpListener
from kaa_gateway.wire.buffer cimport Buffer


cdef class TlsListener(TcpListener):
    # wiring
    cdef object credentials          # ServerCredentials, whose context new connections use
    cdef object failures             # HandshakeLog
    # settings
    cdef double handshake_timeout    # seconds
    cdef Py_ssize_t handshakes_max
    # state
    cdef object handshakes           # OrderedDict: connection in its handshake -> loop time of its start, in order
    cdef bytearray plain_storage     # decrypted bytes, shared by all connections: emptied before a call ends
    cdef object plain_view
    cdef Records records             # those of established connections


cdef class TlsConnection(TcpConnection):
    # state
    cdef object tls                  # ssl.SSLObject
    cdef object incoming             # ssl.MemoryBIO, while the objects of `ssl` are used
    cdef object outgoing             # the same
    cdef void* native                # the SSL structure in `tls`, when it is used without them; or NULL
    cdef bint established            # the handshake is complete
    cdef bint received_any

    cdef int shake_hands(self) except -1
    cdef int decrypt_records(self, Py_ssize_t received) except -1
    cdef int give_to_core(self, const uint8_t* plain, Py_ssize_t size) except -1
    cdef int on_broken(self, str detail) except -1
    cdef int decrypt(self) except -1
    cdef int adopt(self) except -1
    cdef int encrypt_records(self, Buffer output) except -1
    cdef int write_records(self) except -1
    cdef int on_close_notify(self) except -1
    cdef int encrypt(self, Buffer output) except -1
    cdef int write_outgoing(self) except -1
    cdef int fail_handshake(self, str reason, str detail) except -1
