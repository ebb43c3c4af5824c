"""MQTT-SN: messages of clients, and what is sent to them.

A message is a whole datagram. An encapsulated one has the header of its forwarder in front.

What does not live here: what a message means (kaa_gateway.mqtt_sn).

Source: MQTT-SN 1.2, section 5.
"""

from libc.string cimport memcpy

from kaa_gateway.errors import ProtocolError

cdef enum:
    MALFORMED_SIZE_MAX = 65535

MALFORMED_REASONS = ("", "mqtt_sn_length", "mqtt_sn_type", "mqtt_sn_field")
"""The reason of each MessageStatus."""


cdef inline uint16_t get_16(const uint8_t* at) noexcept nogil:
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline uint8_t* put_16(uint8_t* at, uint16_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>(value & 0xFF)
    return at + 2


cdef MessageStatus read_message(const uint8_t* data, Py_ssize_t size, SnMessage* message) noexcept nogil:
    """Read a message, which is the whole of `data`, and borrow its text. Hot path.

    Of a malformed message, the type is set if there is one.
    """
    cdef Py_ssize_t at = 1, length
    cdef uint8_t type
    message.type = ENCAPSULATED
    if size < 2:
        return SN_BAD_LENGTH
    length = data[0]
    if length == LONG_LENGTH:
        if size < LENGTH_SIZE_LONG + 1:
            return SN_BAD_LENGTH
        length = get_16(data + 1)
        at = LENGTH_SIZE_LONG
    if length != size:
        return SN_BAD_LENGTH
    type = message.type = data[at]
    at += 1
    data += at
    size -= at
    message.flags = 0
    message.message_id = 0
    message.text = Slice(data, size)
    if type == PUBLISH:
        if size < 5:
            return SN_BAD_LENGTH
        message.flags = data[0]
        message.topic_id = get_16(data + 1)
        message.message_id = get_16(data + 3)
        message.text = Slice(data + 5, size - 5)
        return SN_WELL_FORMED if topic_type(message.flags) <= SHORT_NAME else SN_BAD_FIELD
    if type == PUBACK or type == REGACK:
        if size != 5:
            return SN_BAD_LENGTH
        message.topic_id = get_16(data)
        message.message_id = get_16(data + 2)
        message.return_code = data[4]
        return SN_WELL_FORMED
    if type == PUBREC or type == PUBREL or type == PUBCOMP:
        if size != 2:
            return SN_BAD_LENGTH
        message.message_id = get_16(data)
        return SN_WELL_FORMED
    if type == REGISTER:
        if size < 5:  # a topic has a character
            return SN_BAD_LENGTH
        message.message_id = get_16(data + 2)
        message.text = Slice(data + 4, size - 4)
        return SN_WELL_FORMED
    if type == SUBSCRIBE or type == UNSUBSCRIBE:
        if size < 4:
            return SN_BAD_LENGTH
        message.flags = data[0]
        message.message_id = get_16(data + 1)
        message.text = Slice(data + 3, size - 3)
        if topic_type(message.flags) == NORMAL:
            return SN_WELL_FORMED
        if topic_type(message.flags) > SHORT_NAME:
            return SN_BAD_FIELD
        if size != 5:
            return SN_BAD_LENGTH
        message.topic_id = get_16(data + 3)
        return SN_WELL_FORMED
    if type == CONNECT:
        if size < 4:
            return SN_BAD_LENGTH
        message.flags = data[0]
        message.return_code = data[1]
        message.duration = get_16(data + 2)
        message.text = Slice(data + 4, size - 4)
        return SN_WELL_FORMED
    if type == WILLTOPIC or type == WILLTOPICUPD:
        message.empty = size == 0
        if size == 0:
            return SN_WELL_FORMED
        if size < 2:
            return SN_BAD_LENGTH
        message.flags = data[0]
        message.text = Slice(data + 1, size - 1)
        return SN_WELL_FORMED if qos_of(message.flags) <= 2 else SN_BAD_FIELD
    if type == DISCONNECT:
        message.empty = size == 0
        if size != 0 and size != 2:
            return SN_BAD_LENGTH
        message.duration = get_16(data) if size else 0
        return SN_WELL_FORMED
    if type == SEARCHGW:
        return SN_WELL_FORMED if size == 1 else SN_BAD_LENGTH
    if type == PINGRESP:
        return SN_WELL_FORMED if size == 0 else SN_BAD_LENGTH
    if type == WILLMSG or type == WILLMSGUPD or type == PINGREQ:
        return SN_WELL_FORMED
    return SN_BAD_TYPE


cdef Py_ssize_t forwarded_header(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Return the size of a forwarder's header, 0 if there is none, or -1 if it is malformed (5.5)."""
    if size < 2 or data[1] != ENCAPSULATED or data[0] == LONG_LENGTH:
        return 0
    return data[0] if FORWARDED_HEADER_MIN <= data[0] < size else -1


cdef uint8_t* begin(Buffer out, uint8_t type, Py_ssize_t variable_size) except NULL:
    """Append length and type of a message, and room for its variable part. Return where that begins."""
    cdef Py_ssize_t size = variable_size + 2
    cdef uint8_t* at
    if size > SHORT_MESSAGE_MAX:
        size += LENGTH_SIZE_LONG - 1
    if size > MALFORMED_SIZE_MAX:
        raise ProtocolError("mqtt_sn_length", "a message has 65535 bytes at most")
    at = out.reserve(size)
    if size <= SHORT_MESSAGE_MAX:
        at[0] = <uint8_t>size
        at += 1
    else:
        at[0] = LONG_LENGTH
        at = put_16(at + 1, <uint16_t>size)
    at[0] = type
    out.size += size
    return at + 1


cdef int append_empty(Buffer out, uint8_t type) except -1:
    """Append a message without a variable part."""
    begin(out, type, 0)
    return 0


cdef int append_byte(Buffer out, uint8_t type, uint8_t value) except -1:
    """Append CONNACK, GWINFO, WILLTOPICRESP or WILLMSGRESP."""
    begin(out, type, 1)[0] = value
    return 0


cdef int append_id(Buffer out, uint8_t type, uint16_t message_id) except -1:
    """Append PUBREC, PUBREL, PUBCOMP or UNSUBACK."""
    put_16(begin(out, type, 2), message_id)
    return 0


cdef int append_acknowledgement(
    Buffer out, uint8_t type, uint16_t topic_id, uint16_t message_id, uint8_t return_code
) except -1:
    """Append REGACK or PUBACK. Hot path."""
    put_16(put_16(begin(out, type, 5), topic_id), message_id)[0] = return_code
    return 0


cdef int append_suback(
    Buffer out, uint8_t flags, uint16_t topic_id, uint16_t message_id, uint8_t return_code
) except -1:
    """Append SUBACK."""
    cdef uint8_t* at = begin(out, SUBACK, 6)
    at[0] = flags
    put_16(put_16(at + 1, topic_id), message_id)[0] = return_code
    return 0


cdef int append_register(Buffer out, uint16_t topic_id, uint16_t message_id, Slice topic) except -1:
    """Append REGISTER."""
    cdef uint8_t* at = put_16(put_16(begin(out, REGISTER, 4 + topic.size), topic_id), message_id)
    memcpy(at, topic.data, <size_t>topic.size)
    return 0


cdef int append_publish(Buffer out, uint8_t flags, uint16_t topic_id, uint16_t message_id, Slice payload) except -1:
    """Append PUBLISH. Hot path."""
    cdef uint8_t* at = begin(out, PUBLISH, 5 + payload.size)
    at[0] = flags
    at = put_16(put_16(at + 1, topic_id), message_id)
    if payload.size:
        memcpy(at, payload.data, <size_t>payload.size)
    return 0


# ---------------------------------------------------------------- for tests and tools

FIELDS = {
    CONNECT: ("flags", "return_code", "duration", "text"),
    WILLTOPIC: ("empty", "flags", "text"),
    WILLTOPICUPD: ("empty", "flags", "text"),
    WILLMSG: ("text",),
    WILLMSGUPD: ("text",),
    REGISTER: ("message_id", "text"),
    REGACK: ("topic_id", "message_id", "return_code"),
    PUBLISH: ("flags", "topic_id", "message_id", "text"),
    PUBACK: ("topic_id", "message_id", "return_code"),
    PUBREC: ("message_id",),
    PUBREL: ("message_id",),
    PUBCOMP: ("message_id",),
    SUBSCRIBE: ("flags", "message_id", "text"),
    UNSUBSCRIBE: ("flags", "message_id", "text"),
    PINGREQ: ("text",),
    PINGRESP: (),
    DISCONNECT: ("empty", "duration"),
    SEARCHGW: (),
}


def decode(bytes datagram not None):
    """Return (type, {field: value}) of a message of a client. Raises ProtocolError."""
    cdef SnMessage message
    cdef MessageStatus status = read_message(<const uint8_t*>datagram, len(datagram), &message)
    if status != SN_WELL_FORMED:
        raise ProtocolError(MALFORMED_REASONS[<int>status])
    values = {
        "flags": message.flags, "return_code": message.return_code, "duration": message.duration,
        "empty": bool(message.empty), "topic_id": message.topic_id, "message_id": message.message_id,
        "text": message.text.data[:message.text.size],
    }
    return message.type, {name: values[name] for name in FIELDS[message.type]}


def advertise(gateway_id, duration):
    """Return an ADVERTISE."""
    return bytes((5, ADVERTISE, gateway_id)) + duration.to_bytes(2, "big")
