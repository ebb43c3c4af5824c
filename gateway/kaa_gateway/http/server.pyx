"""The HTTP/1.1 server of a worker: makes connections, and holds what they share.

Source: 1/KP and its HTTP binding; RFC 9112, RFC 9110.
"""

from kaa_gateway.counters cimport HTTP
from kaa_gateway.http.connection cimport HttpConnection
from kaa_gateway.http.draining cimport drain, is_unfinished, refuse_unfinished
from kaa_gateway.http.parser cimport RequestParser
from kaa_gateway.http.pipeline cimport Pipeline
from kaa_gateway.http.session cimport HttpSession
from kaa_gateway.net.transport cimport ProtocolCore, Transport

from kaa_gateway.identity.clients import Presentation

cdef enum:
    SPARE_PARSERS = 1024  # kept for use, at most


cdef bytes cors_fields(str origin):
    """Return the header fields of responses to a page of an allowed origin (Fetch, CORS protocol)."""
    cdef str vary = "" if origin == "*" else "Vary: Origin\r\n"
    return (
        f"Access-Control-Allow-Origin: {origin}\r\n"
        f"Access-Control-Expose-Headers: Retry-After, Kaa-Resource-Path\r\n{vary}".encode()
    )


cdef class HttpServer:
    """What the HTTP connections of a worker share.

    `client_authentication` is off, optional or required; `path_prefix` stands before /kp1. `allowed_origins` are
    those of web pages (CORS), times are seconds, and `pipelined_requests` are those of one connection.
    """

    def __init__(
        self, loop, Uplink uplink not None, Sessions sessions not None, PendingRequests pending not None,
        Counters counters not None, authenticator, RequestLimits limits not None,
        *, str client_authentication, str path_prefix, allowed_origins,
        double read_timeout, double keep_alive_timeout, uint32_t pipelined_requests, double max_wait,
    ):
        self.loop = loop
        self.uplink = uplink
        self.sessions = sessions
        self.pending = pending
        self.counters = counters
        self.authenticator = authenticator
        self.authenticates = client_authentication != "off"
        self.demands_credentials = client_authentication == "required"
        self.limits = limits
        self.path_prefix = path_prefix.encode()
        self.cors = {origin.encode(): cors_fields(origin) for origin in allowed_origins} or None
        self.read_timeout = read_timeout
        self.keep_alive_timeout = keep_alive_timeout
        self.pipelined_max = pipelined_requests
        self.wait_max = max_wait
        self.connections = set()
        self.input_memory = InputMemory()
        self.scratch = Buffer()
        self.resting_parser = RequestParser(limits, self.path_prefix)
        self.spare_parsers = []

    cdef bytes cors_of(self, bytes origin):
        """Return the header fields of responses to a page of this origin; None if it is not allowed."""
        fields = self.cors.get(origin.lower())
        return self.cors.get(b"*") if fields is None else fields

    def limit(self, InputMemory input_memory not None):
        """Bound the memory of incomplete requests, together with other transports; once, before the start."""
        self.input_memory = input_memory

    cpdef ProtocolCore connect(self, Transport transport):
        """Return the core of a new connection."""
        cdef HttpConnection connection = HttpConnection()
        cdef HttpSession session = HttpSession()
        session.counters = self.counters
        session.protocol = HTTP
        session.connection = connection
        session.connectionless = True
        connection.server = self
        connection.transport = transport
        connection.session = session
        connection.requests = Pipeline()
        connection.parser = self.take_parser()
        connection.parser.stops_at_heads = self.authenticates
        connection.input = Buffer()
        connection.clock.start = self.loop.time()
        if not self.authenticates and transport.certificate is not None:
            # Nobody is asked, but the authority of the certificate may be a tenant's.
            session.set_client(
                self.authenticator.authenticate(Presentation("http", certificate=transport.certificate))
            )
        self.sessions.open(session)
        self.connections.add(connection)
        return connection

    cdef RequestParser take_parser(self):
        """Return a parser that has read nothing of its client."""
        return self.spare_parsers.pop() if self.spare_parsers else RequestParser(self.limits, self.path_prefix)

    cdef int give_back(self, RequestParser parser) except -1:
        """Keep a parser for another connection."""
        if len(self.spare_parsers) < SPARE_PARSERS:
            parser.forget_client()
            self.spare_parsers.append(parser)
        return 0

    def begin_drain(self):
        """Close idle connections now, and the others after the responses that they wait for."""
        cdef HttpConnection connection
        self.draining = True
        for connection in list(self.connections):
            drain(connection)

    def is_busy(self):
        """Return whether a request is arriving or waits for its response."""
        cdef HttpConnection connection
        for connection in self.connections:
            if is_unfinished(connection):
                return True
        return False

    def end_drain(self):
        """Answer 503 to the requests that are arriving or wait for their response."""
        cdef HttpConnection connection
        self.drain_ended = True
        for connection in list(self.connections):
            refuse_unfinished(connection)
