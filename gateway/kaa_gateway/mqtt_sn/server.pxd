from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.server cimport MqttServer
from kaa_gateway.mqtt_sn.settings cimport MqttSnSettings
from kaa_gateway.mqtt_sn.topics cimport ClientTopics, TopicMemory
from kaa_gateway.net.addresses cimport Address, AddressTable
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.mqtt_sn cimport SnMessage

cdef class MqttSnServer(DatagramCore)  # before the cimport, because MqttSnPeer refers to it

from kaa_gateway.mqtt_sn.peer cimport MqttSnPeer


cdef class MqttSnServer(DatagramCore):
    # wiring
    cdef object loop
    cdef MqttServer mqtt         # of the connections within the gateway
    cdef Uplink uplink
    cdef Counters counters
    cdef MqttSnSettings settings
    cdef TopicMemory topic_memory
    cdef bint encrypted          # addresses are proved, and have sessions below
    # what peers use for one call
    cdef Buffer packet           # of MQTT
    cdef Buffer scratch          # of MQTT-SN
    # state
    cdef double now              # loop time of what is being handled
    cdef AddressTable by_address
    cdef dict forwarded          # address and node ID -> MqttSnPeer, of clients behind forwarders
    cdef object unproved         # OrderedDict: clients whose address is not proved, about the longest silent first
    cdef set proved              # the others
    cdef dict sleepers           # (principal, client ID) -> MqttSnPeer
    cdef object publishers       # OrderedDict of address -> UnconnectedPublisher, the longest silent first
    cdef ClientTopics common_topics   # of publishers
    cdef list woken              # MqttSnPeers whose connections have output
    cdef list timers             # heap of (loop time, number, MqttSnPeer)
    cdef uint64_t timer_count
    cdef bint draining
    # advertisement
    cdef object advertised       # (address, port), or None
    cdef double advertise_interval   # seconds
    cdef double advertise_at     # loop time

    cdef int on_connect(
        self, const SnMessage* message, MqttSnPeer peer, const Address* source, bytes forwarding, Py_ssize_t size
    ) except -1
    cdef int on_unconnected(
        self, const SnMessage* message, const Address* source, bytes forwarding, Py_ssize_t size
    ) except -1
    cdef int on_unconnected_publish(self, const SnMessage* message, const Address* source, bytes forwarding) except -1
    cdef int answer(self, const Address* destination, bytes forwarding) except -1
    cdef MqttSnPeer peer_at(self, const Address* source, bytes forwarding)
    cdef bint make_room(self) except -1
    cdef int place(self, MqttSnPeer peer) except -1
    cdef int displace(self, MqttSnPeer peer) except -1
    cdef int remove(self, MqttSnPeer peer) except -1
    cdef int prove(self, MqttSnPeer peer) except -1
    cdef int add_sleeper(self, MqttSnPeer peer) except -1
    cdef int forget_sleeper(self, MqttSnPeer peer) except -1
    cdef int flush_later(self, MqttSnPeer peer) except -1
    cdef int add_timer(self, MqttSnPeer peer) except -1
    cdef int drop_stale_timers(self) except -1
