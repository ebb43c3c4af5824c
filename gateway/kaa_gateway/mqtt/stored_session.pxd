from kaa_gateway.fleet.session_storage cimport SessionStorage, StoredSession
from kaa_gateway.kp.receipt cimport Receipt

cdef class MqttStoredSession(StoredSession)  # before the cimport, because MqttSession refers to it

from kaa_gateway.mqtt.message_queue cimport QueuedMessage
from kaa_gateway.mqtt.session cimport MqttSession
from kaa_gateway.mqtt.session_entry cimport SessionEntry


cdef class MqttStoredSession(StoredSession):
    # wiring
    cdef SessionStorage storage
    cdef SessionEntry entry
    cdef MqttSession session
    # state
    cdef bint whole            # more has changed than that messages were queued
    cdef bint lasting          # ... and also if all messages are acknowledged by now
    cdef bint has_messages     # the stream has messages of it
    cdef Py_ssize_t queued     # messages at the end of the queue that the stream does not have
    cdef list accepted         # receipts of pushes that the stream does not have
    cdef list taken            # receipts of pushes that are being written

    cdef int change(self) except -1
    cdef int change_messages(self) except -1
    cdef int queue_one(self) except -1
    cdef int hold(self, Receipt receipt) except -1
    cdef list additions_of(self, list messages, Py_ssize_t size_max)
    cdef int leave_out(self, QueuedMessage message) except -1
    cdef int close(self) except -1
