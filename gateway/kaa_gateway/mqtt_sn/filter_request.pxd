from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.mqtt_sn.topics cimport ClientTopics
from kaa_gateway.wire.mqtt_sn cimport SnMessage


cdef class FilterRequest:
    cdef uint8_t return_code     # RC_ACCEPTED, or why it is refused
    cdef bytes topic_filter
    cdef uint16_t topic_id       # that SUBACK tells; 0: none


cdef FilterRequest read_filter_request(const SnMessage* message, ClientTopics topics, Counters counters)
