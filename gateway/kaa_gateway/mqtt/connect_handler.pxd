from libc.stdint cimport uint8_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.identity.known_clients cimport KnownClients
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.client_options cimport ClientOptions
from kaa_gateway.mqtt.limits cimport MqttLimits
from kaa_gateway.mqtt.session cimport MqttSession
from kaa_gateway.mqtt.session_store cimport MqttSessionStore
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.mqtt cimport ConnectView, Packet

cdef class ConnectHandler  # before the cimport, because MqttConnection refers to MqttServer, and that to it

from kaa_gateway.mqtt.connection cimport MqttConnection
from kaa_gateway.mqtt.session_entry cimport SessionEntry


cdef class ConnectHandler:
    # wiring
    cdef Uplink uplink
    cdef Sessions sessions
    cdef MqttSessionStore store
    cdef Counters counters
    cdef object authenticator        # admits clients: kaa_gateway.identity.clients
    cdef KnownClients known_clients  # whom it has admitted lately; None if it remembers nobody
    cdef Buffer scratch              # of the sessions: see MqttSession
    cdef Buffer properties           # the same
    # state
    cdef dict by_will                # (client identifier, application version, token) -> MqttConnection
    # settings
    cdef MqttLimits limits
    cdef bint authenticates          # user names and passwords are looked at
    cdef double keep_alive_max       # seconds; 0 = as the client asks
    cdef uint8_t control_character_level   # lowest protocol level whose control characters are refused

    cdef int on_connect(self, MqttConnection connection, const Packet* packet) except -1
    cdef int authenticate(
        self, MqttConnection connection, const ConnectView* connect, ClientOptions options
    ) except -1
    cdef int check_connect(self, MqttConnection connection, const ConnectView* connect) except -1
    cdef int refuse_client(self, MqttConnection connection, error) except -1
    cdef int refuse(
        self, MqttConnection connection, uint8_t return_code, uint8_t reason_code, str reason
    ) except -1
    cdef int admit(self, MqttConnection connection, client, ClientOptions options) except -1
    cdef int notify(self, str client_id) except -1
    cdef SessionEntry wait(self, MqttConnection connection, client, ClientOptions options)
    cdef SessionEntry new_entry(self, str principal, str client_id)
    cdef int complete(self, MqttConnection connection, client, ClientOptions options) except -1
    cdef MqttSession open_session(self, MqttConnection connection, client, ClientOptions options)
    cdef MqttSession new_session(self, client, str client_id)
    cdef int take_over(self, MqttConnection connection, client, ClientOptions options) except -1
    cdef int announce_will(self, MqttConnection connection) except -1
    cdef int forget(self, MqttConnection connection) except -1
