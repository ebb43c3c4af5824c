from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.message_queue cimport MessageQueue
from kaa_gateway.mqtt.session cimport MqttSession


cdef bytes take_state(MqttSession session)
cdef object state_of(MqttSession session)
cdef list messages_of(MessageQueue queue, Py_ssize_t last)
cdef bint put_state(MqttSession session, bytes data, Uplink uplink) except -1
