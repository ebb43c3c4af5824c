from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from kaa_gateway.mqtt.topic_aliases cimport SentAliases
from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef enum:
    EXPIRY_SIZE = 5           # bytes of a Message Expiry Interval


cdef struct Outgoing:
    # A message to the client. Slices borrow, and end with the call.
    Slice topic
    Slice payload
    Slice properties      # of MQTT 5, encoded, without Message Expiry Interval and Topic Alias
    int64_t deadline      # ms since the epoch; 0 = never
    uint8_t qos
    bint repeats          # more messages of its topic are likely
    PyObject* receipt     # of a push, if its extension wants one, else NULL


cdef bint append_message(
    Buffer out, uint8_t level, uint32_t packet_size_max, SentAliases aliases, const Outgoing* message, uint8_t flags,
    uint16_t packet_id
) except -1
