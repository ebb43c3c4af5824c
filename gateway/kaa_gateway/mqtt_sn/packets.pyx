"""The packets of MQTT 3.1.1 that the connection of a client within the gateway is given.

What lives here: those that have no function in `kaa_gateway.wire.mqtt`, because a server does not send them.

Source: MQTT 3.1.1, sections 3.1, 3.8 and 3.10.
"""

from libc.string cimport memcpy

from kaa_gateway.wire cimport mqtt, mqtt_sn as sn
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt_fields cimport put_uint16, put_variable, variable_size

cdef enum:
    FIELD_OVERHEAD = 2        # bytes of the length of a field
    CONNECT_OVERHEAD = 10     # bytes of a CONNECT before its client identifier
    CLEAN_SESSION = 0x02      # flags of a CONNECT
    WILL = 0x04
    WILL_QOS_SHIFT = 3
    WILL_RETAIN = 0x20
    SUBSCRIBE_FLAGS = 2       # of the fixed header


cdef inline uint8_t* put_field(uint8_t* at, Slice field) noexcept nogil:
    """Write a field, with its length."""
    at = put_uint16(at, field.size)
    memcpy(at, field.data, field.size)
    return at + field.size


cdef int append_connect(
    Buffer packet, Slice client_id, bint clean, uint16_t keep_alive, const ConnectWill* will
) except -1:
    """Append a CONNECT."""
    cdef Py_ssize_t size = CONNECT_OVERHEAD + FIELD_OVERHEAD + client_id.size
    cdef uint8_t flags = CLEAN_SESSION if clean else 0
    cdef uint8_t* at
    if will.topic.data != NULL:
        size += 2 * FIELD_OVERHEAD + will.topic.size + will.message.size
        flags |= WILL | <uint8_t>(sn.qos_of(will.flags) << WILL_QOS_SHIFT)
        if will.flags & sn.RETAIN:
            flags |= WILL_RETAIN
    at = packet.reserve(1 + variable_size(size) + size)
    at[0] = mqtt.CONNECT << 4
    at = put_variable(at + 1, size)
    at = put_field(at, slice_of(b"MQTT"))
    at[0] = mqtt.LEVEL_3_1_1
    at[1] = flags
    at = put_uint16(at + 2, keep_alive)
    at = put_field(at, client_id)
    if will.topic.data != NULL:
        at = put_field(put_field(at, will.topic), will.message)
    packet.size = at - packet.data
    return 0


cdef int append_filter_request(
    Buffer packet, bint subscribes, uint16_t packet_id, Slice topic_filter, uint8_t qos
) except -1:
    """Append a SUBSCRIBE or an UNSUBSCRIBE with one topic filter."""
    cdef Py_ssize_t size = 2 + FIELD_OVERHEAD + topic_filter.size + (1 if subscribes else 0)
    cdef uint8_t* at = packet.reserve(1 + variable_size(size) + size)
    at[0] = (mqtt.SUBSCRIBE if subscribes else mqtt.UNSUBSCRIBE) << 4 | SUBSCRIBE_FLAGS
    at = put_uint16(put_variable(at + 1, size), packet_id)
    at = put_field(at, topic_filter)
    if subscribes:
        at[0] = qos
        at += 1
    packet.size = at - packet.data
    return 0
