"""Changes of a client's will while it is connected: WILLTOPICUPD and WILLMSGUPD.

Source: MQTT-SN 1.2, section 6.4.
"""

from kaa_gateway.errors import ProtocolError

from kaa_gateway.mqtt.will cimport Will
from kaa_gateway.wire.buffer cimport to_bytes
from kaa_gateway.wire.mqtt_fields cimport check_topic_name
from kaa_gateway.wire.mqtt_sn cimport RC_ACCEPTED, RC_NOT_SUPPORTED, WILLTOPICUPD, qos_of


cdef uint8_t update_will(MqttConnection connection, const SnMessage* message, Counters counters) except 0xFF:
    """Change the will of a connection, or delete it. Return the return code of the answer."""
    cdef Will will
    if message.type == WILLTOPICUPD and message.empty:
        connection.will = None
        return RC_ACCEPTED
    if message.type == WILLTOPICUPD:
        try:
            check_topic_name(message.text)
        except ProtocolError as error:
            counters.count("refused", error.reason)
            return RC_NOT_SUPPORTED
        will = Will()
        will.topic = to_bytes(message.text)
        will.message = b"" if connection.will is None else connection.will.message
        will.qos = qos_of(message.flags)
        connection.will = will
        return RC_ACCEPTED
    if connection.will is None:
        return RC_NOT_SUPPORTED
    connection.will.message = message.text.data[:message.text.size]
    return RC_ACCEPTED
