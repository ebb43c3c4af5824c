"""What takes the messages of an extension's subscriptions from the NATS link.

`deliver` takes a message as Python objects, for connections other than the link.
"""

from libc.string cimport memcmp

from kaa_ext.sdk.dispatcher cimport Dispatcher
from kaa_gateway.bus.listener cimport Receiver
from kaa_gateway.wire.buffer cimport Slice, to_bytes
from kaa_gateway.wire.nats cimport ServerMessage, header_value, status_of

from kaa_gateway.bus import subjects
from kaa_gateway.bus.control import NO_RESPONDERS
from nats.aio.msg import Msg

cdef bytes TRACE_PARENT = b"traceparent"  # the header of W3C Trace Context
cdef bytes REPLY_TO = subjects.REPLY_TO_HEADER.encode()
cdef str NATS_SUBJECT = "Nats-Subject"  # of a message that nobody subscribes to
cdef bytes PENDING_MESSAGES = b"Nats-Pending-Messages"


cdef class MessageReceiver(Receiver):
    """Calls a function for each message of another service, as a message of nats-py."""

    def __init__(self, callback):
        self.callback = callback

    cdef int on_message(self, const ServerMessage* message) except -1:
        headers = None if message.header.data == NULL else headers_of(to_bytes(message.header))
        self.deliver(text(message.subject), text(message.reply), to_bytes(message.payload), headers)
        return 0

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        cdef dict headers = {"Status": NO_RESPONDERS}
        if subject.data != NULL:
            headers[NATS_SUBJECT] = text(subject)
        self.deliver(text(reply), "", b"", headers)
        return True

    def deliver(self, str subject not None, str reply not None, bytes payload not None, headers=None):
        """Take a message."""
        self.callback(Msg(None, subject, reply, payload, headers))


cdef class RequestReceiver(Receiver):
    """Passes ClientData to the dispatcher. Hot path."""

    def __init__(self, Dispatcher dispatcher not None):
        self.dispatcher = dispatcher
        self.last_reply = b""
        self.last_subject = ""

    cdef int on_message(self, const ServerMessage* message) except -1:
        cdef str trace_parent = None
        cdef Slice value
        if message.header.size:
            value = header_value(message.header, TRACE_PARENT)
            if value.data != NULL:
                trace_parent = text(value)
        return self.dispatcher.receive(
            to_bytes(message.payload), self.reply_of(message.reply), trace_parent, None
        )

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        # An answer with our subject as reply-to has found no gateway.
        self.dispatcher.stats["undelivered"] += 1
        return True

    cdef str reply_of(self, Slice reply):
        """Return the subject of the answer."""
        if reply.size != len(self.last_reply) \
                or memcmp(reply.data, <const char*>self.last_reply, <size_t>reply.size) != 0:
            self.last_reply = reply.data[:reply.size]
            self.last_subject = text(reply)
        return self.last_subject

    def deliver(self, str subject not None, str reply not None, bytes payload not None, headers=None):
        """Take a message."""
        self.dispatcher.receive(payload, reply, (headers or {}).get(TRACE_PARENT.decode()), None)


cdef class StoredReceiver(Receiver):
    """Passes the ClientData of a stream to the dispatcher, and what the server says of a pull request to its consumer.

    `on_low` is called when only `low` of the expected messages are still to come.
    """

    def __init__(self, Dispatcher dispatcher not None, make, on_status, on_low, Py_ssize_t low):
        self.requests = RequestReceiver(dispatcher)
        self.make = make
        self.on_status = on_status
        self.on_low = on_low
        self.low = low

    cdef int on_message(self, const ServerMessage* message) except -1:
        cdef str trace_parent = None
        cdef Slice value
        cdef int status = status_of(message.header) if message.header.size else 0
        if status:
            value = header_value(message.header, PENDING_MESSAGES)
            self.ended(status, headers_of(to_bytes(message.header)), text(value) if value.data != NULL else "")
            return 0
        self.expect_less(1)
        value = header_value(message.header, TRACE_PARENT)
        if value.data != NULL:
            trace_parent = text(value)
        value = header_value(message.header, REPLY_TO)
        return self.requests.dispatcher.receive(
            to_bytes(message.payload),
            "" if value.data == NULL else self.requests.reply_of(value),
            trace_parent,
            self.make(text(message.reply)),
        )

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        self.on_status(NO_RESPONDERS, "JetStream is not available", self.expected)
        return True

    def ended(self, int status, dict headers, str pending):
        """Pass on that a pull request has ended."""
        self.on_status(
            str(status), headers.get("Description", ""), int(pending) if pending.isdecimal() else self.expected
        )

    def expect_less(self, Py_ssize_t count):
        """Note that messages have come, or will not come."""
        before = self.expected
        self.expected = max(before - count, 0)
        if self.expected <= self.low < before:
            self.on_low()

    def deliver(self, str subject not None, str reply not None, bytes payload not None, headers=None):
        """Take a message."""
        raise NotImplementedError("streams need NATS")


cdef str text(Slice value):
    """Return a subject or a header value. NATS does not check that it is UTF-8."""
    return "" if value.data == NULL else value.data[:value.size].decode("utf-8", "surrogateescape")


def headers_of(bytes block not None):
    """Return the fields of a NATS header, with Status and Description of its first line, as nats-py does."""
    lines = block.decode("utf-8", "surrogateescape").split("\r\n")
    headers = {}
    _, _, status = lines[0].partition(" ")
    if status:
        headers["Status"], _, description = status.strip().partition(" ")
        if description:
            headers["Description"] = description.strip()
    for line in lines[1:]:
        name, separator, value = line.partition(":")
        if separator:
            headers[name.strip()] = value.strip()
    return headers
