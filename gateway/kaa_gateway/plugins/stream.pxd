from kaa_gateway.net.transport cimport ProtocolCore
from kaa_gateway.plugins.server cimport PluginServer
from kaa_gateway.plugins.session cimport PluginSession
from kaa_gateway.wire.buffer cimport Buffer


cdef class StreamConnection(ProtocolCore)


cdef class StreamSession(PluginSession):
    # wiring
    cdef StreamConnection connection    # None once it is gone


cdef class StreamConnection(ProtocolCore):
    # wiring
    cdef PluginServer server
    cdef StreamSession session
    # state
    cdef Buffer tail             # input that is not handled yet; None: there is none
    cdef Py_ssize_t wanted       # size of the first message in the tail, as far as it is known
    cdef bint active             # bytes have come since the last check
    cdef double began            # loop time of the begin, without the time in which the gateway did not read
    cdef double last_active      # loop time of the last check that found it active

    cdef int parse(self, bytes data) except -1
    cdef Py_ssize_t size_of_message(self, bytes data, Py_ssize_t at) except -1
    cdef int keep(self, const unsigned char* data, Py_ssize_t size) except -1
    cdef int count_input(self) except -1
    cdef int go_on(self) except -1
