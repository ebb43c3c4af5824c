"""The MQTT-SN server: it reads datagrams, and hands their messages to the clients that sent them.

What lives here: who is a client, clients at new addresses, messages without a client, timers. What does not: what a
message of a client means (peer.pyx).

Source: MQTT-SN 1.2, sections 5.5 (forwarders), 6.1 (advertisement), 6.8 (QoS -1) and 6.14 (sleeping clients).
"""

from collections import OrderedDict
from heapq import heapify, heappop, heappush

from kaa_gateway.wire.mqtt_sn import MALFORMED_REASONS
from kaa_gateway.wire.mqtt_sn import advertise as advertise_message

from kaa_gateway.counters cimport MQTT_SN
from kaa_gateway.mqtt_sn.outbox cimport Outbox
from kaa_gateway.mqtt_sn.peer cimport ACTIVE, ASLEEP, GONE
from kaa_gateway.mqtt_sn.publisher cimport UnconnectedPublisher
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt_sn cimport (
    CLEAN_SESSION, CONNACK, CONNECT, DISCONNECT, GWINFO, NORMAL, PINGREQ, PROTOCOL_ID, PUBLISH, QOS_MINUS_1,
    RC_CONGESTION, RC_NOT_SUPPORTED, SEARCHGW, SN_WELL_FORMED, WILL, MessageStatus, append_byte,
    append_empty, forwarded_header, qos_of, read_message, topic_type,
)

cdef enum:
    DUE_PER_CALL = 500        # timers and publishers that are handled at once
    STALE_TIMERS = 1000       # timers that may be of no use, beside one for each client
    PUBLISHERS_SHARE = 8      # one in so many places is for an address without a connection
    RADIUS = 2                # offset of the radius in a forwarder's header

cdef double PUBLISHER_TIMEOUT = 600.0    # seconds of silence after which a publisher at QoS -1 is forgotten
cdef double ORDER_RESOLUTION = 1.0       # seconds; the order of clients that are not proved is no more exact


