from libc.stdint cimport int64_t

from kaa_gateway.coap.exchanges cimport Exchange, ExchangeList


cdef class WaitingTable:
    # settings
    cdef Py_ssize_t requests_max
    cdef Py_ssize_t per_peer_max
    cdef readonly double wait_max    # seconds
    # state
    cdef dict slots                  # second -> ExchangeList of those that wait until then
    cdef int64_t earliest            # no slot is earlier
    cdef readonly Py_ssize_t count   # of all that wait, and of those that will when NATS has their messages

    cdef bint admit(self, Py_ssize_t of_peer) noexcept
    cdef int schedule(self, Exchange exchange, double deadline) except -1
    cdef int remove(self, Exchange exchange) except -1
    cdef list due(self, double now, Py_ssize_t limit)
    cdef list some(self, Py_ssize_t limit)
