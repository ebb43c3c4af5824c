"""An epoll set that the event loop watches as one descriptor: one callback for all of its sockets that are ready.

A transport of asyncio costs two objects for each socket, and a call of Python for each socket that is ready.

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


cdef int raise_errno() except -1:
    """Raise the OSError of the last system call."""
    raise OSError(errno, os.strerror(errno))


cdef class EpollSet:
    """A set of sockets whose events are waited for.

    `on_ready` is called once in each pass of the loop in which some of the sockets are ready. A closed socket leaves
    the set by itself.
    """

    def __init__(self, loop, on_ready):
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise_errno()
        self.loop = loop
        loop.add_reader(self.fd, on_ready)

    cdef int change(self, int fd, uint32_t before, uint32_t wanted) except -1:
        """Wait for the events `wanted` of a socket instead of `before`. With 0, not even its end is reported."""
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_MOD
        if before == 0:
            operation = EPOLL_CTL_ADD
        elif wanted == 0:
            operation = EPOLL_CTL_DEL
        event.events = wanted
        event.data.fd = fd
        return raise_errno() if epoll_ctl(self.fd, operation, fd, &event) < 0 else 0

    cdef int wait(self, epoll_event* events, int events_max) noexcept:
        """Fill `events` with what is ready now, and return how many there are. Never waits. Hot path."""
        return epoll_wait(self.fd, events, events_max, 0)

    def close(self):
        """Stop watching, and close the set."""
        if self.fd >= 0:
            self.loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
