from kaa_gateway.bus.link cimport Link
from kaa_gateway.bus.listener cimport Listener


cdef class Outgoing(Listener):
    # wiring
    cdef Link link                  # None until the connection is opened
    cdef object on_full             # called with whether NATS is slower than we
    cdef object on_lost_message     # called when a message that was taken is given up
    cdef object on_connection       # called when there is a new connection
    cdef readonly Py_ssize_t bytes_max
