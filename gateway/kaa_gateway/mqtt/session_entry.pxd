from libc.stdint cimport uint64_t

from kaa_gateway.fleet.entry cimport DirectoryEntry
from kaa_gateway.mqtt.client_options cimport ClientOptions
from kaa_gateway.mqtt.moved_session cimport MovedSession
from kaa_gateway.mqtt.session cimport MqttSession

cdef class SessionEntry(DirectoryEntry)  # before the cimport, because ConnectHandler refers to it

from kaa_gateway.mqtt.connect_handler cimport ConnectHandler
from kaa_gateway.mqtt.connection cimport MqttConnection


cdef class SessionEntry(DirectoryEntry):
    # wiring
    cdef ConnectHandler handler
    # identity
    cdef str principal
    cdef str client_id
    # state
    cdef MqttSession session          # that the client can find again, or None
    cdef MqttConnection waiting       # whose CONNECT waits for other workers, else None
    cdef object client                # of the last CONNECT: kaa_gateway.identity.clients
    cdef ClientOptions options        # the same

    cdef MqttSession adopt(self, bytes state, uint64_t number)
    cdef int give(self) except -1
    cdef MovedSession departure(self, MqttSession session)
    cdef int acknowledged(self) except -1
    cdef int discarded(self) except -1


cdef class WillEntry(DirectoryEntry):
    cdef MqttConnection connection    # an anonymous one, which its will tells apart
