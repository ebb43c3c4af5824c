"""What the connections of one plug-in share: its class, its settings, and the way to the extensions."""

import re

import structlog

from kaa_gateway.net.transport cimport ProtocolCore, Transport
from kaa_gateway.plugins.stream cimport StreamConnection, StreamSession

log = structlog.get_logger("gateway.plugins")

REASON = re.compile(r"[a-z][a-z0-9_]{0,47}")

REASONS_MAX = 32
"""Reasons that a plug-in may declare: each is a label of a metric."""


cdef class PluginServer:
    """One protocol of a plug-in. `pending` holds the requests of this protocol only."""

    def __init__(
        self, loop, str name not None, protocol_class, Uplink uplink not None, Sessions sessions not None,
        PendingRequests pending not None, Counters counters not None,
    ):
        self.loop = loop
        self.name = name
        self.protocol_class = protocol_class
        self.message_size = protocol_class.message_size
        self.reasons = {reason: f"{name}_{reason}".replace("-", "_") for reason in protocol_class.reasons}
        self.uplink = uplink
        self.sessions = sessions
        self.pending = pending
        self.counters = counters
        self.protocol = counters.add_protocol(name)
        self.input_memory = InputMemory()

    def configure(
        self, options, *, str app_version not None, Py_ssize_t max_message_size, double login_timeout,
        double idle_timeout,
    ):
        """Apply settings: `options` and `app_version` to new connections, the others to all. Times are seconds."""
        self.options = options
        self.app_version = app_version.encode()
        self.message_size_max = max_message_size
        self.login_timeout = login_timeout
        self.idle_timeout = idle_timeout

    def use_certificates(self, client_of not None):
        """Admit clients with a certificate as those that `client_of` makes of it."""
        self.client_of = client_of

    def limit(self, InputMemory input_memory not None):
        """Bound the memory of incomplete messages, together with other transports; once, before the start."""
        self.input_memory = input_memory

    cpdef ProtocolCore connect(self, Transport transport):
        """Return the core of a new connection."""
        cdef StreamConnection connection = StreamConnection()
        cdef StreamSession session = StreamSession(self)
        connection.server = self
        connection.transport = transport
        connection.session = session
        connection.began = connection.last_active = self.loop.time()
        session.connection = connection
        if transport.certificate is not None and self.client_of is not None:
            session.set_client(self.client_of(transport.certificate))
        session.open()
        return connection

    def begin_drain(self):
        """Take no new peers. What is under way goes on."""
        self.draining = True

    cdef str counted_reason(self, reason):
        """Return how a reason of the plug-in is counted; None if its class does not declare it."""
        return <str>self.reasons.get(reason)

    cdef int log_fault(self, error) except -1:
        """Log a fault of the plug-in, with its traceback."""
        log.error("fault in the plug-in", protocol=self.name, exc_info=error)
        return 0
