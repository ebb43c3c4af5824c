from libc.stdint cimport uint32_t

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.kp.session cimport Session
from kaa_gateway.kp.uplink cimport Outcome
from kaa_gateway.plugins.server cimport PluginServer


cdef class PluginSession(Session):
    # wiring
    cdef PluginServer server
    cdef object device           # the plug-in's DeviceProtocol; None before it is made, and after its end
    # state
    cdef bint ended              # the plug-in is told nothing more, and cannot act
    cdef bytes token             # of the last `identify`, or None
    cdef bytes app_version       # of the last `identify`, or the configured one
    cdef dict topics             # path -> topic, for `token`
    cdef dict references         # number -> reference of a message that NATS has not confirmed
    cdef dict requests           # number -> reference of a request without an answer
    cdef uint32_t last_number
    cdef object held             # deque of (topic, payload, service, number) that the uplink has not taken; or None
    cdef Py_ssize_t held_bytes
    cdef list deferred           # (method, arguments) to call at the end of this tick, or None
    cdef bint blocked            # the device is not read now
    cdef bint input_ended        # it has closed its sending side
    cdef double timer_at         # loop time; 0: there is none

    cdef int open(self) except -1
    cdef int start(self) except -1
    cdef object call(self, method, tuple arguments)
    cdef int tell(self, str name, tuple arguments) except -1
    cdef int tell_later(self, str name, tuple arguments) except -1
    cdef int receive_message(self, bytes message) except -1
    cdef int on_error(self, error) except -1
    cdef int fault(self, error) except -1
    cdef int hang_up(self, str reason) except -1
    cdef int finish(self) except -1
    cdef bint is_busy(self) noexcept
    cdef int block(self) except -1
    cdef int unblock(self) except -1
    cdef int expire_timer(self, double now) except -1
    cdef bytes topic_of(self, str path, str token)
    cdef bytes make_topic(self, str path, bytes token)
    cdef uint32_t next_number(self) noexcept
    cdef int offer(self, bytes topic, bytes payload, Service service, uint32_t number) except -1
    cdef Outcome forward(self, bytes topic, bytes payload, Service service, uint32_t number) except *
    cdef int refuse(self, Service service, uint32_t number, int status, str phrase) except -1
    # what the transport does
    cdef int write(self, bytes data) except -1
    cdef int disconnect_device(self) except -1
    cdef int admit(self) except -1
    cdef int pause(self) except -1
    cdef int go_on(self) except -1
    cdef int on_timer_set(self) except -1
