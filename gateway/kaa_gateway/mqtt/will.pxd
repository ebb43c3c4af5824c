from libc.stdint cimport int64_t, uint8_t, uint32_t

from kaa_gateway.kp.session cimport Session
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.wire.mqtt cimport ConnectView


cdef class Will:
    cdef bytes topic
    cdef bytes message
    cdef uint8_t qos
    # of MQTT 5
    cdef uint32_t delay          # seconds between the loss of the connection and the publication
    cdef int64_t timeout         # ms until an answer is of no use; 0 = never

    cdef int publish(self, Uplink uplink, Session session) except -1


cdef Will will_of(const ConnectView* connect)
