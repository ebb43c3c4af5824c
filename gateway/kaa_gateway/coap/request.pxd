from libc.stdint cimport int64_t, uint8_t

from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.coap cimport Block, Format, MessageView


# Why a request can be no more than answered with an error; refusal_of says with which.
cdef enum Refusal:
    NO_REFUSAL
    UNKNOWN_OPTION
    PROXYING
    BAD_PATH
    BAD_BLOCK


cdef struct Request:
    # What the options of a request say; slices borrow from the datagram. -1 is absent.
    Refusal refusal
    int accept
    int observe
    int no_response
    bint unanswered      # the query asks for no answer of the extension
    int64_t size1
    bint has_block1
    Block block1
    bint has_block2
    Block block2
    Slice echo           # data NULL if absent
    Slice request_tag


cdef Format read_request(MessageView* view, Buffer path, Request* request) except <Format>-1
cdef tuple refusal_of(Refusal refusal)
