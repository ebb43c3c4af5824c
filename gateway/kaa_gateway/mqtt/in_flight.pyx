"""The packets to one client that it has not acknowledged: PUBLISH of QoS 1 and 2, and PUBREL.

They outlive the connection with their session, and are sent again over the next one, encoded for its protocol level.

Source: MQTT 3.1.1 sections 4.3 (QoS), 4.4 (delivery retry), 4.6 (order); MQTT 5 sections 4.4 and 4.9 (flow control).
"""

from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.mqtt.message_queue cimport RECEIPT_SIZE
from kaa_gateway.mqtt.outgoing cimport EXPIRY_SIZE, Outgoing, append_message
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.mqtt cimport (
    LEVEL_5, PUBREL, REMAINING_LENGTH_MAX, Packet, PublishView, append_ack, next_packet, read_publish,
)
from kaa_gateway.wire.mqtt_properties cimport MESSAGE_EXPIRY_INTERVAL, has

from kaa_gateway.bus import push_receipts

cdef str DELIVERED = push_receipts.DELIVERED
cdef str DROPPED = push_receipts.DROPPED

cdef enum:
    PUBREL_SIZE = 4           # bytes
    DUP = 0x08                # flag of PUBLISH


cdef class InFlight:
    """Packets by their packet identifier, in the order in which they were sent first."""

    def __init__(self):
        self.packets = {}

    def __len__(self):
        return len(self.packets)

    cdef uint16_t next_packet_id(self) except 0:
        """Return a free packet identifier. There is one: the window is much smaller than their number."""
        while True:
            self.last_packet_id = 1 if self.last_packet_id == 65535 else self.last_packet_id + 1
            if self.last_packet_id not in self.packets:
                return self.last_packet_id

    cdef bint has_room(self, Py_ssize_t size, uint32_t window, Py_ssize_t bytes_max) except -1:
        """Return whether another message, of `size` bytes, may be in flight.

        There is a limit of bytes too, because a client may never acknowledge; one message is always allowed.
        """
        return not self.packets or (
            self.unsent is None and <uint32_t>len(self.packets) < window and self.bytes + size <= bytes_max
        )

    cdef int add(self, uint16_t packet_id, bytes packet, uint8_t level, int64_t deadline) except -1:
        """Keep a PUBLISH that is sent now, without Topic Alias: it may be sent again over another connection."""
        self.packets[packet_id] = packet
        self.level = level
        self.bytes += len(packet)
        self.sent_bytes += len(packet)
        if deadline:
            if self.deadlines is None:
                self.deadlines = {}
            self.deadlines[packet_id] = deadline
        return 0

    cdef int add_receipt(self, uint16_t packet_id, Receipt receipt) except -1:
        """Report what becomes of a message that has been added."""
        if self.receipts is None:
            self.receipts = {}
        self.receipts[packet_id] = receipt
        return 0

    cdef Py_ssize_t memory(self) except -1:
        """Return the bytes of all messages, roughly."""
        return self.bytes if self.receipts is None else self.bytes + RECEIPT_SIZE * len(self.receipts)

    # ------------------------------------------------------------ acknowledgements

    cdef int end_receipt(self, uint16_t packet_id, str outcome, str reason) except -1:
        """Report what has become of a push, if its extension wants to know."""
        cdef Receipt receipt = self.receipts.pop(packet_id, None)
        return 0 if receipt is None else receipt.end(outcome, reason)

    cdef bint on_puback(self, uint16_t packet_id, bint success) except -1:
        """The client has a message, or refuses it. Return False if the packet identifier is an old one."""
        # A packet identifier that waits for PUBCOMP is in flight as None: PUBACK does not end that.
        packet = self.packets.get(packet_id)
        if packet is None:
            return False
        del self.packets[packet_id]
        if self.receipts is not None:
            if success:
                self.end_receipt(packet_id, DELIVERED, None)
            else:
                self.end_receipt(packet_id, DROPPED, "mqtt_refused_by_client")
        return self.complete(packet_id, len(packet), 0)

    cdef bint on_pubrec(self, uint16_t packet_id) except -1:
        """The client has a QoS 2 message, and is to get PUBREL. Return False if it has sent PUBREC before."""
        packet = self.packets.get(packet_id)
        if packet is None:
            return False
        self.packets[packet_id] = None
        return self.complete(packet_id, len(packet), PUBREL_SIZE)

    cdef bint on_pubcomp(self, uint16_t packet_id) except -1:
        """The client has forgotten the packet identifier, which is free again. Return False if it is an old one."""
        if self.packets.get(packet_id, b"") is not None:
            return False
        del self.packets[packet_id]
        if self.receipts is not None:
            self.end_receipt(packet_id, DELIVERED, None)
        return self.complete(packet_id, PUBREL_SIZE, 0)

    cdef bint complete(self, uint16_t packet_id, Py_ssize_t before, Py_ssize_t after) except -1:
        """Count a packet of `before` bytes that is acknowledged, and of which `after` remain in flight. True."""
        self.bytes += after - before
        self.sent_bytes += after
        if self.deadlines:
            self.deadlines.pop(packet_id, None)
        if self.unsent is not None and packet_id in self.unsent:
            del self.unsent[packet_id]  # it was sent over a former connection only
        else:
            self.sent_bytes -= before
        return True

    # ------------------------------------------------------------ sending again

    cdef int end_connection(self) except -1:
        """The connection has ended: nothing has been sent over the next one."""
        self.unsent = None
        self.sent_bytes = 0
        return 0

    cdef int begin_sending_again(self, uint8_t level, uint32_t packet_size_max, Counters counters) except -1:
        """The client is back, and takes packets of this protocol level and size: offer all to `take_unsent`."""
        if self.level != level or self.deadlines or packet_size_max:
            self.encode_again(level, packet_size_max, counters)
        self.unsent = dict.fromkeys(self.packets) if self.packets else None
        return 0

    cdef int encode_again(self, uint8_t level, uint32_t packet_size_max, Counters counters) except -1:
        """Encode the messages for another connection, with the time that is left.

        A message that has become too large for the client counts as sent (MQTT 5, 3.1.2.11.4).
        """
        cdef Packet packet
        cdef PublishView publish
        cdef Outgoing message
        cdef Buffer again = Buffer()
        cdef bytes former
        for packet_id, former in list(self.packets.items()):
            if former is None:
                continue
            next_packet(<const uint8_t*>former, len(former), REMAINING_LENGTH_MAX, &packet)
            read_publish(&packet, self.level, &publish)
            message = Outgoing(publish.topic, publish.payload, Slice(NULL, 0), 0, publish.qos, False, NULL)
            if self.level >= LEVEL_5:
                message.properties = publish.properties.encoded
                if has(&publish.properties, MESSAGE_EXPIRY_INTERVAL):  # always the first
                    message.properties.data += EXPIRY_SIZE
                    message.properties.size -= EXPIRY_SIZE
            if self.deadlines is not None:
                message.deadline = self.deadlines.get(packet_id, 0)
            again.size = 0
            self.bytes -= len(former)
            if append_message(again, level, packet_size_max, None, &message, packet.flags, packet_id):
                self.packets[packet_id] = again.copy()
                self.bytes += again.size
            else:
                counters.count("dropped", "mqtt_packet_size_of_client")
                del self.packets[packet_id]
                if self.receipts is not None:
                    self.end_receipt(packet_id, DROPPED, "mqtt_packet_size_of_client")
                if self.deadlines is not None:
                    self.deadlines.pop(packet_id, None)
        self.level = level
        return 0

    cdef bytes take_unsent(self, uint32_t window, Py_ssize_t bytes_max):
        """Return the next packet to send again, in order (4.6), or None if there is none now.

        No more than `bytes_max` bytes are unacknowledged meanwhile, and no more packets than the window of the client,
        which may take fewer than it did over a former connection. One packet is always allowed.
        """
        cdef Buffer release
        cdef Py_ssize_t size
        if not self.unsent:
            self.unsent = None
            return None
        packet_id = next(iter(self.unsent))
        packet = self.packets[packet_id]
        if packet is not None and <uint32_t>(len(self.packets) - len(self.unsent)) >= window:
            return None
        size = PUBREL_SIZE if packet is None else len(packet)
        if self.sent_bytes and self.sent_bytes + size > bytes_max:
            return None
        del self.unsent[packet_id]
        self.sent_bytes += size
        if packet is not None:
            return bytes([packet[0] | DUP]) + packet[1:]
        release = Buffer()
        append_ack(release, PUBREL, packet_id)
        return release.copy()
