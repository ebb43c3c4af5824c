"""Session, the base of every transport's sessions, and the endpoints to which sessions are attached.

A session is a device's connection, or what outlives it. It speaks for endpoints: each attachment is a token of one.
What a session does with a message is its transport's, whose class overrides the methods here. The table of sessions
is `kaa_gateway.kp.sessions`, that of endpoints `kaa_gateway.kp.endpoints`.

Source: 1/KP, endpoints and their tokens.
"""

from datetime import UTC, datetime
from itertools import islice

cdef enum:
    ENDPOINTS_SHOWN = 100  # of a session, to an operator


cdef str format_time(int64_t time_ms):
    """Return a time in ms since the epoch as RFC 3339 writes it, to the second."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


cdef class Endpoint:
    """A device as the platform knows it."""

    def __init__(self, bytes endpoint_id):
        self.endpoint_id = endpoint_id

    cdef int set_attachment(self, Session session, Attachment attachment) except -1:
        """Note the latest attachment of a session. Hot path.

        Most endpoints have one session, which needs no table.
        """
        if self.several is None:
            if self.session is None or self.session is session:
                self.session = session
                self.attachment = attachment
                return 0
            self.several = {self.session: self.attachment}
            self.session = self.attachment = None
        self.several[session] = attachment
        return 0

    cdef int forget_session(self, Session session) except -1:
        """Note that a session is not attached any more."""
        if self.session is session:
            self.session = self.attachment = None
        elif self.several is not None:
            self.several.pop(session, None)
            if not self.several:
                self.several = None
        return 0

    cpdef list all_sessions(self):
        """Return the sessions that are attached to it."""
        if self.several is not None:
            return list(self.several)
        return [] if self.session is None else [self.session]

    def latest_attachment(self, Session session not None):
        """Return the latest attachment of a session, or None."""
        return self.attachment_of(session)

    def revoke_routes(self):
        """Let the next session that uses a cached route to this endpoint ask the identity provider first."""
        self.revocations += 1


cdef class Attachment:
    """A token under which a session speaks for an endpoint: two tokens may stand for the same endpoint."""

    def __init__(self, Endpoint endpoint, bytes token, bytes app_version, identity):
        self.endpoint = endpoint
        self.identity = identity
        self.token = token
        self.app_version = app_version


cdef class AttachmentTable:
    """The attachments of a session that has had several, by token and by number."""

    def __cinit__(self):
        self.by_key = {}
        self.by_number = []
        self.free_numbers = []

    cdef int add(self, Attachment attachment) except -1:
        """Add an attachment, and give it its number."""
        if self.free_numbers:
            attachment.number = self.free_numbers.pop()
            self.by_number[attachment.number] = attachment
        else:
            attachment.number = <uint32_t>len(self.by_number)
            self.by_number.append(attachment)
        self.by_key[attachment.app_version, attachment.token] = attachment
        return 0

    cdef int remove(self, Attachment attachment) except -1:
        """Remove an attachment, and free its number. Takes constant time."""
        del self.by_key[attachment.app_version, attachment.token]
        self.by_number[attachment.number] = None
        self.free_numbers.append(attachment.number)
        return 0


cdef class Session:
    """A device's connection, or the state that outlives it, as 1/KP needs it."""

    def __cinit__(self):
        self.principal = ""

    cdef int acknowledge(self, uint32_t token) except -1:
        """Tell the device that NATS has its message, which was published with this token. Hot path."""
        return 0

    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1:
        """Refuse a message in the gateway's own name. `topic` is that of the message, with its request ID."""
        return 0

    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1:
        """Send an ExtensionData to the device; return False if the session cannot. Hot path.

        A push may have a receipt. It counts as sent, unless the session keeps the receipt or ends it (receipts.pxd).
        `endpoint` is None for an extension that is not endpoint-aware.
        """
        return False

    cdef int on_identified(self, tuple key, refusal) except -1:
        """Note that a token which was named for itself is attached, or what refuses it: an IdentityError.

        `key` is (application version, token).
        """
        return 0

    cdef int on_detached(self, Attachment attachment) except -1:
        """Note that the session does not speak for an endpoint any more under a token, and goes on."""
        return 0

    cdef int resume(self) except -1:
        """Go on with the messages that the uplink did not take (BUSY)."""
        return 0

    cdef int on_attachments_changed(self) except -1:
        """Note that the session speaks for one endpoint more, or less."""
        return 0

    cdef int end(self, str reason) except -1:
        """Close the connection, if there is one, and forget the session."""
        return 0

    def disconnect(self, str reason not None):
        """End the session for a reason of ours."""
        self.end(reason)

    cdef int set_client(self, client) except -1:
        """Make the session a client's: a Client (kaa_gateway.identity.clients)."""
        if not isinstance(client, tuple):
            raise TypeError("not a Client")
        self.principal, self.tenant, self.client, self.only_token = <tuple>client  # four look-ups of attributes less
        return 0

    def describe(self):
        """Return what an operator may see, as JSON values: no token, nothing that the device sent."""
        cdef Attachment attachment
        endpoints = [
            {
                "endpointId": attachment.endpoint.endpoint_id.decode(),
                "appVersion": attachment.app_version.decode(),
                "messagesIn": attachment.endpoint.traffic.messages_in,
                "bytesIn": attachment.endpoint.traffic.bytes_in,
                "messagesOut": attachment.endpoint.traffic.messages_out,
                "bytesOut": attachment.endpoint.traffic.bytes_out,
            }
            for attachment in islice(self.all_attachments(), ENDPOINTS_SHOWN)
        ]
        return {
            "protocol": self.protocol_name(),
            "online": bool(self.online),
            "principal": self.principal or None,
            "client": self.client,
            "tenant": self.tenant,
            "endpoints": endpoints,
            "endpointCount": self.attachment_count(),
            "waitingMessages": self.waiting_count,
            "since": format_time(self.opened_at),
        }

    def protocol_name(self):
        """Return the name of its protocol, as metrics have it."""
        return self.counters.names[<int>self.protocol]

    def is_of(self, str client_id not None):
        """Return whether its client has this client identifier; only MQTT has them."""
        return False

    cdef Attachment attachment_of(self, Endpoint endpoint, uint32_t number):
        """Return the attachment of this number if it is one to the endpoint, else the latest one to it."""
        cdef Attachment attachment
        if self.several is not None and number < <uint32_t>len(self.several.by_number):
            attachment = self.several.by_number[number]
            if attachment is not None and attachment.endpoint is endpoint:
                return attachment
        return endpoint.attachment_of(self)  # of one attachment the number is 0

    # ------------------------------------------------------------ attachments

    cpdef Py_ssize_t attachment_count(self) noexcept:
        """Return the number of its attachments."""
        return (self.attachment is not None) if self.several is None else len(self.several.by_key)

    cpdef list all_attachments(self):
        """Return its attachments."""
        if self.several is not None:
            return list(self.several.by_key.values())
        return [] if self.attachment is None else [self.attachment]

    def find_attachment(self, bytes app_version not None, bytes token not None):
        """Return the attachment under a token, or None."""
        return self.attachment_under(app_version, token)

    cdef int add_attachment(self, Attachment attachment) except -1:
        """Add an attachment under a token that has none yet."""
        if self.several is None:
            if self.attachment is None:
                attachment.number = 0
                self.attachment = attachment
                return 0
            self.several = AttachmentTable()
            self.several.add(self.attachment)
            self.attachment = None
        return self.several.add(attachment)

    cdef int remove_attachment(self, Attachment attachment) except -1:
        """Remove an attachment."""
        if self.several is not None:
            return self.several.remove(attachment)
        self.attachment = None
        return 0
