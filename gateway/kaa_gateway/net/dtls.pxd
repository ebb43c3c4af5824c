from libc.stdint cimport uint8_t

from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport DatagramCore, UdpSocket


cdef class DtlsSession:
    # wiring
    cdef object connection           # OpenSSL.SSL.Connection
    cdef object context              # the DtlsContext that it began with
    cdef Address address
    cdef bytes key
    cdef bytes client_random         # of its ClientHello
    cdef bytes sent_identity         # the identity of a pre-shared key that it has sent in its handshake; or empty
    cdef object psk_identity         # that identity as text, once its key was found
    cdef Py_ssize_t message_size     # bytes that a message to it may have
    # state
    cdef double begun                # loop time at which the handshake began, seconds
    cdef double last_received        # loop time, to within LAST_RECEIVED_RESOLUTION
    cdef double retransmit_at        # loop time, or 0
    cdef bint ended
    cdef object client               # what `authenticate` has returned, once the client is admitted
    cdef list waiting                # messages that wait for that; None from then on


cdef class DtlsSocket(UdpSocket):
    # wiring
    cdef object credentials
    cdef object authenticate
    cdef object failures             # HandshakeLog
    # settings
    cdef double handshake_timeout    # seconds
    cdef double session_timeout      # seconds
    cdef Py_ssize_t handshakes_max
    cdef Py_ssize_t sessions_max
    # state
    cdef DtlsSession listening       # takes ClientHellos until one of them has a good cookie
    cdef object handshakes           # OrderedDict of address -> DtlsSession, the oldest first
    cdef object sessions             # OrderedDict of address -> DtlsSession, about the longest silent first

    cdef int expire(self, double now) except -1
    cdef int on_client_hello(self, bytes datagram, const Address* source, bytes key) except -1
    cdef int continue_handshake(self, DtlsSession session, bytes datagram) except -1
    cdef int complete_handshake(self, DtlsSession session) except -1
    cdef int retransmit(self, DtlsSession session, double now) except -1
    cdef int fail_handshake(self, DtlsSession session, str reason, str detail) except -1
    cdef int admit(self, DtlsSession session, client) except -1
    cdef int refuse(self, DtlsSession session, error) except -1
    cdef int read_messages(self, DtlsSession session) except -1
    cdef int deliver(self, DtlsSession session, bytes message) except -1
    cdef int write_records(self, DtlsSession session) except -1
    cdef int close_session(self, DtlsSession session, bint notify_client) except -1
