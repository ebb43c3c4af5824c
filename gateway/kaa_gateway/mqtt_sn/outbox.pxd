from libc.stdint cimport uint8_t, uint16_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.mqtt_sn.settings cimport MqttSnSettings
from kaa_gateway.mqtt_sn.topics cimport ClientTopics
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.udp cimport UdpSocket
from kaa_gateway.wire.buffer cimport Buffer, Slice


# What the client is to answer before the next message is sent to it.
cdef enum Awaited:
    NO_ANSWER
    AWAIT_REGACK
    AWAIT_PUBACK
    AWAIT_PUBREC
    AWAIT_PUBCOMP


cdef class OutgoingMessage:
    # A PUBLISH, or a PUBREL, whose topic is None.
    cdef uint16_t message_id
    cdef uint8_t flags           # QoS and Retain, and DUP once it was sent
    cdef bint corrected          # the client did not know its topic ID, and was told that again
    cdef bytes topic
    cdef bytes payload


cdef class Outbox:
    # wiring
    cdef UdpSocket socket
    cdef Counters counters
    cdef MqttSnSettings settings
    cdef ClientTopics topics
    cdef Buffer scratch          # the message under construction; shared by the clients of a socket
    # state of the address
    cdef Address address
    cdef bytes forwarding        # header for the forwarder between, or None
    cdef bint proved             # the client has answered what only the address could see
    cdef uint64_t credit         # bytes that may be sent to an address that is not proved
    # state
    cdef bint held               # the client sleeps: messages wait
    cdef object waiting          # deque of OutgoingMessage; None before the first
    cdef Py_ssize_t waiting_messages   # of QoS 0 among them
    cdef Py_ssize_t waiting_bytes      # of these
    cdef OutgoingMessage current       # that is not acknowledged yet, or None
    cdef Awaited awaited
    cdef uint16_t awaited_id     # message ID of the answer
    cdef int attempts
    cdef double retry_at         # loop time
    cdef list dropped            # QoS 1 and 2 messages that will not be acknowledged; None: none

    cdef int move(self, const Address* address, bytes forwarding) except -1
    cdef int received(self, Py_ssize_t size) noexcept
    cdef bint transmit(self) except -1
    cdef int send_empty(self, uint8_t type) except -1
    cdef int send_byte(self, uint8_t type, uint8_t value) except -1
    cdef int send_id(self, uint8_t type, uint16_t message_id) except -1
    cdef int send_acknowledgement(self, uint8_t type, uint16_t topic_id, uint16_t message_id, uint8_t code) except -1
    cdef int publish(self, uint8_t flags, uint16_t message_id, Slice topic, Slice payload, double now) except -1
    cdef int release(self, uint16_t message_id, double now) except -1
    cdef int put(self, OutgoingMessage message) except -1
    cdef bint is_busy(self) noexcept
    cdef bint is_idle(self) noexcept
    cdef int send_waiting(self, double now) except -1
    cdef int begin(self, OutgoingMessage message, double now) except -1
    cdef int begin_register(self, OutgoingMessage message, uint16_t topic_id, double now) except -1
    cdef int await_answer(self, Awaited awaited, uint16_t message_id, double now) except -1
    cdef int drop(self, OutgoingMessage message, str reason) except -1
    cdef int hold(self) except -1
    cdef int on_regack(self, uint16_t topic_id, uint16_t message_id, uint8_t return_code, double now) except -1
    cdef bint on_puback(self, uint16_t topic_id, uint16_t message_id, uint8_t return_code, double now) except -1
    cdef bint on_pubrec(self, uint16_t message_id) except -1
    cdef int on_pubcomp(self, uint16_t message_id, double now) except -1
    cdef bint retransmit(self, double now) except -1
