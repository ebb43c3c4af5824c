from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.uplink cimport Message
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.mqtt_properties cimport Properties


cdef int check_properties(const Properties* properties, Slice payload) except -1
cdef int apply_properties(const Properties* properties, Message* message, Counters counters) except -1
