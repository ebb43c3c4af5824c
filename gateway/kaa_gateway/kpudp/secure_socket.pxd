from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.kpudp.secure_session cimport SecureSession
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport UdpSocket
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.kpudp_secure cimport SecureHeader


cdef class SecureSocket(UdpSocket):
    # wiring
    cdef object credentials          # ServerCredentials, whose context is a dict of keys by identity
    cdef object failures             # HandshakeLog
    # settings
    cdef uint8_t worker
    cdef double session_timeout      # seconds
    cdef Py_ssize_t sessions_max
    # state
    cdef bytes cookie_secret
    cdef bytes unknown_key           # takes the place of the key of an unknown identity
    cdef object keys                 # the dict of keys that the sessions began with
    cdef object sessions             # OrderedDict of connection ID -> SecureSession, about the longest silent first
    cdef dict by_identity            # identity -> SecureSession
    cdef object opened               # OrderedDict of connection ID -> loop time until which it opens no other session
    cdef Buffer plain                # a datagram of version 1: its header, and the decrypted frames
    cdef Buffer sealed               # a datagram on its way out

    cdef int on_sealed(
        self, SecureSession session, const SecureHeader* header, Py_ssize_t size, const Address* source
    ) except -1
    cdef bint begin_generation(self, SecureSession session, const SecureHeader* header) except -1
    cdef int accept(
        self, SecureSession session, const SecureHeader* header, Py_ssize_t size, const Address* source
    ) except -1
    cdef int on_hello(self, const SecureHeader* header, const Address* source) except -1
    cdef int on_open(self, const SecureHeader* header, Py_ssize_t size, const Address* source) except -1
    cdef bytes cookie_of(
        self, const SecureHeader* header, uint64_t connection_id, uint32_t stamp, const Address* source
    )
    cdef int refuse_open(self, const SecureHeader* header, const Address* source, str reason, str detail) except -1
    cdef int send_unknown(self, const SecureHeader* header, const Address* source) except -1
    cdef int send_sealed(self, SecureSession session, uint8_t type, const uint8_t* data, Py_ssize_t size) except -1
    cdef SecureSession session_at(self, const Address* address)
    cdef int close_session(self, SecureSession session, str reason) except -1
    cdef int apply_keys(self) except -1
    cdef int expire(self, double now) except -1
