from libc.stdint cimport uint32_t

from kaa_gateway.kp.uplink cimport AliasedTopic
from kaa_gateway.wire.buffer cimport Slice


cdef class TopicAliases:
    # state
    cdef list topics             # AliasedTopic by alias; None where the client has set none
    cdef Py_ssize_t bytes        # of the topics

    cdef AliasedTopic find(self, uint32_t alias)
    cdef AliasedTopic set(self, uint32_t alias, Slice topic)


cdef class SentAliases:
    # settings
    cdef uint32_t maximum        # aliases that the client takes
    # state
    cdef dict by_topic           # topic -> alias
    cdef list topics             # by alias, from 1 on
    cdef uint32_t next           # alias that is given next
    cdef Py_ssize_t bytes        # of the topics

    cdef uint32_t find(self, bytes topic) except? 0xFFFFFFFF
    cdef uint32_t assign(self, bytes topic) except? 0xFFFFFFFF
