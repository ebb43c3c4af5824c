cdef class Deadlines:
    # state
    cdef dict by_second          # second -> dict of objects, in the order in which they came
    cdef long long next_second   # no object has an earlier one
    cdef Py_ssize_t count

    cdef int add(self, object item, double deadline, double now) except -1
    cdef int remove(self, object item, double deadline) except -1
    cdef object take_due(self, double now)
