from libc.stdint cimport uint8_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.mqtt.connection cimport MqttConnection
from kaa_gateway.wire.mqtt_sn cimport SnMessage


cdef uint8_t update_will(MqttConnection connection, const SnMessage* message, Counters counters) except 0xFF
