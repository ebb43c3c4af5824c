from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.kp.session cimport Session


cdef class HttpSession(Session):
    # wiring
    cdef HttpConnection connection     # None once it is gone

    cdef bytes fields_of_failure(self)
