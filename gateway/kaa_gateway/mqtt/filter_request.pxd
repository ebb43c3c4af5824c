from libc.stdint cimport uint8_t, uint16_t, uint32_t

from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.session cimport MqttSession
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.mqtt cimport Packet


cdef class FilterRequest:
    # state
    cdef uint16_t packet_id
    cdef uint32_t subscription_identifier  # of MQTT 5; 0 if there is none
    cdef Py_ssize_t at                     # offset of the next topic filter
    cdef bytearray reason_codes

    cdef int begin(self, const Packet* packet, uint8_t level) except -1
    cdef int handle_next(
        self, const Packet* packet, MqttSession session, Uplink uplink, bint refuses_control_characters
    ) except -1
    cdef uint8_t subscribe(
        self, Slice topic_filter, uint8_t qos, bint no_local, MqttSession session, Uplink uplink
    ) except? 0x7F
    cdef int append_acknowledgement(self, const Packet* packet, MqttSession session, Buffer out) except -1
