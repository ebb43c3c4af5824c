"""What the MQTT connections of a worker share. The protocol itself is in connection.pyx."""

from kaa_gateway.identity.known_clients cimport KnownClients
from kaa_gateway.mqtt.connection cimport MqttConnection
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.net.transport cimport ProtocolCore, Transport
from kaa_gateway.wire.mqtt cimport LEVEL_3_1, LEVEL_5

cdef enum:
    LEVEL_NONE = 255  # above all protocol levels


cdef class MqttServer:
    """The settings and tables of a worker's MQTT connections. Sizes are in bytes, times in seconds.

    Control characters in topics, client identifiers and user names are refused of all clients, of none, or, if
    `refuse_control_characters` is None, of those of MQTT 5. `protocol` is the name under which messages are counted.
    With the `client_authentication` "off", nobody is asked about user names and passwords.
    """

    def __init__(
        self, loop, Uplink uplink, Sessions sessions, MqttSessionStore store, Counters counters, authenticator,
        MqttLimits limits, *, packet_size_max, connect_timeout, str client_authentication="required",
        double keep_alive_max=0, receive_maximum=65535, topic_alias_maximum=0, str server_reference=None,
        refuse_control_characters=None, str protocol="mqtt",
    ):
        cdef int control_character_level = LEVEL_5
        self.loop = loop
        self.uplink = uplink
        self.sessions = sessions
        self.store = store
        self.counters = counters
        self.protocol = counters.add_protocol(protocol)
        self.limits = limits
        self.packet_size_max = packet_size_max
        self.connect_timeout = connect_timeout
        self.receive_maximum = receive_maximum
        self.topic_alias_maximum = topic_alias_maximum
        self.server_reference = None if server_reference is None else server_reference.encode()
        self.input_memory = InputMemory()
        if refuse_control_characters is not None:
            control_character_level = LEVEL_3_1 if refuse_control_characters else LEVEL_NONE
        self.connect_handler = ConnectHandler(
            uplink, sessions, store, counters, authenticator, limits, client_authentication != "off", keep_alive_max,
            control_character_level,
        )
        store.uplink = uplink

    def limit(self, InputMemory input_memory not None):
        """Bound the memory of incomplete packets, together with other protocols. Call once, before the start."""
        self.input_memory = input_memory

    def set_known_clients(self, KnownClients known_clients):
        """Admit these clients without asking the authenticator, which knows them. Call once, before the start."""
        self.connect_handler.known_clients = known_clients

    cpdef ProtocolCore connect(self, Transport transport):
        """Return the protocol core of a new connection."""
        cdef MqttConnection connection = MqttConnection.__new__(MqttConnection)
        connection.server = self
        connection.transport = transport
        return connection
