"""A plug-in's connection over TCP or TLS: bytes in, whole messages to the plug-in, bytes out.

Source: docs/protocols.md.
"""

from libc.stdint cimport uint8_t

from kaa_gateway.net.input_memory cimport INPUT_FREE
from kaa_gateway.net.proxy cimport describe_peer

from kaa_gateway.errors import ProtocolError

cdef double HALF_CLOSED_TIME = 10.0  # seconds that a device which has closed its sending side waits for its answers


cdef class StreamSession(PluginSession):
    """The session of one connection."""

    def describe(self):
        """Return what an operator may see of it."""
        return {
            **PluginSession.describe(self),
            **(describe_peer(b"", None) if self.connection is None else self.connection.transport.describe()),
        }

    cdef int write(self, bytes data) except -1:
        if self.connection is None:
            return 0
        self.connection.output.append(<const uint8_t*>data, len(data))
        return self.connection.transport.wake()

    cdef int disconnect_device(self) except -1:
        return 0 if self.connection is None else self.connection.transport.close()

    cdef int admit(self) except -1:
        if self.connection is not None:
            self.connection.admitted = True
        return 0

    cdef int pause(self) except -1:
        return 0 if self.connection is None else self.connection.transport.pause_reading()

    cdef int go_on(self) except -1:
        return 0 if self.connection is None else self.connection.go_on()


cdef class StreamConnection(ProtocolCore):
    """The protocol core of one connection of a plug-in."""

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle the messages in these bytes, and keep the rest. Hot path."""
        self.active = True
        if self.session.ended:
            return 0
        if self.tail is None and not self.session.blocked:
            return self.parse(data[:size])
        self.keep(data, size)
        if self.session.blocked or self.tail.size < self.wanted:
            return self.count_input()
        whole, self.tail = self.tail.copy(), None
        return self.parse(whole)

    cdef int parse(self, bytes data) except -1:
        """Hand each whole message to the plug-in, until the rest is incomplete or has to wait. Hot path."""
        cdef PluginSession session = self.session
        cdef Py_ssize_t at = 0, size = 0, end = len(data)
        while at < end and not session.blocked and not session.ended:
            size = self.size_of_message(data, at)
            if size == 0 or size > end - at:
                break
            self.taken += 1
            session.receive_message(data if size == end else data[at:at + size])
            at += size
            size = 0
        if at < end and not session.ended:
            self.wanted = size
            self.keep(<const uint8_t*><bytes>data + at, end - at)
        return self.count_input()

    cdef Py_ssize_t size_of_message(self, bytes data, Py_ssize_t at) except -1:
        """Return the size of the message at a position as the plug-in sees it; 0 if it does not know yet."""
        cdef Py_ssize_t size
        found = self.session.call(self.server.message_size, (data, at))
        if self.session.ended:
            return 0
        try:
            size = found
            if size < 0:
                raise ValueError(f"message_size returned {size}")
        except Exception as error:
            self.session.fault(error)
            return 0
        if size > self.server.message_size_max or (size == 0 and len(data) - at >= self.server.message_size_max):
            self.session.hang_up("plugin_message_too_large")
            return 0
        return size

    cdef int keep(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Keep input that is not handled yet."""
        if self.tail is None:
            self.tail = Buffer()
        return self.tail.append(data, size)

    cdef int count_input(self) except -1:
        """Count the bytes that are held for this connection. Hot path."""
        cdef Py_ssize_t size = self.session.held_bytes + (0 if self.tail is None else self.tail.capacity)
        if (size > INPUT_FREE or self.input_counted) and not self.server.input_memory.reserve(self, size):
            raise ProtocolError("input_memory_full")
        return 0

    cdef int go_on(self) except -1:
        """Handle the input that was kept, and read again; close if nothing more can come of it."""
        if self.tail is not None and not self.session.ended:
            whole, self.tail = self.tail.copy(), None
            try:
                self.parse(whole)
            except ProtocolError as error:
                return self.session.hang_up(error.reason)
        if self.session.blocked:
            return 0
        if self.input_ended:
            return 0 if self.session.is_busy() else self.transport.close()
        return self.transport.resume_reading()

    cdef int end_of_input(self) except -1:
        """Close after the answers that are due: the device has closed its sending side."""
        self.input_ended = self.session.input_ended = True
        return 0 if self.session.is_busy() else self.transport.close()

    cdef int lost(self) except -1:
        self.tail = None
        self.server.input_memory.reserve(self, 0)
        self.session.connection = None
        return self.session.finish()

    cdef int end(self, str reason) except -1:
        return self.session.hang_up(reason)

    cdef int explain_stop(self) except -1:
        """Let the plug-in say goodbye: the gateway stops."""
        return self.session.tell("stopping", ())

    cdef int check(self, double now) except -1:
        """Apply time-outs, and the timer of the plug-in."""
        cdef double unread = self.take_unread_time()
        if self.session.ended:
            return 0
        self.began += unread
        self.last_active += unread
        if self.active:
            self.active = False
            self.last_active = now
        if not self.admitted and now - self.began > self.server.login_timeout:
            return self.session.hang_up("plugin_login_timeout")
        if now - self.last_active > (HALF_CLOSED_TIME if self.input_ended else self.server.idle_timeout):
            return self.session.hang_up("plugin_idle")
        return self.session.expire_timer(now)
