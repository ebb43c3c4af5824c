from libc.stdint cimport uint8_t, uint16_t

from kaa_gateway.coap.message_stream cimport MessageStream
from kaa_gateway.coap.peer cimport CoapPeer
from kaa_gateway.coap.stream_server cimport CoapStreamServer
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport MessageView


cdef enum StreamState:
    AWAITING_CSM
    AUTHENTICATING       # nothing is read until the provider has answered
    OPEN
    RELEASED             # by the peer: it is closed when no request waits
    ENDED                # nothing is sent or handled any more


cdef class CoapStream(MessageStream):
    # wiring
    cdef CoapStreamServer server
    cdef CoapPeer peer           # None once the connection is gone
    # state
    cdef StreamState state
    cdef bint release_sent
    cdef Buffer tail             # input that is not handled yet; None: there is none
    cdef list held               # whole messages of a WebSocket that have come while AUTHENTICATING, or None
    cdef Py_ssize_t wanted       # size of the first message in the tail, as far as it is known
    cdef uint16_t last_request   # takes the place of a message ID
    cdef int bad_csm_option      # for the Abort; 0: none
    cdef bint active             # bytes have come since the last check
    cdef double began            # loop time of the begin, without the time in which the gateway did not read
    cdef double last_active      # loop time of the last check that found it active
    cdef double pinged_at        # loop time of our Ping that is not answered; 0: there is none

    cdef int parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int keep(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int count_input(self) except -1
    cdef int go_on(self) except -1
    cdef int receive_whole(self, Buffer whole) except -1
    cdef int receive_message(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int receive_request(self, MessageView* view) except -1
    cdef int refuse_long_token(self, MessageView* view) except -1
    cdef int receive_signal(self, MessageView* view) except -1
    cdef int receive_csm(self, MessageView* view) except -1
    cdef int check_options(self, MessageView* view) except -1
    cdef int authenticate(self) except -1
    cdef int admit(self, client) except -1
    cdef int refuse_client(self, error) except -1
    cdef int send_signal(self, uint8_t code, Slice token, Buffer content) except -1
    cdef int send_csm(self) except -1
    cdef int release(self) except -1
    cdef int close_after_answers(self) except -1
