from libc.stdint cimport uint16_t, uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.wire.buffer cimport Slice


cdef class AwaitedResponse:
    # A request whose answer goes to a topic of the client's choice.
    cdef bytes topic
    cdef bytes correlation_data   # or None
    cdef uint16_t packet_id       # of the request; 0 for QoS 0


cdef class ResponseTopics:
    # state
    cdef dict awaited             # number -> AwaitedResponse, the oldest first
    cdef uint32_t last_number
    cdef Py_ssize_t bytes         # that they take, roughly

    cdef uint32_t add(self, Slice topic, Slice correlation_data, uint16_t packet_id) except? 0xFFFFFFFF
    cdef int put(self, uint32_t number, bytes topic, bytes correlation_data) except -1
    cdef AwaitedResponse take(self, uint32_t number)
    cdef int forget(self, AwaitedResponse response) except -1
    cdef int limit(self, Py_ssize_t count_max, Py_ssize_t bytes_max, Counters counters) except -1
