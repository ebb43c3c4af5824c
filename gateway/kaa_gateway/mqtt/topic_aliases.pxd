cimport cython
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.mqtt cimport PublishView


cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(list items, Py_ssize_t index)  # borrowed


cdef class TopicAliases:
    # state
    cdef list topics             # AliasedTopic by alias; None where the client has set none
    cdef Py_ssize_t bytes        # of the topics

    @cython.final
    cdef inline PyObject* find(self, uint32_t alias) noexcept:
        # Return the AliasedTopic of an alias, borrowed from the list, or NULL. Hot path.
        cdef PyObject* found
        if alias >= <uint32_t>PyList_GET_SIZE(self.topics):
            return NULL
        found = PyList_GET_ITEM(self.topics, alias)
        return NULL if found == <PyObject*>None else found

    cdef PyObject* set(self, uint32_t alias, Slice topic) except NULL
    cdef PyObject* resolve(self, uint32_t alias, PublishView* publish) except NULL


cdef class SentAliases:
    # settings
    cdef uint32_t maximum        # aliases that the client takes
    # state
    cdef dict by_topic           # topic -> alias
    cdef list topics             # by alias, from 1 on
    cdef uint32_t next           # alias that is given next
    cdef Py_ssize_t bytes        # of the topics

    cdef uint32_t find(self, bytes topic) except? 0xFFFFFFFF
    cdef uint32_t assign(self, bytes topic) except? 0xFFFFFFFF
