from libc.stdint cimport uint8_t

from kaa_gateway.coap.server cimport CoapServer
from kaa_gateway.net.udp cimport Address, DatagramCore, UdpSocket


cdef class DtlsSession:
    # wiring
    cdef object connection           # OpenSSL.SSL.Connection
    cdef object context              # the DtlsContext that it began with
    cdef Address address
    cdef bytes key
    # state
    cdef double begun                # loop time of the handshake's beginning
    cdef double heard                # loop time, roughly
    cdef double retransmit_at        # loop time, or 0
    cdef bint ended
    cdef object client               # a kaa_gateway.identity.clients.Client, once it is admitted
    cdef list waiting                # messages that wait until it is


cdef class DtlsCore(DatagramCore):
    # What the plain socket has for a core: records, which are the DtlsSocket's.
    pass


cdef class DtlsSocket(UdpSocket):
    # wiring
    cdef CoapServer coap
    cdef object credentials
    cdef object authenticator
    cdef object failures             # HandshakeLog
    # settings
    cdef double handshake_timeout    # seconds
    cdef double session_timeout      # seconds
    cdef Py_ssize_t handshakes_max
    cdef Py_ssize_t sessions_max
    # state
    cdef DtlsSession spare           # takes ClientHellos until one of them has a good cookie
    cdef object handshakes           # OrderedDict of address -> DtlsSession, the oldest first
    cdef object sessions             # OrderedDict of address -> DtlsSession, about the longest silent first

    cdef int on_record(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1
    cdef int on_check(self, double now) except -1
    cdef int listen(self, bytes datagram, const Address* source, bytes key) except -1
    cdef int shake_hands(self, DtlsSession session) except -1
    cdef int establish(self, DtlsSession session) except -1
    cdef int authenticate(self, DtlsSession session, certificate) except -1
    cdef int turn_away(self, DtlsSession session, error) except -1
    cdef int admit(self, DtlsSession session, client) except -1
    cdef int read(self, DtlsSession session) except -1
    cdef int deliver(self, DtlsSession session, bytes message) except -1
    cdef int repeat(self, DtlsSession session, double now) except -1
    cdef int fail(self, DtlsSession session, str reason, str detail) except -1
    cdef int close_session(self, DtlsSession session, bint polite) except -1
    cdef int write_records(self, DtlsSession session) except -1
