from libc.stdint cimport uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.http.parser cimport RequestLimits, RequestParser
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.net.input_memory cimport InputMemory
from kaa_gateway.net.transport cimport ProtocolServer
from kaa_gateway.wire.buffer cimport Buffer


cdef class HttpServer(ProtocolServer):
    # wiring
    cdef object loop
    cdef Uplink uplink
    cdef Sessions sessions
    cdef PendingRequests pending
    cdef Counters counters
    cdef object authenticator          # of clients: an Authenticator of kaa_gateway.identity.clients
    # settings
    cdef bint authenticates            # the credentials of each request are checked
    cdef bint demands_credentials      # and a request without credentials is refused
    cdef RequestLimits limits
    cdef InputMemory input_memory
    cdef bytes path_prefix
    cdef dict cors                     # allowed origin, "*" included -> header fields of its responses; None: no CORS
    cdef double read_timeout           # seconds
    cdef double keep_alive_timeout     # seconds
    cdef double wait_max               # seconds that a request may wait for a push
    cdef uint32_t pipelined_max        # requests of a connection
    # state
    cdef set connections
    cdef bint draining
    cdef bint drain_ended              # requests that are still held are refused
    cdef Buffer scratch                # a response that is given before its turn
    cdef RequestParser resting_parser  # of the connections that have none of their own; reads nothing
    cdef list spare_parsers

    cdef RequestParser take_parser(self)
    cdef int give_back(self, RequestParser parser) except -1
    cdef bytes cors_of(self, bytes origin)
