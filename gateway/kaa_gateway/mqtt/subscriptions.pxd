from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.wire.buffer cimport Buffer, Slice


cdef enum:
    NO_MATCH = -1   # no topic filter matches


cdef class Subscriptions:
    # state
    cdef dict granted            # topic filter -> granted QoS
    cdef dict identifiers        # topic filter -> its Subscription Identifier, of MQTT 5; None before the first
    cdef Py_ssize_t[3] counts    # of topic filters, by granted QoS
    cdef Py_ssize_t bytes        # that they take, roughly

    cdef int add(self, bytes topic_filter, uint8_t qos, uint32_t identifier) except -1
    cdef bint remove(self, bytes topic_filter) except -1
    cdef int count(self, bytes topic_filter, uint8_t qos, Py_ssize_t number) except -1
    cdef int qos_of(self, Slice topic) except -2
    cdef int append_identifiers(self, Buffer properties, Slice topic) except -1
    cdef int pushed_qos(self, Slice topic) except -2


cdef bint matches(Slice topic_filter, Slice topic) noexcept nogil
