"""A SUBSCRIBE or UNSUBSCRIBE of a client: the topic filter that it names, and the topic ID that it gets.

Source: MQTT-SN 1.2, section 6.9.
"""

from kaa_gateway.errors import ProtocolError

from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.mqtt_fields cimport check_topic_filter
from kaa_gateway.wire.mqtt_sn cimport (
    NORMAL, PREDEFINED, QOS_MINUS_1, RC_ACCEPTED, RC_CONGESTION, RC_INVALID_TOPIC_ID, RC_NOT_SUPPORTED, SUBSCRIBE,
    qos_of, topic_type,
)

cdef enum:
    SHORT_SIZE = 2       # bytes of a topic that is its own topic ID


cdef class FilterRequest:
    """What a message asks for, or why it is refused."""


cdef FilterRequest read_filter_request(const SnMessage* message, ClientTopics topics, Counters counters):
    """Return what a message asks for. A SUBSCRIBE to one topic registers it."""
    cdef FilterRequest request = FilterRequest()
    cdef uint8_t kind = topic_type(message.flags)
    request.return_code = RC_ACCEPTED
    if kind == NORMAL:
        request.topic_filter = to_bytes(message.text)
    else:
        request.topic_filter = topics.name_of(kind, message.topic_id)
        if request.topic_filter is None:
            return refuse(request, RC_INVALID_TOPIC_ID, "mqtt_sn_unknown_topic_id", counters)
        request.topic_id = message.topic_id if kind == PREDEFINED else 0
    try:
        check_topic_filter(slice_of(request.topic_filter))
    except ProtocolError as error:
        return refuse(request, RC_NOT_SUPPORTED, error.reason, counters)
    if message.type != SUBSCRIBE:
        return request
    if qos_of(message.flags) == QOS_MINUS_1:
        return refuse(request, RC_NOT_SUPPORTED, "mqtt_sn_field", counters)
    if kind == NORMAL and is_long_topic(request.topic_filter):
        request.topic_id = topics.register(request.topic_filter)
        if request.topic_id == 0:
            return refuse(request, RC_CONGESTION, topics.refusal(), counters)
        topics.tell(request.topic_id)
    return request


cdef bint is_long_topic(bytes topic_filter) except -1:
    """Return whether a filter is a topic that needs a topic ID."""
    return len(topic_filter) > SHORT_SIZE and b"+" not in topic_filter and b"#" not in topic_filter


cdef FilterRequest refuse(FilterRequest request, uint8_t return_code, str reason, Counters counters):
    counters.count("refused", reason)
    request.return_code = return_code
    return request
