from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.esp cimport ExtensionDataView

# What a response says about its connection.
cdef enum Persistence:
    PERSISTENT   # nothing: HTTP/1.1 keeps connections
    KEEP_ALIVE   # to an HTTP/1.0 client that asked for it
    CLOSE


cdef int append_response(
    Buffer out, const ExtensionDataView* data, Persistence persistence, bytes fields, bytes cors
) except -1
cdef int append_error(
    Buffer out, int status, str phrase, Persistence persistence, bint with_body, bytes fields, bytes cors
) except -1
cdef int append_no_content(Buffer out, Persistence persistence, bytes cors) except -1
cdef int append_json(Buffer out, bytes body, Persistence persistence, bytes cors) except -1
cdef int append_stream_head(Buffer out, bytes cors) except -1
cdef bytes field_of_path(Slice path)
cdef int append_ok(Buffer out, Persistence persistence, bytes cors) except -1
cdef int append_preflight(Buffer out, Persistence persistence, bytes cors) except -1
cdef int append_continue(Buffer out) except -1
