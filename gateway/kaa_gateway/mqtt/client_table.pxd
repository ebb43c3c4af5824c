from kaa_gateway.mqtt.session_entry cimport SessionEntry


cdef class ClientTable:
    # state
    cdef dict found   # client identifier -> SessionEntry; if several have it, dict of principal -> SessionEntry

    cdef SessionEntry find(self, str principal, str client_id)
    cdef int put(self, SessionEntry entry) except -1
    cdef int remove(self, SessionEntry entry) except -1
