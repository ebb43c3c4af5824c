from libc.stdint cimport uint8_t

from kaa_gateway.http.refusals cimport Refusal
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.query cimport Query


cdef class RequestTarget:
    # state
    cdef Slice text        # as the client has sent it, borrowed from the head or from `held`
    cdef Slice path        # resource path of 1/KP; borrowed from `text` or `decoded`
    cdef bytes held        # the text, where it stays longer than the head
    cdef Buffer decoded    # the path, where it was percent-encoded
    cdef Query query
    cdef Refusal refusal   # why there is no path, or None

    cdef int clear(self) except -1
    cdef int hold(self) except -1
    cdef int read_path(self, bytes prefix) except -1
    cdef Refusal find_path(self, bytes prefix)
    cdef bint decode_path(self, Slice encoded) except -1
