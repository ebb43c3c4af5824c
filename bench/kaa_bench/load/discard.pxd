from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    TAIL_SIZE = 4096       # bytes of an incomplete message
    OUT_SIZE = 1 << 18     # bytes of the answers to one read


cdef enum Protocol:
    MQTT
    HTTP
    COAP
    KPUDP
    MQTT_SN


cdef struct Peer:
    int fd
    Py_ssize_t tail_size
    uint8_t tail[TAIL_SIZE]


cdef class DiscardServer:
    # wiring
    cdef object socket
    cdef int fd
    cdef int epoll
    cdef Protocol protocol
    cdef uint8_t* received
    cdef uint8_t* out

    # state
    cdef Py_ssize_t out_size

    # counters
    cdef readonly long messages

    cdef int accept_peer(self) except -1
    cdef bint read_stream(self, Peer* peer) noexcept nogil
    cdef Py_ssize_t take_mqtt(self, const uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef Py_ssize_t take_http(self, const uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef void put(self, const void* data, Py_ssize_t size) noexcept nogil
    cdef bint write(self, int fd) noexcept nogil
    cdef int read_datagrams(self) except -1 nogil
    cdef void take_coap(self, const uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef void take_mqtt_sn(self, const uint8_t* data, Py_ssize_t size) noexcept nogil
    cdef void take_kpudp(self, const uint8_t* data, Py_ssize_t size, bint joined) noexcept nogil
