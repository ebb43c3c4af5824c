"""What the MQTT connections of a worker share. The protocol itself is in connection.pyx.

Anonymous clients often share a client identifier. Those whose will names an endpoint can be told apart all the same:
`by_will` has their connections.
"""

from kaa_gateway.mqtt.connection cimport MqttConnection
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.net.transport cimport Transport


cdef class MqttServer:
    """The settings and tables of a worker's MQTT connections. Sizes are in bytes, times in seconds."""

    def __init__(
        self, loop, Uplink uplink, Sessions sessions, MqttSessionStore store, Counters counters, authenticator,
        MqttLimits limits, *, packet_size_max, connect_timeout, double keep_alive_max=0,
    ):
        self.loop = loop
        self.uplink = uplink
        self.sessions = sessions
        self.store = store
        self.counters = counters
        self.authenticator = authenticator
        self.limits = limits
        self.packet_size_max = packet_size_max
        self.connect_timeout = connect_timeout
        self.keep_alive_max = keep_alive_max
        self.input_memory = InputMemory()
        self.scratch = Buffer()
        self.by_will = {}

    def limit(self, InputMemory input_memory not None):
        """Bound the memory of incomplete packets, together with other protocols. Call once, before the start."""
        self.input_memory = input_memory

    def connect(self, Transport transport not None):
        """Return the protocol core of a new connection."""
        return MqttConnection(self, transport)

    cdef double allowed_keep_alive(self, uint16_t asked) noexcept:
        """Return the keep-alive period of a client, which may be shorter than the one it asks for (3.1.2.10)."""
        if self.keep_alive_max > 0 and (asked == 0 or asked > self.keep_alive_max):
            return self.keep_alive_max
        return asked
