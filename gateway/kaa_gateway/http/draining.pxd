from kaa_gateway.http.connection cimport HttpConnection


cdef int drain(HttpConnection connection) except -1
cdef bint is_unfinished(HttpConnection connection) noexcept
cdef int refuse_unfinished(HttpConnection connection) except -1
