from kaa_gateway.kp.sessions cimport Sessions

cdef class MqttSessionStore  # before the cimport, because MqttSession refers to it

from kaa_gateway.mqtt.session cimport MqttLimits, MqttSession


cdef class MqttSessionStore:
    # wiring
    cdef Sessions sessions
    cdef MqttLimits limits
    # state
    cdef dict by_client          # (principal, client identifier) -> MqttSession that its client can find again
    cdef object offline          # OrderedDict of MqttSession -> None, longest offline first

    cdef MqttSession find(self, str principal, str client_id)
    cdef int add(self, MqttSession session) except -1
    cdef int discard(self, MqttSession session) except -1
    cdef int keep_offline(self, MqttSession session) except -1
    cdef int back_online(self, MqttSession session) except -1
