cimport cython
from libc.stdint cimport uint32_t

from kaa_gateway.kp.correlation cimport SEQUENCE_MASK
from kaa_gateway.wire.buffer cimport Buffer


cdef class Pipeline:
    # state: the open requests are numbered from `first` on
    cdef uint32_t first
    cdef uint32_t count
    cdef dict early              # number -> response, of those answered before their turn; None if there are none
    cdef dict cors               # number -> header fields for the page that has sent it; None if no page has

    @cython.final
    cdef inline uint32_t open(self) noexcept:
        # Return the number of a new request. Hot path.
        self.count += 1
        return (self.first + self.count - 1) & SEQUENCE_MASK

    @cython.final
    cdef inline bint is_open(self, uint32_t number) except -1:
        # Return whether the request of this number waits for its response. Hot path.
        return ((number - self.first) & SEQUENCE_MASK) < self.count and (
            self.early is None or number not in self.early
        )

    @cython.final
    cdef inline bint is_last(self, uint32_t number) noexcept:
        # Return whether an open request is the newest. Hot path.
        return number == (self.first + self.count - 1) & SEQUENCE_MASK

    @cython.final
    cdef inline bytes take_cors(self, uint32_t number):
        # Return and forget the header fields for the page that has sent a request; None if no page has. Hot path.
        return None if self.cors is None else self.cors.pop(number, None)

    cdef int keep_cors(self, uint32_t number, bytes fields) except -1
    cdef int keep_response(self, uint32_t number, bytes response) except -1
    cdef int complete_first(self, Buffer output) except -1
    cdef int clear(self) except -1
