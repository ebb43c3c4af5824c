from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.session cimport MqttLimits
from kaa_gateway.mqtt.session_store cimport MqttSessionStore
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.wire.buffer cimport Buffer


cdef class MqttServer:
    # wiring
    cdef object loop
    cdef Uplink uplink
    cdef Sessions sessions
    cdef MqttSessionStore store
    cdef Counters counters
    cdef object authenticator        # admits clients: kaa_gateway.identity.clients
    cdef InputMemory input_memory
    cdef Buffer scratch              # of the sessions: see MqttSession
    cdef Buffer properties           # the same
    # state
    cdef dict by_will                # (client identifier, application version, token) -> MqttConnection
    # settings
    cdef MqttLimits limits
    cdef Py_ssize_t packet_size_max  # bytes
    cdef double connect_timeout      # seconds
    cdef double keep_alive_max       # seconds; 0 = as the client asks
    # settings of MQTT 5
    cdef uint32_t receive_maximum    # messages of a client that are not acknowledged yet
    cdef uint32_t topic_alias_maximum
    cdef bytes server_reference      # where clients go at the end, or None
    cdef uint8_t control_character_level   # lowest protocol level whose control characters are refused
