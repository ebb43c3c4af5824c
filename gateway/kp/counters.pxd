from libc.stdint cimport uint64_t


cdef enum Protocol:
    MQTT = 0
    HTTP = 1
    COAP = 2
    KPUDP = 3
    PROTOCOL_COUNT = 4


cdef class Counters:
    # counters, by protocol
    cdef uint64_t[PROTOCOL_COUNT] messages_in
    cdef uint64_t[PROTOCOL_COUNT] bytes_in        # of payload
    cdef uint64_t[PROTOCOL_COUNT] messages_out
    cdef uint64_t[PROTOCOL_COUNT] bytes_out       # of payload
    cdef uint64_t[PROTOCOL_COUNT] connections_opened
    cdef uint64_t[PROTOCOL_COUNT] connections_closed
    cdef dict reasons  # (event, reason) -> count, of what is rare

    cdef int count(self, str event, str reason) except -1
