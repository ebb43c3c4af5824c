from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    cdef enum:
        EPOLLIN
        EPOLLOUT


cdef class EpollSet:
    # wiring
    cdef object loop
    # state
    cdef int fd     # -1 when closed

    cdef int change(self, int fd, uint32_t before, uint32_t wanted) except -1
    cdef int wait(self, epoll_event* events, int events_max) noexcept
