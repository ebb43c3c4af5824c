from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.http.refusals cimport Refusal


cdef Refusal check_request(HttpConnection connection)
