from libc.stdint cimport int64_t, uint8_t, uint32_t

from kaa_bench.load.histogram cimport Histogram

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLLOUT


# Why a connection was closed. The names of FAILURES in loop.pyx follow this order.
cdef enum Failure:
    NONE = 0
    CLOSED_BY_PEER
    SOCKET_ERROR
    UNEXPECTED_PACKET
    WRONG_IDENTIFIER
    MALFORMED_RESPONSE
    IDENTIFIERS_USED_UP
    FAILURE_COUNT


cdef struct Connection:
    int fd                    # borrowed from the socket object; -1 once given up
    int index
    uint32_t interest         # what epoll watches
    bint working              # not yet done in this run
    uint8_t* ring             # `window` copies of the message; message n lies in slot n % window
    int64_t issued            # messages put into the ring in this run
    int64_t acknowledged      # of those


cdef class Load:
    # wiring
    cdef list sockets
    cdef Connection* connections
    cdef int count
    cdef int epoll
    cdef uint8_t* rings

    # what is sent
    cdef Py_ssize_t message_size
    cdef int window
    cdef bint unacknowledged  # messages are never acknowledged

    # state of a run
    cdef int64_t at           # the time, in ns, when the last sockets became ready
    cdef int64_t remaining    # messages that may still be issued
    cdef int working          # connections that are not yet done
    cdef int64_t started      # ns
    cdef double period        # ns between two messages of all connections together; 0: as fast as windows allow
    cdef int64_t planned      # messages of a paced run
    cdef int64_t due          # of those, how many should have been sent by now
    cdef int64_t moved        # bytes in and out; does not change when the run has stalled

    # counters of a run
    cdef int64_t failures[FAILURE_COUNT]
    cdef int64_t retransmitted
    cdef int64_t late         # messages of a paced run that the generator sent too late
    cdef int64_t held         # messages of a paced run that had to wait for the window
    cdef Histogram latency    # ns from when a message should have been sent to its answer; of paced runs

    # implemented by streams and datagrams
    cdef void begin(self, Connection* connection) noexcept nogil
    cdef void ready(self, Connection* connection, uint32_t events) noexcept nogil
    cdef void fill(self, Connection* connection) noexcept nogil
    cdef void tick(self) noexcept nogil
    cdef int64_t written(self, Connection* connection) noexcept nogil

    # implemented by protocols
    cdef dict refusals(self)

    cdef int64_t allowed(self, Connection* connection, int64_t outstanding) noexcept nogil
    cdef void timed(self, Connection* connection, int64_t number) noexcept nogil
    cdef int64_t intended(self, int64_t number) noexcept nogil
    cdef void issue_due(self) noexcept nogil
    cdef int64_t wait_time(self) noexcept nogil
    cdef void drive(self, int64_t deadline, int64_t stall_time) noexcept nogil
    cdef void finish(self, Connection* connection) noexcept nogil
    cdef void give_up(self, Connection* connection, Failure failure) noexcept nogil
    cdef void watch(self, Connection* connection, uint32_t interest) noexcept nogil
