from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef struct ConnectWill:
    Slice topic          # its data is NULL if there is no will
    Slice message
    uint8_t flags        # of WILLTOPIC


cdef int append_connect(
    Buffer packet, Slice client_id, bint clean, uint16_t keep_alive, const ConnectWill* will
) except -1
cdef int append_filter_request(
    Buffer packet, bint subscribes, uint16_t packet_id, Slice topic_filter, uint8_t qos
) except -1
