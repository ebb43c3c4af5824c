"""The query of a request, as HTTP and CoAP have it: `answer=no`, `wait=30`, `batch=16`. Others have no effect.

Source: docs/devices.md; docs/coap.md.
"""

from libc.string cimport memchr, memcmp

cdef enum:
    DIGITS_MAX = 5
    BATCH_MAX = 1000  # pushes


cdef void clear_query(Query* query) noexcept nogil:
    """Let a query be one without parameters. Hot path."""
    query.no_answer = False
    query.wait = NO_WAIT
    query.batch = NO_BATCH


cdef void read_parameter(Slice parameter, Query* query) noexcept nogil:
    """Read one parameter. Of two of the same name, the first has effect."""
    if parameter.size == 9 and memcmp(parameter.data, b"answer=no", 9) == 0:
        query.no_answer = True
    elif query.wait == NO_WAIT and starts_with(parameter, b"wait=", 5):
        query.wait = read_number(parameter, 5)
    elif query.batch == NO_BATCH and starts_with(parameter, b"batch=", 6):
        query.batch = read_number(parameter, 6)
        if query.batch > BATCH_MAX:
            query.batch = BAD_BATCH


cdef void read_query(const uint8_t* at, const uint8_t* end, Query* query) noexcept nogil:
    """Read the parameters between ampersands."""
    cdef const uint8_t* ampersand
    while at != NULL:
        ampersand = <const uint8_t*>memchr(at, c"&", <size_t>(end - at))
        read_parameter(Slice(at, (end if ampersand == NULL else ampersand) - at), query)
        if ampersand == NULL:
            return
        at = ampersand + 1


cdef inline bint starts_with(Slice parameter, const char* name, Py_ssize_t size) noexcept nogil:
    return parameter.size >= size and memcmp(parameter.data, name, <size_t>size) == 0


cdef int read_number(Slice parameter, Py_ssize_t at) noexcept nogil:
    """Return the number from a place to the end, which is above 0; else BAD_WAIT, which is BAD_BATCH too."""
    cdef int number = 0
    if parameter.size == at or parameter.size > at + DIGITS_MAX:
        return BAD_WAIT
    while at < parameter.size:
        if not c"0" <= parameter.data[at] <= c"9":
            return BAD_WAIT
        number = 10 * number + (parameter.data[at] - c"0")
        at += 1
    return number if number else BAD_WAIT
