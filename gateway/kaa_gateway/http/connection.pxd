from libc.stdint cimport int64_t, uint8_t, uint32_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.kp.pending cimport PendingRequests
from kaa_gateway.kp.sessions cimport Session, Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.http.parser cimport RequestLimits, RequestParser
from kaa_gateway.http.response cimport Persistence
from kaa_gateway.net.transport cimport InputMemory, ProtocolCore
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class HttpServer:
    # wiring
    cdef object loop
    cdef Uplink uplink
    cdef Sessions sessions
    cdef PendingRequests pending
    cdef Counters counters
    cdef object authenticator          # admits clients: kaa_gateway.identity.clients
    cdef bint authenticates            # whether it is asked at all
    cdef bint demands_credentials      # whether there is no request without
    cdef RequestLimits limits
    cdef InputMemory input_memory
    cdef bytes path_prefix
    cdef double read_timeout           # seconds
    cdef double keep_alive_timeout     # seconds
    cdef uint32_t pipelined_max        # requests of a connection
    # state
    cdef set connections
    cdef bint draining
    cdef Buffer path                   # of the request being handled
    cdef Buffer scratch                # a response that is given before its turn


cdef class HttpSession(Session):
    # wiring
    cdef HttpConnection connection     # None once it is gone


cdef enum State:
    SERVING
    FINISHING    # takes no more requests, and ends after the last response
    LINGERING    # that is written; lets a client that is still sending read it
    ENDED


# What a connection waits for, as HttpConnection.check sees it.
cdef enum Wait:
    FIRST_REQUEST
    NEXT_REQUEST
    REST_OF_REQUEST
    ANSWER
    END_OF_CLIENT


cdef class HttpConnection(ProtocolCore):
    # wiring
    cdef HttpServer server
    cdef HttpSession session
    cdef RequestParser parser
    # state
    cdef State state
    cdef bint lingers            # FINISHING goes over to LINGERING
    cdef bint paused             # as many requests wait as may; what follows them is held
    cdef bint recognised         # requests with this Authorization are the session's client's:
    cdef bytes authorization
    cdef bint authenticating     # that of the request in the parser; what follows it is held
    cdef bint continue_owed      # 100 Continue, once the responses before it are written
    cdef Buffer tail             # bytes of requests not yet taken
    # requests that wait for their response, numbered by `first` and those that follow it
    cdef uint32_t first
    cdef uint32_t count
    cdef dict early              # number -> response, of those answered before their turn; None if there are none
    # state of the clock
    cdef Wait wait
    cdef uint32_t wait_number    # of the request that follows, to tell one wait from the next of its kind
    cdef double wait_start       # loop time at which check first saw this wait

    cdef int count_input(self) except -1
    cdef int take_tail(self) except -1
    cdef Py_ssize_t take(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef uint32_t open_request(self) except? 0
    cdef int on_request(self) except -1
    cdef int settle(self, tuple refusal) except -1
    cdef int on_head(self, bint body_is_late) except -1
    cdef int refuse_body(self, tuple refusal) except -1
    cdef int ask_for_body(self, bint body_is_late) except -1
    cdef bint is_strange(self) except -1
    cdef int authenticate(self, bint body_is_late) except -1
    cdef int recognise(self, bytes authorization, client, bint body_is_late) except -1
    cdef int conclude(self, tuple refusal, bint body_is_late) except -1
    cdef int publish(self, uint32_t number) except -1
    cdef tuple judge(self)
    cdef int send_continue(self) except -1
    cdef int refuse(self, uint32_t number, tuple refusal) except -1
    cdef int end_with(self, tuple refusal, bint lingers) except -1
    cdef bint is_open(self, uint32_t number) noexcept
    cdef Persistence persistence(self, uint32_t number) noexcept
    cdef Buffer place(self, uint32_t number)
    cdef int confirm(self, uint32_t number) except -1
    cdef int respond(self, uint32_t number, const ExtensionDataView* data) except -1
    cdef int fail(self, uint32_t number, int status, str phrase, bint with_body, bytes fields=*) except -1
    cdef int answered(self, uint32_t number) except -1
    cdef int finish(self) except -1
    cdef bint is_receiving(self) noexcept
    cdef Wait current_wait(self) noexcept
    cdef int drain(self) except -1
