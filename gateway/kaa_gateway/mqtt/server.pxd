from libc.stdint cimport uint16_t

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
    # state
    cdef dict by_will                # (client identifier, application version, token) -> MqttConnection
    # settings
    cdef MqttLimits limits
    cdef Py_ssize_t packet_size_max  # bytes
    cdef double connect_timeout      # seconds
    cdef double keep_alive_max       # seconds; 0 = as the client asks

    cdef double allowed_keep_alive(self, uint16_t asked) noexcept
