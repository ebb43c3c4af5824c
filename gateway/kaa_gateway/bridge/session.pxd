from libc.stdint cimport uint32_t

from kaa_gateway.kp.session cimport Session
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.wire.buffer cimport Buffer


cdef class BridgedEndpoint(Session):
    # wiring
    cdef Uplink uplink
    cdef Sessions sessions
    cdef object bridge           # BridgeEvents
    # state
    cdef readonly object endpoint_key   # (application version, token), or None for messages without a token
    cdef public bint owned       # pushes to its endpoint are this bridge's to deliver
    cdef dict references         # number -> reference of a message that NATS has not confirmed
    cdef uint32_t last_number
    cdef Buffer scratch
