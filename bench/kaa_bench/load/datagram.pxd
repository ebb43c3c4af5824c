from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from kaa_bench.load.loop cimport Connection, Failure, Load
from kaa_gateway.wire.aead cimport KEY_SIZE, NONCE_SIZE
from kaa_gateway.wire.coap cimport MessageView
from kaa_gateway.wire.kpudp cimport Frame

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

cdef enum:
    BATCH = 64             # datagrams a system call, at most
    CODES = 256            # of CoAP
    REASON_MAX = 599       # of a RESET of KP/UDP
    DATAGRAM_SIZE = 2048   # bytes of a received datagram, at most


# The state of a message of the window.
cdef enum State:
    ANSWERED = 0
    SENT
    TAKEN    # the server has it and will answer later, so it is not sent again


# The results of `find` other than the number of a message.
cdef enum:
    LATE = -1      # an answer to a message that has been answered
    UNKNOWN = -2   # an answer to a message that was never sent


cdef struct Window:
    # Messages of a connection by number, counted over all runs; [oldest, next) are in the window. A message ID is the
    # number modulo 65536.
    int64_t oldest    # the first that is not answered
    int64_t next      # the first that is not issued
    int64_t unsent    # of those issued, how many the socket has not taken yet
    int64_t last_received  # ns; time of the last datagram from the server, or of the last retransmission
    uint8_t* states   # of message n at n % window


cdef class DatagramLoad(Load):
    # wiring
    cdef Window* windows          # by the index of the connection
    cdef uint8_t* states
    cdef uint8_t* received_bytes
    cdef mmsghdr[BATCH] received
    cdef iovec[BATCH] received_at
    cdef int64_t silence          # ns
    cdef int64_t numbers          # messages of a connection before an ID would be used twice

    # state
    cdef int64_t checked_at       # ns; the time of the last check for silent connections

    # implemented by protocols
    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil
    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil

    cdef uint8_t* message(self, Connection* connection, int64_t number) noexcept nogil
    cdef int64_t find(self, Connection* connection, uint16_t identifier) noexcept nogil
    cdef uint8_t* state(self, Connection* connection, int64_t number) noexcept nogil
    cdef void close_message(self, Connection* connection, int64_t number) noexcept nogil
    cdef void send_unsent(self, Connection* connection) noexcept nogil
    cdef void send_again(self, Connection* connection) noexcept nogil


cdef class CoapLoad(DatagramLoad):
    # counters of a run
    cdef int64_t refused[CODES]  # responses by code
    cdef int64_t reset

    cdef Failure answered(self, Connection* connection, int64_t number, const MessageView* view) noexcept nogil


cdef class MqttSnLoad(DatagramLoad):
    # what is sent
    cdef Py_ssize_t id_offset    # of the message ID

    # counters of a run
    cdef int64_t refused[CODES]  # PUBACKs by return code
    cdef int64_t error_responses  # the gateway tells the topic of an error; it is not answered, so it comes again


cdef class KpUdpLoad(DatagramLoad):
    # what is sent
    cdef uint8_t epoch

    # counters of a run
    cdef int64_t resets[REASON_MAX + 1]  # by reason

    cdef Failure take_frames(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef void pong(self, Connection* connection, const Frame* frame) noexcept nogil


cdef struct Sealing:
    # The session of a device.
    uint64_t connection_id
    uint32_t sent                # the next counter
    uint8_t[KEY_SIZE] key
    uint8_t[NONCE_SIZE] iv
    uint8_t[KEY_SIZE] server_key
    uint8_t[NONCE_SIZE] server_iv


cdef class SealedKpUdpLoad(KpUdpLoad):
    # what is sent
    cdef Sealing* sessions       # by the index of the connection
    cdef uint8_t[DATAGRAM_SIZE] frames   # of each message
