"""A message to a client, and how it becomes a PUBLISH of the client's protocol level.

Whether it is sent now, queued or sent again is for the session (session.pyx, message_queue.pyx, in_flight.pyx).

Source: MQTT 3.1.1 section 3.3; MQTT 5 sections 3.1.2.11.4 (Maximum Packet Size) and 3.3.2.3 (PUBLISH properties).
"""

from kaa_gateway.clock cimport now_ms
from kaa_gateway.wire.buffer cimport to_bytes
from kaa_gateway.wire.mqtt cimport LEVEL_5, append_publish, publish_size
from kaa_gateway.wire.mqtt_properties cimport MESSAGE_EXPIRY_INTERVAL, TOPIC_ALIAS, append_uint16, append_uint32

cdef enum:
    ALIAS_SIZE = 3            # bytes of a Topic Alias

cdef Slice NOTHING = Slice(NULL, 0)


cdef bint append_message(
    Buffer out, uint8_t level, uint32_t packet_size_max, SentAliases aliases, const Outgoing* message, uint8_t flags,
    uint16_t packet_id
) except -1:
    """Append a PUBLISH, of MQTT 5 with its properties and, unless `aliases` is None, a Topic Alias. Hot path.

    Return False if it is larger than `packet_size_max` bytes, unless that is 0.
    """
    cdef Buffer properties
    cdef Slice topic = message.topic
    cdef Py_ssize_t size
    cdef bytes name
    cdef uint32_t alias = 0
    if level < LEVEL_5:
        append_publish(out, level, flags, topic, packet_id, NOTHING, message.payload)
        return True
    if packet_size_max:
        size = message.properties.size + (EXPIRY_SIZE if message.deadline else 0)
        if publish_size(level, topic.size, size, message.payload.size, message.qos) > packet_size_max:
            return False
        if publish_size(level, topic.size, size + ALIAS_SIZE, message.payload.size, message.qos) > packet_size_max:
            aliases = None
    if aliases is not None:
        name = to_bytes(topic)
        alias = aliases.find(name)
        if alias:
            topic.size = 0
        elif message.repeats:
            alias = aliases.assign(name)
    if alias == 0 and message.deadline == 0:
        append_publish(out, level, flags, topic, packet_id, message.properties, message.payload)
        return True
    properties = Buffer()
    if message.deadline:
        append_uint32(properties, MESSAGE_EXPIRY_INTERVAL, seconds_until(message.deadline))
    properties.append(message.properties.data, message.properties.size)
    if alias:
        append_uint16(properties, TOPIC_ALIAS, alias)
    append_publish(out, level, flags, topic, packet_id, Slice(properties.data, properties.size), message.payload)
    return True


cdef uint32_t seconds_until(int64_t deadline) noexcept:
    """Return the whole seconds that are left, at least one."""
    return <uint32_t>max(1, min((deadline - now_ms() + 999) // 1000, <int64_t>0xFFFFFFFF))
