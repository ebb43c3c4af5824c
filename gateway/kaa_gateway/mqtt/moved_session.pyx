"""A session that has moved to another worker: its answers and pushes are sent after it.

Which messages these are is decided in kp/departures.pyx, and where the session is in fleet/directory.pyx.
"""

from kaa_gateway.fleet.messages import Forwarded


cdef class MovedSession(Departure):
    """The session of an MQTT client that has connected to another worker."""

    cdef bint forward(
        self, const ServerMessage* message, bint correlated, Service service, uint32_t sequence
    ) except -1:
        return self.directory.forward(Forwarded(
            self.name, 0, <int>service if correlated else None, sequence,
            message.header.data[:message.header.size] if message.header.size else b"",
            message.payload.data[:message.payload.size],
        ))
