from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.session cimport MqttSession


cdef bytes state_of(MqttSession session)
cdef bint put_state(MqttSession session, bytes data, Uplink uplink) except -1
