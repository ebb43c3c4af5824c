from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.mqtt.outgoing cimport Outgoing


cdef enum:
    RECEIPT_SIZE = 512        # bytes that the receipt of a message counts for


cdef class QueuedMessage:
    # A copy of a message: see Outgoing.
    cdef bytes topic
    cdef bytes payload
    cdef bytes properties
    cdef int64_t deadline
    cdef uint8_t qos
    cdef bint repeats
    cdef Receipt receipt      # or None

    cdef Outgoing outgoing(self) noexcept


cdef class MessageQueue:
    # state
    cdef object messages      # deque of QueuedMessage
    cdef Py_ssize_t bytes     # of their topics, payloads and properties

    cdef int append(self, const Outgoing* message) except -1
    cdef QueuedMessage first(self)
    cdef int remove_first(self) except -1


cdef inline Py_ssize_t size_of(const Outgoing* message) noexcept nogil:
    # Return the bytes that a queued message counts for.
    cdef Py_ssize_t size = message.topic.size + message.payload.size + message.properties.size
    return size if message.receipt == NULL else size + RECEIPT_SIZE
