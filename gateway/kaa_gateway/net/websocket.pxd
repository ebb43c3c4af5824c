from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.net.transport cimport ProtocolCore, ProtocolServer, Transport
from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.websocket cimport CONTROL_PAYLOAD_MAX, HEADER_SIZE_MAX, FrameHeader


cdef enum State:
    AWAITING_UPGRADE
    OPEN
    CLOSE_SENT                       # frames are discarded until the peer's Close frame
    CLOSE_RECEIVED                   # the Close frame is sent after the answers that are due
    ENDED                            # refused, or both Close frames are there


cdef class WebSocketServer(ProtocolServer):
    # wiring
    cdef object loop
    cdef ProtocolServer protocol_server  # makes the cores within WebSockets
    cdef Counters counters
    # settings
    cdef uint64_t frame_size_max     # bytes
    cdef double handshake_timeout    # seconds
    cdef frozenset paths             # of the request, as bytes
    cdef tuple subprotocols          # that are spoken, as bytes
    cdef bint keeps_messages         # each message of the core is one of the WebSocket
    # state
    cdef Buffer plain                # unmasked payload, shared by all connections: emptied before a call ends


cdef class WebSocketTransport(Transport):
    # wiring
    cdef WebSocketConnection websocket


cdef class WebSocketConnection(ProtocolCore):
    # wiring
    cdef WebSocketServer server
    cdef ProtocolCore core           # None before the WebSocket is open, and after the end
    # state
    cdef State state
    cdef double start_time           # loop time
    cdef Buffer head                 # head of the request, while it is incomplete
    cdef FrameHeader frame           # the one being received
    cdef uint64_t received           # bytes of its payload so far
    cdef bint in_frame
    cdef bint in_message             # the last frame of a message is still to come
    cdef uint8_t[HEADER_SIZE_MAX] header_bytes     # the header, while it is incomplete
    cdef Py_ssize_t header_size
    cdef uint8_t[CONTROL_PAYLOAD_MAX] control      # payload of the control frame being received
    cdef int close_code              # code of our Close frame, or 0
    cdef bint close_due              # the core has closed: send our Close frame with the output of this tick
    cdef bint close_sent
    cdef double close_time           # loop time at which our Close frame was sent

    cdef int violation(self, str reason, int close_code) except -1
    cdef Py_ssize_t upgrade(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int receive_frames(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t begin_frame(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int check_frame(self) except -1
    cdef Py_ssize_t take_payload(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int on_control(self) except -1
    cdef int deliver(self) except -1
    cdef int close_core(self) except -1
    cdef int release_core(self) except -1
