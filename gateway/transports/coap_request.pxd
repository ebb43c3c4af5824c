from libc.stdint cimport int64_t, uint8_t

from gateway.wire.buffer cimport Buffer, Slice
from gateway.wire.coap cimport Block, MessageView


cdef struct Request:
    # What the options of a request say; slices borrow from the datagram. -1 is absent.
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


cdef tuple read_request(const MessageView* view, Buffer path, Request* request)
