from kaa_gateway.counters cimport Counters, Protocol
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.net.transport cimport ProtocolServer


cdef class PluginServer(ProtocolServer):
    # wiring
    cdef readonly object loop
    cdef Uplink uplink
    cdef Sessions sessions
    cdef PendingRequests pending
    cdef Counters counters
    cdef InputMemory input_memory
    cdef object client_of            # makes a Client of a certificate; or None
    # settings
    cdef readonly str name
    cdef Protocol protocol
    cdef object protocol_class       # the plug-in's
    cdef object message_size         # its method
    cdef dict reasons                # of the plug-in -> as they are counted
    cdef object options              # of new connections
    cdef bytes app_version
    cdef Py_ssize_t message_size_max
    cdef double login_timeout        # seconds
    cdef double idle_timeout         # seconds
    # state
    cdef bint draining

    cdef str counted_reason(self, reason)
    cdef int log_fault(self, error) except -1
