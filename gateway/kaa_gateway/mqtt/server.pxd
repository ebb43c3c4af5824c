from libc.stdint cimport uint32_t

from kaa_gateway.counters cimport Counters, Protocol
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.connect_handler cimport ConnectHandler
from kaa_gateway.mqtt.limits cimport MqttLimits
from kaa_gateway.mqtt.session_store cimport MqttSessionStore
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.net.transport cimport ProtocolServer


cdef class MqttServer(ProtocolServer):
    # wiring
    cdef object loop
    cdef Uplink uplink
    cdef Sessions sessions
    cdef MqttSessionStore store
    cdef Counters counters
    cdef InputMemory input_memory
    cdef ConnectHandler connect_handler
    # settings
    cdef Protocol protocol           # of the sessions whose clients are here
    cdef MqttLimits limits
    cdef Py_ssize_t packet_size_max  # bytes
    cdef double connect_timeout      # seconds
    # settings of MQTT 5
    cdef uint32_t receive_maximum    # messages of a client that are not acknowledged yet
    cdef uint32_t topic_alias_maximum
    cdef bytes server_reference      # where clients go at the end, or None
