from libc.stdint cimport uint8_t

from kaa_gateway.wire.buffer cimport Slice


cdef enum:
    NO_WAIT = 0
    BAD_WAIT = -1
    NO_BATCH = 0
    BAD_BATCH = -1


cdef struct Query:
    # What the query of a request says.
    bint no_answer     # the sender wants no answer of the extension
    int wait           # seconds that it waits for a push; NO_WAIT or BAD_WAIT
    int batch          # pushes that it takes in one response; NO_BATCH or BAD_BATCH


cdef void clear_query(Query* query) noexcept nogil
cdef void read_parameter(Slice parameter, Query* query) noexcept nogil
cdef void read_query(const uint8_t* at, const uint8_t* end, Query* query) noexcept nogil
