from kaa_ext.sdk.dispatcher cimport Dispatcher
from kaa_gateway.bus.listener cimport Receiver
from kaa_gateway.wire.buffer cimport Slice


cdef class MessageReceiver(Receiver):
    # wiring
    cdef object callback


cdef class RequestReceiver(Receiver):
    # wiring
    cdef Dispatcher dispatcher
    # state
    cdef bytes last_reply    # the reply-to of the last request, since most have the same
    cdef str last_subject    # the same as text

    cdef str reply_of(self, Slice reply)


cdef class StoredReceiver(Receiver):
    # wiring
    cdef RequestReceiver requests
    cdef object make          # makes a StoredMessage of its acknowledgement subject
    cdef object on_status     # called with status, description and the number of messages that will not come
    cdef object on_low        # called when few of the requested messages are still to come
    # state
    cdef public Py_ssize_t expected  # messages that were requested and have not come
    cdef Py_ssize_t low
