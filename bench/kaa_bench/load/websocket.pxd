from libc.stdint cimport uint8_t

from kaa_bench.load.loop cimport Connection, Failure
from kaa_bench.load.mqtt cimport MqttLoad

cdef enum:
    HEADER_SIZE_MAX = 4  # bytes of the header of a server's frame with less than 64 KiB


cdef struct Frame:
    # The first bytes of a header, and the bytes of contents that are still to come.
    uint8_t header[HEADER_SIZE_MAX]
    int size
    Py_ssize_t left


cdef class WebSocketLoad(MqttLoad):
    # state
    cdef Frame* frames
