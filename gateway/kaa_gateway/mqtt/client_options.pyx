"""What a client asks for in CONNECT, what it is granted, and what CONNACK tells it of that.

Source: MQTT 3.1.1 section 3.1.2; MQTT 5 sections 3.1.2.11 (CONNECT properties) and 3.2.2.3 (CONNACK properties).
"""

import uuid

from libc.math cimport ceil

from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt cimport LEVEL_5
from kaa_gateway.wire.mqtt_properties cimport (
    ASSIGNED_CLIENT_IDENTIFIER, MAXIMUM_PACKET_SIZE, RECEIVE_MAXIMUM, REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION, RESPONSE_INFORMATION, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE, SESSION_EXPIRY_INTERVAL,
    SHARED_SUBSCRIPTION_AVAILABLE, TOPIC_ALIAS_MAXIMUM, Properties, append_byte, append_text, append_uint16,
    append_uint32,
)

cdef enum:
    RECEIVE_MAXIMUM_DEFAULT = 65535  # messages, section 3.1.2.11.3


cdef class ClientOptions:
    """The options of one client."""


cdef uint32_t number_of(const Properties* properties, int identifier, uint32_t default) noexcept:
    return properties.number[identifier] if properties.present >> identifier & 1 else default


cdef ClientOptions options_of(const ConnectView* connect, double session_expiry_max, double keep_alive_max):
    """Return the options of a CONNECT. Below level 5, CleanSession 0 asks for the longest session expiry."""
    cdef const Properties* properties = &connect.properties
    cdef ClientOptions options = ClientOptions.__new__(ClientOptions)
    options.client_id = connect.client_id.data[:connect.client_id.size].decode("utf-8")
    options.assigned = connect.client_id.size == 0
    options.clean_start = connect.clean_session
    options.keep_alive = connect.keep_alive
    options.keep_alive_granted = connect.keep_alive
    if keep_alive_max > 0 and (connect.keep_alive == 0 or connect.keep_alive > keep_alive_max):
        options.keep_alive_granted = ceil(keep_alive_max) if connect.level >= LEVEL_5 else keep_alive_max
    options.receive_maximum = number_of(properties, <int>RECEIVE_MAXIMUM, RECEIVE_MAXIMUM_DEFAULT)
    options.packet_size_max = number_of(properties, <int>MAXIMUM_PACKET_SIZE, 0)
    options.topic_alias_maximum = number_of(properties, <int>TOPIC_ALIAS_MAXIMUM, 0)
    options.problem_information = number_of(properties, <int>REQUEST_PROBLEM_INFORMATION, 1)
    options.response_information = number_of(properties, <int>REQUEST_RESPONSE_INFORMATION, 0)
    options.session_expiry_asked = number_of(properties, <int>SESSION_EXPIRY_INTERVAL, 0)
    if connect.level >= LEVEL_5:
        options.session_expiry = min(<double>options.session_expiry_asked, session_expiry_max)
        options.outlives = not options.clean_start or options.session_expiry_asked
        if options.assigned:
            options.client_id = "auto-" + uuid.uuid4().hex
    else:
        options.outlives = not options.clean_start
        options.session_expiry = session_expiry_max if options.outlives else 0
    return options


cdef bytes connack_properties(
    ClientOptions options, uint32_t receive_maximum, Py_ssize_t packet_size_max, uint32_t topic_alias_maximum
):
    """Return the properties of the CONNACK that admits a client: where its options, or a default, do not hold."""
    cdef Buffer out = Buffer()
    if options.session_expiry != options.session_expiry_asked:
        append_uint32(out, SESSION_EXPIRY_INTERVAL, <uint32_t>options.session_expiry)
    if receive_maximum < RECEIVE_MAXIMUM_DEFAULT:
        append_uint16(out, RECEIVE_MAXIMUM, receive_maximum)
    append_byte(out, RETAIN_AVAILABLE, 0)
    append_uint32(out, MAXIMUM_PACKET_SIZE, <uint32_t>packet_size_max)
    if options.assigned:
        append_text(out, ASSIGNED_CLIENT_IDENTIFIER, slice_of(options.client_id.encode()))
    if topic_alias_maximum:
        append_uint16(out, TOPIC_ALIAS_MAXIMUM, topic_alias_maximum)
    append_byte(out, SHARED_SUBSCRIPTION_AVAILABLE, 0)
    if options.keep_alive_granted != options.keep_alive:
        append_uint16(out, SERVER_KEEP_ALIVE, <uint32_t>options.keep_alive_granted)
    if options.response_information:
        append_text(out, RESPONSE_INFORMATION, slice_of(f"response/{options.client_id}".encode()[:65535]))
    return out.copy()
