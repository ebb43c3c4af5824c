from kaa_gateway.wire.buffer cimport Buffer


cdef enum Kind:
    STRING = 0
    BYTES
    LONG
    INT
    BOOLEAN
    DOUBLE
    OPTIONAL
    UNION
    ARRAY
    MAP
    RECORD


cdef class Type:
    # wiring
    cdef Kind kind
    cdef int null_branch  # of OPTIONAL: the place of "null" in the union, 0 or 1
    cdef Type item        # of OPTIONAL, ARRAY and MAP
    cdef dict branches    # of UNION: the place of each type by its name
    cdef list names       # of the fields of RECORD
    cdef list types
    cdef list defaults    # `required` for a field without default

    cdef int write(self, Buffer out, value) except -1
    cdef int write_branch(self, Buffer out, value) except -1