cdef class MqttSnServer(DatagramCore):
    """The MQTT-SN server of a worker, as the core of a UdpSocket, or of a DtlsSocket if it is `encrypted`.

    `mqtt` takes the connections of the clients within the gateway. `topic_memory` is common to the servers of a worker.
    """

    def __init__(
        self, loop, MqttServer mqtt not None, Uplink uplink not None, Counters counters not None,
        MqttSnSettings settings not None, TopicMemory topic_memory not None, *, bint encrypted,
    ):
        self.loop = loop
        self.mqtt = mqtt
        self.uplink = uplink
        self.counters = counters
        self.settings = settings
        self.encrypted = encrypted
        self.packet = Buffer()
        self.scratch = Buffer()
        self.now = loop.time()
        self.by_address = AddressTable()
        self.forwarded = {}
        self.unproved = OrderedDict()
        self.proved = set()
        self.sleepers = {}
        self.publishers = OrderedDict()
        self.topic_memory = topic_memory
        self.common_topics = ClientTopics(settings.predefined, None, 0, topic_memory)
        self.woken = []
        self.timers = []

    def advertise(self, str address not None, int port, double interval):
        """Send an ADVERTISE to an address every `interval` seconds; it may be one of multicast."""
        self.advertised = (address, port)
        self.advertise_interval = interval
        self.advertise_at = 0

    def count(self):
        """Return the number of clients, and of addresses that publish without a connection."""
        return len(self.proved) + len(self.unproved) + len(self.publishers)

    def sleeping(self):
        """Return the number of clients that sleep."""
        return len(self.sleepers)

    def begin_drain(self):
        """Take no new clients."""
        self.draining = True

    def stop(self):
        """Disconnect all clients. Their sessions are kept, and wills are published, as when a connection is lost."""
        cdef MqttSnPeer peer
        cdef UnconnectedPublisher publisher
        for peer in [*self.proved, *self.unproved]:
            if peer.connection is not None:
                peer.connection.explain_stop()
            peer.leave(True)
        for publisher in [*self.publishers.values()]:
            publisher.end("draining")

    # ------------------------------------------------------------ datagrams

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1:
        """Handle a datagram. Hot path."""
        cdef SnMessage message
        cdef MessageStatus status
        cdef bytes forwarding = None
        cdef Py_ssize_t header = forwarded_header(data, size)
        cdef MqttSnPeer peer
        self.now = self.socket.now
        if header < 0:
            return self.counters.count("dropped", "mqtt_sn_length")
        if header:
            forwarding = data[:RADIUS] + b"\0" + data[RADIUS + 1:header]
        status = read_message(data + header, size - header, &message)
        if status != SN_WELL_FORMED:
            return self.counters.count("dropped", MALFORMED_REASONS[<int>status])
        if size > self.settings.message_size and message.type != PUBLISH:
            # Its field would be kept: a client ID, a topic or a will.
            return self.counters.count("dropped", "mqtt_sn_message_too_large")
        peer = <MqttSnPeer>self.by_address.find(source) if forwarding is None else self.peer_at(source, forwarding)
        if peer is not None:
            peer.outbox.received(size)
            if not peer.outbox.proved and self.now - peer.last_received > ORDER_RESOLUTION:
                self.unproved.move_to_end(peer)
        if message.type == CONNECT:
            return self.on_connect(&message, peer, source, forwarding, size)
        if message.type == SEARCHGW:
            append_byte(self.scratch, GWINFO, <uint8_t>self.settings.gateway_id)
            return self.answer(source, forwarding)
        if peer is None or (message.type == PUBLISH and qos_of(message.flags) == QOS_MINUS_1 and peer.state < ACTIVE):
            return self.on_unconnected(&message, source, forwarding, size)
        return peer.receive(&message)

    cdef int on_connect(
        self, const SnMessage* message, MqttSnPeer peer, const Address* source, bytes forwarding, Py_ssize_t size
    ) except -1:
        """Connect a client, or go on with the connection that it has."""
        cdef Outbox outbox
        cdef uint8_t code = 0
        if peer is not None and not peer.leaving and peer.client_id == message.text.data[:message.text.size]:
            if (peer.fresh and peer.connect_flags == message.flags) or (
                    peer.state >= ACTIVE and not message.flags & (CLEAN_SESSION | WILL)):
                return peer.return_to_active(message)
        if message.return_code != PROTOCOL_ID:
            self.counters.count("refused", "mqtt_sn_protocol_id")
            code = RC_NOT_SUPPORTED
        elif self.draining:
            self.counters.count("refused", "mqtt_sn_draining")
            code = RC_CONGESTION
        else:
            if peer is not None:
                peer.end("mqtt_taken_over", False)
            if not self.make_room():
                self.counters.count("refused", "mqtt_sn_too_many_clients")
                code = RC_CONGESTION
        if code:
            append_byte(self.scratch, CONNACK, code)
            return self.answer(source, forwarding)
        outbox = Outbox(self.socket, self.counters, self.settings, None, self.scratch)
        outbox.move(source, forwarding)
        outbox.proved = self.encrypted
        if peer is not None and not peer.outbox.proved:
            outbox.credit = peer.outbox.credit  # an address gets no more for another CONNECT
        else:
            outbox.received(size)
        peer = MqttSnPeer(self, outbox, self.socket.client_of(source))
        self.place(peer)
        return peer.connect(message)

    cdef int on_unconnected(
        self, const SnMessage* message, const Address* source, bytes forwarding, Py_ssize_t size
    ) except -1:
        """Handle a message from an address that has no client."""
        cdef MqttSnPeer peer = None
        if message.type == PUBLISH and qos_of(message.flags) == QOS_MINUS_1:
            return self.on_unconnected_publish(message, source, forwarding)
        if message.type == PINGREQ and message.text.size:
            client = self.socket.client_of(source)
            principal = "" if client is None else client.principal
            peer = self.sleepers.get((principal, message.text.data[:message.text.size]))
        if peer is None or peer.leaving:
            self.counters.count("dropped", "mqtt_sn_not_connected")
            if message.type == DISCONNECT:
                return 0  # two gateways would answer each other for ever
            append_empty(self.scratch, DISCONNECT)
            return self.answer(source, forwarding)
        # A client that sleeps has another address when it wakes up, as behind most NATs.
        self.displace(peer)
        peer.outbox.move(source, forwarding)
        peer.outbox.proved = self.encrypted
        peer.outbox.received(size)
        peer.client = self.socket.client_of(source)
        self.place(peer)
        return peer.receive(message)

    cdef int on_unconnected_publish(self, const SnMessage* message, const Address* source, bytes forwarding) except -1:
        """Forward a message at QoS -1 of an address that has no client (6.8)."""
        cdef UnconnectedPublisher publisher
        cdef bytes key, topic = None
        if self.common_topics.predefined is not self.settings.predefined:
            self.common_topics = ClientTopics(self.settings.predefined, None, 0, self.topic_memory)
        if topic_type(message.flags) != NORMAL:
            topic = self.common_topics.topic_of(topic_type(message.flags), message.topic_id)
        if topic is None:
            return self.counters.count("dropped", "mqtt_sn_unknown_topic_id")
        if self.draining:
            return self.counters.count("dropped", "mqtt_sn_draining")
        key = address_key(source) + (forwarding or b"")
        publisher = self.publishers.get(key)
        if publisher is None:
            while len(self.publishers) >= max(self.settings.peers // PUBLISHERS_SHARE, 1):
                (<UnconnectedPublisher>next(iter(self.publishers.values()))).end("mqtt_sn_evicted")
            publisher = UnconnectedPublisher()
            publisher.counters = self.counters
            publisher.protocol = MQTT_SN
            publisher.connectionless = True
            publisher.uplink = self.uplink
            publisher.publishers = self.publishers
            publisher.address = key
            self.uplink.sessions.open(publisher)
            self.publishers[key] = publisher
        self.publishers.move_to_end(key)
        publisher.last_received = self.now
        client = self.socket.client_of(source)
        if client is not None and publisher.principal != client.principal:
            # The client of a DTLS session is confined to its tenant without CONNECT too.
            publisher.set_client(client)
            publisher.forget_last_route()
        return publisher.publish(slice_of(topic), message.text)

    cdef int answer(self, const Address* destination, bytes forwarding) except -1:
        """Send the message in `scratch` to an address without a client; it is shorter than what it answers."""
        cdef bytes whole = (forwarding or b"") + self.scratch.copy()
        self.scratch.size = 0
        return self.socket.send(destination, <const uint8_t*>whole, len(whole))

    # ------------------------------------------------------------ clients

    cdef MqttSnPeer peer_at(self, const Address* source, bytes forwarding):
        """Return the client behind a forwarder, or None."""
        return <MqttSnPeer>self.forwarded.get(address_key(source) + forwarding)

    cdef bint make_room(self) except -1:
        """Let clients go whose address is not proved, the longest silent first. Return whether there is room."""
        while len(self.proved) + len(self.unproved) >= self.settings.peers:
            if not self.unproved:
                return False
            (<MqttSnPeer>next(iter(self.unproved))).end("mqtt_sn_evicted", True)
        return True

    cdef int place(self, MqttSnPeer peer) except -1:
        """Enter a client under its address."""
        cdef Outbox outbox = peer.outbox
        if outbox.forwarding is None:
            self.by_address.add(&outbox.address, peer)
        else:
            self.forwarded[address_key(&outbox.address) + outbox.forwarding] = peer
        if outbox.proved:
            self.proved.add(peer)
        else:
            self.unproved[peer] = None
        return 0

    cdef int displace(self, MqttSnPeer peer) except -1:
        """Take a client out of its place."""
        cdef Outbox outbox = peer.outbox
        if outbox.forwarding is None:
            self.by_address.remove(&outbox.address)
        else:
            del self.forwarded[address_key(&outbox.address) + outbox.forwarding]
        self.proved.discard(peer)
        self.unproved.pop(peer, None)
        return 0

    cdef int remove(self, MqttSnPeer peer) except -1:
        """Forget a client."""
        self.forget_sleeper(peer)
        return self.displace(peer)

    cdef int prove(self, MqttSnPeer peer) except -1:
        """Note that the address of a client is proved."""
        if peer in self.unproved:
            del self.unproved[peer]
            self.proved.add(peer)
        return 0

    cdef int add_sleeper(self, MqttSnPeer peer) except -1:
        """Let a client be found by its client ID."""
        self.sleepers[principal_of(peer), peer.client_id] = peer
        return 0

    cdef int forget_sleeper(self, MqttSnPeer peer) except -1:
        """Let a client no longer be found by its client ID."""
        key = (principal_of(peer), peer.client_id)
        if self.sleepers.get(key) is peer:
            del self.sleepers[key]
        return 0

    cdef int forget(self, const Address* address) except -1:
        """Disconnect the client of a DTLS session that has ended."""
        cdef MqttSnPeer peer = <MqttSnPeer>self.by_address.find(address)
        cdef UnconnectedPublisher publisher = self.publishers.get(address_key(address))
        if publisher is not None:
            publisher.end("mqtt_sn_session_ended")
        if peer is None:
            return 0
        if peer.state == ASLEEP:
            return 0  # it comes back with another session
        return peer.end("mqtt_sn_session_ended", False)

    # ------------------------------------------------------------ time

    cdef int flush_later(self, MqttSnPeer peer) except -1:
        """Write the output of a client's connection at the end of this tick."""
        if not self.woken:
            self.loop.call_soon(self.flush_woken)
        self.woken.append(peer)
        return 0

    def flush_woken(self):
        """Write what the connections of clients have for them."""
        cdef MqttSnPeer peer
        cdef list woken = self.woken
        self.woken = []
        self.now = self.loop.time()
        for peer in woken:
            if peer.state != GONE:
                peer.flush()

    cdef int add_timer(self, MqttSnPeer peer) except -1:
        """Call `expire` of a client when it is due."""
        if len(self.timers) > 2 * (len(self.proved) + len(self.unproved)) + STALE_TIMERS:
            self.drop_stale_timers()
        self.timer_count += 1
        heappush(self.timers, (peer.due, self.timer_count, peer))
        return 0

    cdef int drop_stale_timers(self) except -1:
        """Drop timers of clients that have gone, or that have an earlier one."""
        cdef MqttSnPeer peer
        cdef dict kept = {}
        for timer in self.timers:
            peer = timer[2]
            if peer.state != GONE and peer.due == timer[0]:
                kept[peer] = timer
        self.timers = [*kept.values()]
        heapify(self.timers)
        return 0

    cdef bint check(self, double now) except -1:
        """Act on time that has passed. Return whether there may be more to do."""
        cdef MqttSnPeer peer
        cdef UnconnectedPublisher publisher
        cdef double due
        cdef int _
        self.now = now
        if self.advertised is not None and now >= self.advertise_at:
            self.advertise_at = now + self.advertise_interval
            self.send_advertisement()
        for _ in range(DUE_PER_CALL):
            publisher = next(iter(self.publishers.values()), None)
            if publisher is None or publisher.last_received >= now - PUBLISHER_TIMEOUT:
                break
            publisher.end("mqtt_sn_idle")
        for _ in range(DUE_PER_CALL):
            if not self.timers or self.timers[0][0] > now:
                return False
            due, _number, peer = heappop(self.timers)
            if peer.state == GONE or peer.due != due:
                continue  # it has gone, or has an earlier entry
            peer.due = 0
            peer.expire(now)
        return True

    def send_advertisement(self):
        """Send an ADVERTISE (6.1)."""
        message = advertise_message(self.settings.gateway_id, min(int(self.advertise_interval), 65535))
        try:
            self.socket.socket.sendto(message, self.advertised)
        except OSError:
            self.counters.count("dropped", "udp_unsendable")


cdef str principal_of(MqttSnPeer peer):
    """Return what tells equal client IDs of different clients apart."""
    return "" if peer.client is None else peer.client.principal
