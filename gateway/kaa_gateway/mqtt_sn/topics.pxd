from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.mqtt.session cimport MqttSession


cdef class PredefinedTopics:
    # state
    cdef dict names              # topic ID -> topic; of all clients
    cdef dict ids                # topic -> topic ID; of all clients
    cdef dict templates          # topic ID -> topic with CLIENT_ID


cdef class TopicMemory:
    # settings
    cdef Py_ssize_t limit        # bytes
    # state
    cdef Py_ssize_t size         # bytes


cdef class ClientTopics:
    # wiring
    cdef PredefinedTopics predefined
    cdef TopicMemory memory
    cdef MqttSession session     # that keeps what is registered, or None
    # settings
    cdef Py_ssize_t registered_max
    # state
    cdef bint uses_predefined    # the client has used a predefined topic ID, so it knows them
    cdef bytes client_id         # for predefined topics that contain it; None: it has none
    cdef list names              # registered topics: topic ID n stands at n - 1; None before the first
    cdef dict ids                # registered topic -> topic ID
    cdef set told                # registered topic IDs that the client knows

    cdef bytes name_of(self, uint8_t topic_type, uint16_t topic_id)
    cdef bytes topic_of(self, uint8_t topic_type, uint16_t topic_id)
    cdef int id_of(self, bytes name, uint8_t* topic_type) except -1
    cdef object own_predefined_id(self, bytes name)
    cdef int resume(self, MqttSession session) except -1
    cdef int begin_registering(self, list names) except -1
    cdef uint16_t register(self, bytes name) except? 0
    cdef str refusal(self)
    cdef int release(self) except -1
    cdef bint is_told(self, uint16_t topic_id) except -1
    cdef int tell(self, uint16_t topic_id) except -1
    cdef int untell(self, uint16_t topic_id) except -1
    cdef int forget_told(self) except -1
