"""A SUBSCRIBE or UNSUBSCRIBE of a client: its topic filters one by one, then its acknowledgement.

The connection decides how many are handled before the event loop goes on.

Source: MQTT 3.1.1 sections 3.8 to 3.11; MQTT 5 sections 3.8 to 3.11 and 4.8.2 (shared subscriptions).
"""

from kaa_gateway.wire.mqtt cimport (
    LEVEL_5, SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, SUBACK, SUBSCRIBE, UNSUBACK, TopicFilter, append_ack,
    append_filter_ack, check_flags, first_filter, next_filter,
)
from kaa_gateway.wire.mqtt_fields cimport check_control_characters, violation
from kaa_gateway.wire.mqtt_properties cimport SUBSCRIPTION_IDENTIFIER, Properties, has

cdef enum:
    ACK_OVERHEAD = 8  # bytes of a SUBACK or UNSUBACK beside its reason codes, at most


cdef class FilterRequest:
    """A SUBSCRIBE or UNSUBSCRIBE that is being handled. Its packet is offered anew for each step."""

    cdef int begin(self, const Packet* packet, uint8_t level) except -1:
        """Check the head of the packet."""
        cdef Properties properties
        check_flags(packet, level)
        self.at = first_filter(packet, level, &properties)
        self.packet_id = <uint16_t>(packet.body.data[0] << 8 | packet.body.data[1])
        self.reason_codes = bytearray()
        if has(&properties, SUBSCRIPTION_IDENTIFIER):
            self.subscription_identifier = properties.number[<int>SUBSCRIPTION_IDENTIFIER]
        return 0

    cdef int handle_next(
        self, const Packet* packet, MqttSession session, Uplink uplink, bint refuses_control_characters
    ) except -1:
        """Handle the topic filter at `at`."""
        cdef TopicFilter entry
        self.at = next_filter(packet, session.level, self.at, &entry)
        if refuses_control_characters:
            check_control_characters(entry.filter)
        if packet.type == SUBSCRIBE:
            self.reason_codes.append(self.subscribe(entry.filter, entry.qos, entry.no_local, session, uplink))
        else:
            self.reason_codes.append(session.unsubscribe(entry.filter))
        return 0

    cdef uint8_t subscribe(
        self, Slice topic_filter, uint8_t qos, bint no_local, MqttSession session, Uplink uplink
    ) except? 0x7F:
        """Grant a well-formed topic filter. One that names a token lets the session speak for that endpoint."""
        cdef uint8_t reason_code
        if session.level >= LEVEL_5 and is_shared(topic_filter):
            if no_local:
                violation("shared_no_local")
            return SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        reason_code = session.subscribe(topic_filter, qos, self.subscription_identifier)
        uplink.identify(session, topic_filter)
        return reason_code

    cdef int append_acknowledgement(self, const Packet* packet, MqttSession session, Buffer out) except -1:
        """Append the SUBACK or UNSUBACK, which must not be larger than the client takes."""
        cdef const uint8_t* codes = self.reason_codes
        cdef uint8_t packet_type = SUBACK if packet.type == SUBSCRIBE else UNSUBACK
        if session.is_too_large(len(self.reason_codes) + ACK_OVERHEAD):
            violation("packet_size_of_client")
        if packet_type == UNSUBACK and session.level < LEVEL_5:
            return append_ack(out, UNSUBACK, self.packet_id)
        return append_filter_ack(out, session.level, packet_type, self.packet_id, codes, len(self.reason_codes))


cdef bint is_shared(Slice topic_filter) noexcept:
    """Return whether a topic filter is a shared subscription (MQTT 5, 4.8.2)."""
    return topic_filter.size >= 7 and topic_filter.data[:7] == b"$share/"
