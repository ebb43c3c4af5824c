from libc.stdint cimport uint64_t

from kaa_gateway.counters cimport Histogram


cdef class Route:
    # wiring
    cdef readonly str pattern
    cdef readonly object handler     # takes the request; with `batch` a list of requests
    cdef readonly str respond
    cdef readonly bint streams       # the handler is an async generator
    cdef readonly bint batch
    # state
    cdef list gathered               # requests for the batch of this turn of the event loop
    # counters
    cdef uint64_t ok                 # responses with status 200
    cdef dict others                 # responses by their status, if that is not 200
    cdef readonly Histogram seconds  # from the arrival of a request to its response

    cdef int count(self, int status_code, double seconds) except -1
