"""An epoll set that is itself watched by the event loop: one callback for all of its sockets that are ready.

A loop's own way costs a transport and a handle for each socket, and a call of Python for each that is ready. What
a socket that is ready wants is its owner's.

Source: epoll(7), epoll_ctl(2).
"""

import os

from libc.errno cimport errno

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int events_max, int timeout)
    cdef enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD


cdef int failed() except -1:
    raise OSError(errno, os.strerror(errno))


cdef class EpollSet:
    """`on_ready` is called once in each pass of the loop in which some of the sockets are ready.

    A socket that is closed leaves the set by itself.
    """

    def __init__(self, loop, on_ready):
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            failed()
        self.loop = loop
        loop.add_reader(self.fd, on_ready)

    cdef int change(self, int fd, uint32_t before, uint32_t wanted) except -1:
        """Wait for other events of a socket than before; none takes it out, so that its end is not told either."""
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_MOD
        if before == 0:
            operation = EPOLL_CTL_ADD
        elif wanted == 0:
            operation = EPOLL_CTL_DEL
        event.events = wanted
        event.data.fd = fd
        return failed() if epoll_ctl(self.fd, operation, fd, &event) < 0 else 0

    cdef int wait(self, epoll_event* events, int events_max) noexcept:
        """What is ready now, without waiting: how many events. Hot path."""
        return epoll_wait(self.fd, events, events_max, 0)

    def close(self):
        """Watch nothing any more."""
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
