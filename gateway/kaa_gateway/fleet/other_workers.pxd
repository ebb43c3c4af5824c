from kaa_gateway.fleet.connect_numbers cimport ConnectNumbers
from kaa_gateway.fleet.outbox cimport Outbox


cdef class OtherWorkers:
    # wiring
    cdef object loop
    cdef Outbox outbox
    cdef ConnectNumbers numbers
    cdef str subject           # of greetings
    cdef str inbox             # where this worker hears of others
    # state
    cdef readonly bint alone   # no other worker of the instance is there
    cdef dict seen             # inbox of another worker -> loop time of its last greeting
    cdef double next_hello     # loop time
    cdef set awaited           # those that have not greeted since a NATS server was lost
    cdef double settled_at     # loop time from which nobody waits for them
    cdef readonly bint stopping   # this worker has said goodbye

    cdef bint note(self, str inbox) except -1
    cdef int remove(self, str inbox) except -1
    cdef int set_alone(self) except -1
    cdef int forget_all(self) except -1
    cdef int wait_for_all(self) except -1
    cdef bint settled(self) except -1
    cdef int answer(self, str inbox) except -1
