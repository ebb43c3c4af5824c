from libc.stdint cimport uint8_t, uint32_t

from kaa_gateway.http.parser cimport RequestParser
from kaa_gateway.http.pipeline cimport Pipeline
from kaa_gateway.http.refusals cimport Refusal
from kaa_gateway.http.response cimport Persistence
from kaa_gateway.http.server cimport HttpServer
from kaa_gateway.http.states cimport State
from kaa_gateway.http.wait_clock cimport Wait, WaitClock
from kaa_gateway.kp.session cimport Session
from kaa_gateway.net.transport cimport ProtocolCore
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef class HttpConnection(ProtocolCore):
    # wiring
    cdef HttpServer server
    cdef Session session         # an HttpSession
    cdef RequestParser parser
    # state
    cdef State state
    cdef bint is_ending          # the gateway ends the connection
    cdef bint identified         # the session's client is known, by the credentials in `authorization`
    cdef bytes authorization
    cdef Buffer input            # bytes that are not parsed yet
    cdef bint is_http_1_0        # the last request is one of HTTP/1.0
    cdef bint has_input_behind   # bytes behind the request in the parser are here
    cdef Pipeline requests       # those that wait for their response
    cdef object waiting          # the WaitingRequest among them, or None
    cdef WaitClock clock

    cdef int move(self, State state) except -1
    cdef bint is_serving(self) noexcept
    cdef int count_input(self) except -1
    cdef int parse_input(self) except -1
    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef uint32_t open_request(self) except? 0
    cdef int on_request(self) except -1
    cdef bint is_last_request(self) noexcept
    cdef int dispatch(self, Refusal refusal) except -1
    cdef int answer_preflight(self) except -1
    cdef int on_head(self, bint body_is_late) except -1
    cdef int refuse_body(self, Refusal refusal) except -1
    cdef int ask_for_body(self, bint body_is_late) except -1
    cdef bint needs_authentication(self) except -1
    cdef int authenticate(self, bint body_is_late) except -1
    cdef int identify(self, bytes authorization, client, bint body_is_late) except -1
    cdef int go_on(self, Refusal refusal, bint body_is_late) except -1
    cdef int publish(self, uint32_t number) except -1
    cdef bint is_taken_by_waiting(self, uint32_t number, const ExtensionDataView* data) except -1
    cdef int stop_waiting(self, uint32_t number) except -1
    cdef int give_parser_back(self) except -1
    cdef int send_continue(self) except -1
    cdef int refuse(self, uint32_t number, Refusal refusal) except -1
    cdef int refuse_and_close(self, Refusal refusal, bint lingers) except -1
    cdef Persistence persistence(self, uint32_t number) noexcept
    cdef Buffer buffer_of(self, uint32_t number)
    cdef int acknowledge(self, uint32_t number) except -1
    cdef int respond(self, uint32_t number, const ExtensionDataView* data) except -1
    cdef int fail(self, uint32_t number, int status, str phrase, bint with_body, bytes fields=*) except -1
    cdef int send_in_order(self, uint32_t number) except -1
    cdef int finish(self) except -1
    cdef bint is_receiving(self) noexcept
    cdef Wait current_wait(self) noexcept
