"""The way down: a message from NATS reaches the session that it is for. Common to all transports.

An answer finds its session by its correlation ID; a push, or an answer whose session is gone, by endpoint ID. What
cannot be delivered is counted by reason, and never fatal.

Source: 4/ESP, ExtensionData; NATS "no responders".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kaa_gateway.bus.block cimport Acknowledgement
from kaa_gateway.clock cimport now_ms
from kaa_gateway.kp.correlation cimport AT_MOST_ONCE, REQUEST, Correlation
from kaa_gateway.counters cimport ExtensionCounters, VersionCounters
from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.resource_path cimport append_topic
from kaa_gateway.kp.router cimport Binding
from kaa_gateway.kp.session cimport Attachment, Session
from kaa_gateway.wire.avro cimport GOOD, Status
from kaa_gateway.wire.buffer cimport slice_of, to_bytes
from kaa_gateway.wire.esp cimport CORRELATION_ID_SIZE, ClientDataView, read_client_data, read_extension_data
from kaa_gateway.wire.nats cimport Publication

import logging

import structlog

from kaa_gateway.bus import push_receipts
from kaa_gateway.bus.clock_skew import ClockSkew
from kaa_gateway.wire.avro import MALFORMED_REASONS

ROOT = logging.getLogger()  # has the level that is set at run time
DEBUG = logging.DEBUG
log = structlog.get_logger("gateway.kp")

cdef enum:
    # Bytes of a reason phrase that reach a device. As JSON they become up to six times as many.
    REASON_PHRASE_SIZE_MAX = 1024
    INSTANCE_SIZE_MAX = 128   # bytes of the name of an extension instance in a metric

cdef str DROPPED = push_receipts.DROPPED
cdef str NO_SESSION = push_receipts.NO_SESSION
cdef str REPEATED = push_receipts.REPEATED
cdef str SENT = push_receipts.SENT

cdef int CONTENT_TOO_LARGE = 413
cdef int SERVICE_UNAVAILABLE = 503


cdef int tell(str what, str reason, Slice correlation_id, bytes extension=None) except -1:
    """Log a line at level debug about one message."""
    if ROOT.level <= DEBUG:
        identifier = correlation_id.data[:min(correlation_id.size, <Py_ssize_t>CORRELATION_ID_SIZE)]
        more = {} if extension is None else {"extension": extension.decode()}
        log.debug(what, reason=reason, correlation_id=identifier.decode("utf-8", "replace"), **more)
    return 0


cdef Py_ssize_t boundary_before(Slice text, Py_ssize_t size) noexcept nogil:
    """Return where the last whole character of UTF-8 within `size` bytes ends; the text is longer than that."""
    while size > 0 and text.data[size] & 0xC0 == 0x80:
        size -= 1
    return size


cdef class Downlink(Listener):
    """The way down of one worker, the listener of its link."""

    def __init__(
        self, Uplink uplink, Router router, Sessions sessions, Correlator correlator, Counters counters
    ):
        self.uplink = uplink
        self.router = router
        self.sessions = sessions
        self.correlator = correlator
        self.counters = counters
        self.unknown_endpoints = counters.counter_of("dropped", "unknown_endpoint")
        self.durable = DurableLanes(uplink.link, self, (), "", 0, 0.0, 0)
        self.departures = Departures()
        self.scratch = Buffer()
        self.pushed = RecentKeys()
        self.clock_skew = ClockSkew()

    def set_durable(self, DurableLanes durable not None):
        """Set the lanes of the durable extension instances; once, before the first message."""
        self.durable = durable

    def set_traces(self, dict traces not None):
        """Set the traces that are under way, by the correlation IDs of their messages (kaa_gateway.app.tracing)."""
        self.traces = traces

    cdef int fail_trace(self, Slice correlation_id, str reason) except -1:
        """End the trace of a message that was not answered, and will not be."""
        if self.traces:
            trace = self.traces.get(to_bytes(correlation_id))
            if trace is not None:
                trace.failed(reason)
        return 0

    cdef int drop(self, str reason) except -1:
        return self.counters.count("dropped", reason)

    cdef int drop_message(self, str reason, Slice correlation_id) except -1:
        tell("message dropped", reason, correlation_id)
        return self.drop(reason)

    cdef int on_message(self, const ServerMessage* message) except -1:
        """Deliver an ExtensionData. Hot path."""
        cdef ExtensionDataView view
        cdef Delivery delivery
        cdef Correlation correlation
        cdef Session session = None
        cdef Endpoint endpoint
        cdef int64_t now
        cdef Status status = read_extension_data(message.payload.data, message.payload.size, &view)
        if status != GOOD:
            return self.drop(MALFORMED_REASONS[<int>status])
        if view.reason_phrase.size > REASON_PHRASE_SIZE_MAX:
            view.reason_phrase.size = boundary_before(view.reason_phrase, REASON_PHRASE_SIZE_MAX)
        if message.header.size:
            self.wanted = self.uplink.receipts.read_request(message.header, &view)
        elif self.wanted is not None:
            self.wanted = None
        if view.timeout > 0:
            now = now_ms()
            if view.timestamp < now - view.timeout:  # in this order it cannot overflow
                return self.drop_expired(&view)
            if view.timestamp > now:
                self.check_clock(&view, 0)
        delivery.correlated = self.correlator.read(view.correlation_id, &correlation)
        if delivery.correlated:
            delivery.service = correlation.service
            delivery.sequence = correlation.sequence
            session = self.sessions.find(correlation.session)
        endpoint = self.sessions.endpoint_for(session, view.endpoint_id)
        if message.reply.data != NULL and endpoint is not None and view.extension_instance_name.data != NULL:
            self.router.redirect(
                endpoint, to_bytes(view.extension_instance_name), message.reply
            )
        delivery.data = &view
        delivery.attachment = delivery.receipt = NULL
        if self.departures.count and self.send_after(
                message, &delivery, correlation.session if delivery.correlated else 0, session, endpoint):
            return 0
        return self.dispatch(&delivery, view.correlation_id, session, endpoint)

    cdef bint send_after(
        self, const ServerMessage* message, const Delivery* delivery, uint64_t key, Session session, Endpoint endpoint
    ) except -1:
        """Send an ExtensionData after a session that has gone to another worker. Return whether nobody here gets it.

        `key` is that of the session which it answers, and `session` that session if it is here.
        """
        if delivery.correlated:
            return session is None and self.departures.forward_answer(
                key, message, delivery.service, delivery.sequence
            )
        # Without a correlation ID, the other worker cannot tell whether it has the push already.
        if delivery.data.correlation_id.size == 0 or not self.departures.forward_push(
                delivery.data.endpoint_id, message, self.uplink.link.loop.time()):
            return False
        return endpoint is None or endpoint.session_count() == 0

    cdef bint deliver_forwarded(
        self, Session session, const ServerMessage* message, bint correlated, Service service, uint32_t sequence
    ) except -1:
        """Deliver an ExtensionData that the former worker of a session has sent after it. Return whether it took it.

        An answer is to the message with this service and sequence.
        """
        cdef ExtensionDataView view
        cdef Delivery delivery
        cdef Endpoint endpoint
        if read_extension_data(message.payload.data, message.payload.size, &view) != GOOD:
            return False
        if view.reason_phrase.size > REASON_PHRASE_SIZE_MAX:
            view.reason_phrase.size = boundary_before(view.reason_phrase, REASON_PHRASE_SIZE_MAX)
        self.wanted = None
        if message.header.size:
            self.wanted = self.uplink.receipts.read_request(message.header, &view)
        endpoint = self.sessions.endpoint_for(session, view.endpoint_id)
        delivery.data = &view
        delivery.attachment = delivery.receipt = NULL
        delivery.correlated = correlated
        delivery.service = service if correlated else AT_MOST_ONCE
        delivery.sequence = sequence
        if not correlated:
            return (
                endpoint is not None and endpoint.attachment_of(session) is not None and view.correlation_id.size != 0
                and self.push_to(session, &delivery, endpoint, self.hash_of_push(view.correlation_id, &view))
            )
        if not session.deliver(&delivery, endpoint):
            return False
        self.count_out(session, &delivery, endpoint)
        return True

    cdef int drop_expired(self, const ExtensionDataView* view) except -1:
        """Drop an ExtensionData that has come after its deadline."""
        cdef Correlation correlation
        cdef Session session = None
        if self.correlator.read(view.correlation_id, &correlation):
            session = self.sessions.find(correlation.session)
        # An answer is not older than the session of its request.
        self.check_clock(view, 0 if session is None else session.opened_at)
        self.refuse_receipt(DROPPED, "expired")
        return self.drop_message("expired", view.correlation_id)

    cdef int check_clock(self, const ExtensionDataView* view, int64_t earliest) except -1:
        """Note an ExtensionData whose timestamp the clock of this machine contradicts."""
        cdef Slice name = view.extension_instance_name
        instance = "unknown" if name.data == NULL else to_bytes(name)[:INSTANCE_SIZE_MAX].decode("utf-8", "replace")
        self.clock_skew.check(instance, view.timestamp, view.timeout, earliest)
        return 0

    cdef int dispatch(
        self, Delivery* delivery, Slice correlation_id, Session session, Endpoint endpoint
    ) except -1:
        """Deliver a message to the session that it answers, else to the sessions of its endpoint. Hot path."""
        cdef uint64_t hashed
        if delivery.correlated:
            if session is not None and session.deliver(delivery, endpoint):
                if self.traces:
                    trace = self.traces.get(to_bytes(correlation_id))
                    if trace is not None:
                        trace.answered(delivery.data.status_code)
                return self.count_out(session, delivery, endpoint)
            if delivery.service == REQUEST:
                self.fail_trace(correlation_id, "late_answer")
                return self.drop_message("late_answer", correlation_id)
            delivery.correlated = False
        delivery.service = AT_MOST_ONCE
        if endpoint is None:
            # Each worker gets each push, so this is as frequent as pushes are.
            self.refuse_receipt(NO_SESSION, "unknown_endpoint")
            tell("message dropped", "unknown_endpoint", correlation_id)
            self.unknown_endpoints.count += 1
            return 0
        hashed = self.hash_of_push(correlation_id, delivery.data) if correlation_id.size else 0
        # A session without its device is asked only if nobody is there: it would keep the message for later.
        if self.push(delivery, endpoint, hashed, True) or self.push(delivery, endpoint, hashed, False):
            return 0
        self.refuse_receipt(NO_SESSION, "no_session")
        return self.drop_message("no_session", correlation_id)

    cdef int refuse_receipt(self, str outcome, str reason) except -1:
        """Tell an extension that wants to know it that no session has taken its push."""
        return 0 if self.wanted is None else self.wanted.refuse(outcome, reason)

    cdef int count_out(self, Session session, const Delivery* delivery, Endpoint endpoint) except -1:
        """Count a message that a session has taken for its device. Hot path."""
        cdef VersionCounters version_counters = None
        cdef Slice name = delivery.data.app_version_name
        if endpoint is not None:
            endpoint.traffic.messages_out += 1
            endpoint.traffic.bytes_out += <uint64_t>delivery.data.payload.size
            version_counters = endpoint.version_counters
        elif name.data != NULL:
            version_counters = self.counters.versions.get(to_bytes(name))
        if version_counters is None:
            version_counters = self.counters.unrouted
        version_counters.count_out(session.protocol, delivery.data.payload.size)
        return 0

    cdef uint64_t hash_of_push(self, Slice correlation_id, const ExtensionDataView* push) except? 0:
        """Hash what makes a push unique, with Python's hash of bytes, which nobody can foresee. Hot path."""
        cdef Py_ssize_t sizes[2]
        cdef Py_ssize_t id_size = correlation_id.size, path_size = push.resource_path.size
        cdef bytes name = PyBytes_FromStringAndSize(
            NULL, <Py_ssize_t>sizeof(sizes) + id_size + path_size + push.payload.size
        )
        cdef char* at = PyBytes_AS_STRING(name)
        sizes[0], sizes[1] = id_size, path_size  # where one ends and the next begins
        memcpy(at, sizes, sizeof(sizes))
        at += sizeof(sizes)
        memcpy(at, correlation_id.data, <size_t>id_size)
        if path_size:
            memcpy(at + id_size, push.resource_path.data, <size_t>path_size)
        if push.payload.size:
            memcpy(at + id_size + path_size, push.payload.data, <size_t>push.payload.size)
        return <uint64_t>hash(name)

    cdef bint push(self, Delivery* delivery, Endpoint endpoint, uint64_t hashed, bint online) except -1:
        """Push to the endpoint's sessions that are online, or to the others; return whether one took it. Hot path."""
        cdef Session session
        cdef Attachment attachment = endpoint.attachment
        cdef bint reached = False
        session = endpoint.session
        if session is not None:  # as almost always
            delivery.attachment = <PyObject*>attachment
            return session.online == online and self.push_to(session, delivery, endpoint, hashed)
        delivery.attachment = NULL
        for session in endpoint.all_sessions():
            if session.online == online and self.push_to(session, delivery, endpoint, hashed):
                reached = True
        return reached

    cdef bint push_to(self, Session session, Delivery* delivery, Endpoint endpoint, uint64_t hashed) except -1:
        """Push to a session; return whether it took the push, now or before: an extension may repeat a push."""
        cdef uint64_t key = hashed ^ session.key * <uint64_t>0x9E3779B97F4A7C15
        if session.closed:
            return False  # its attachments are still being ended
        if hashed and self.pushed.has(key):
            self.drop_message("repeated_push", delivery.data.correlation_id)
            if self.wanted is not None:
                self.wanted.answered = True
                self.wanted.receipt_of(session.key).end(REPEATED, None)
            return True
        if self.wanted is not None:
            if not self.deliver_push(session, delivery, endpoint):
                return False
        elif not session.deliver(delivery, endpoint):
            return False
        if hashed:
            self.pushed.add(key)
        self.count_out(session, delivery, endpoint)
        return True

    cdef bint deliver_push(self, Session session, Delivery* delivery, Endpoint endpoint) except -1:
        """Push to a session, and report what it does with the push; return whether it took it."""
        cdef Receipt receipt = self.wanted.receipt_of(session.key)
        cdef bint taken
        delivery.receipt = <PyObject*>receipt
        taken = session.deliver(delivery, endpoint)
        delivery.receipt = NULL
        self.wanted.answered = self.wanted.answered or taken or receipt.over
        if taken and not receipt.over:
            if receipt.held:
                pass
            elif receipt.kept:
                receipt.accept()
            else:
                receipt.end(SENT, None)
        return taken

    cdef int on_confirmed(self, const Acknowledgement* acknowledgements, Py_ssize_t count) except -1:
        """Acknowledge the messages of a block that NATS has. Hot path."""
        cdef Py_ssize_t i
        cdef uint64_t key = 0
        cdef Session session = None
        for i in range(count):
            if session is None or key != acknowledgements[i].session:
                key = acknowledgements[i].session
                session = self.sessions.find(key)
            if session is not None:
                session.acknowledge(acknowledgements[i].token)
        return 0

    cdef bint may_send_again(self, const Publication* publication) noexcept:
        """Return False for QoS 0, which is at most once."""
        cdef Correlation correlation
        cdef ClientDataView view
        if publication.reply.data == NULL:
            return True  # a receipt
        if read_client_data(publication.payload.data, publication.payload.size, &view) != GOOD:
            return False
        return (
            not self.correlator.read(view.correlation_id, &correlation) or correlation.service != AT_MOST_ONCE
        )

    cdef int on_no_responders(self, const Publication* publication) except -1:
        """Nobody serves an extension: send to any replica instead of a certain one, else tell the device."""
        return self.on_dropped(publication, "no_responders", "No replica of the extension is running")

    cdef int on_denied(self, const Publication* publication) except -1:
        """NATS does not let the gateway publish to an extension, or to the replica that it has named."""
        return self.on_dropped(publication, "nats_permission", "The gateway may not send to the extension")

    cdef int on_abandoned(self, const Publication* publication) except -1:
        """End the trace of a QoS 0 message that may be lost with the connection."""
        cdef ClientDataView view
        if self.traces and read_client_data(publication.payload.data, publication.payload.size, &view) == GOOD:
            self.fail_trace(view.correlation_id, "abandoned")
        return 0

    cdef int on_too_large(self, const Publication* publication) except -1:
        """Tell the device that NATS does not take its message any more: its limit has fallen."""
        cdef Correlation correlation
        cdef ClientDataView view
        cdef Endpoint endpoint
        cdef Session session
        self.counters.count("refused", "payload_too_large")
        if read_client_data(publication.payload.data, publication.payload.size, &view) != GOOD \
                or not self.correlator.read(view.correlation_id, &correlation):
            return 0
        self.fail_trace(view.correlation_id, "payload_too_large")
        session = self.sessions.find(correlation.session)
        if session is None:
            return 0
        endpoint = self.sessions.endpoints.find(view.endpoint_id)
        extension = self.router.extension_at(endpoint, publication.subject)
        return self.report(
            session, &correlation, &view, extension or b"", endpoint, CONTENT_TOO_LARGE,
            "Payload is larger than NATS accepts",
        )

    cdef int on_payload_max(self) except -1:
        return self.durable.drop_too_large()

    cdef Py_ssize_t largest_in_flight(self) except -1:
        return self.durable.largest_in_flight()

    cdef int on_dropped(self, const Publication* publication, str reason, str phrase) except -1:
        cdef Correlation correlation
        cdef ClientDataView view
        cdef Endpoint endpoint
        cdef Binding binding
        cdef Session session
        cdef ExtensionCounters extension_counters
        if read_client_data(publication.payload.data, publication.payload.size, &view) != GOOD \
                or not self.correlator.read(view.correlation_id, &correlation):
            return self.drop("unattributed_" + reason)
        endpoint = self.sessions.endpoints.find(view.endpoint_id)
        extension = self.router.extension_of.get(to_bytes(publication.subject))
        if extension is None:
            binding = None if endpoint is None else self.router.unbind(endpoint, publication.subject)
            if binding is None:
                return self.drop_message("replica_gone", view.correlation_id)
            return self.send_again(binding.instance_head, publication, view.correlation_id)
        tell("message refused", reason, view.correlation_id, extension)
        self.fail_trace(view.correlation_id, reason)
        self.counters.count("refused", reason)
        extension_counters = self.counters.counters_of_extension(extension)
        extension_counters.unserved += 1
        session = self.sessions.find(correlation.session)
        if session is None:
            return 0
        return self.report(
            session, &correlation, &view, extension, endpoint, SERVICE_UNAVAILABLE, phrase
        )

    cdef int send_again(self, bytes head, const Publication* publication, Slice correlation_id) except -1:
        """Publish to the instance what no replica of it has taken."""
        self.uplink.republish(head, publication)
        if self.traces:
            trace = self.traces.get(to_bytes(correlation_id))
            if trace is not None:
                trace.repeated()
                self.uplink.link.trace(trace)
        return 0

    cdef int report(
        self, Session session, const Correlation* correlation, const ClientDataView* view, bytes extension,
        Endpoint endpoint, int status, str phrase,
    ) except -1:
        """Tell a session that its message goes nowhere."""
        cdef Attachment attachment = None if endpoint is None else session.attachment_of(endpoint, correlation.sequence)
        cdef Slice token = Slice(NULL, 0)
        if attachment is not None:
            token = slice_of(attachment.token)
        self.scratch.size = 0
        append_topic(
            self.scratch, view.app_version_name, slice_of(extension), token,
            view.resource_path, view.has_request_id, view.request_id, Slice(NULL, 0),
        )
        return session.fail(
            Slice(self.scratch.data, self.scratch.size), correlation.service, view.has_request_id,
            correlation.sequence, status, phrase,
        )

    # ------------------------------------------------------------ durable extension instances

    cdef int on_connected(self) except -1:
        return self.durable.on_connected()

    cdef int on_stored(self, uint64_t session, uint32_t token) except -1:
        """Acknowledge a message that its stream has stored. Hot path."""
        cdef Session found
        if token:
            found = self.sessions.find(session)
            if found is not None:
                found.acknowledge(token)
        return 0

    cdef int on_not_stored(
        self, str instance, Slice datum, uint64_t session, uint32_t token, bint permanent
    ) except -1:
        """Tell a session that its message was not stored, without an acknowledgement.

        A message that no stream will ever take is acknowledged behind its error: the device would repeat it for ever.
        """
        cdef Correlation correlation
        cdef ClientDataView view
        cdef Endpoint endpoint
        cdef Session found = self.sessions.find(session)
        self.counters.count("refused", "not_storable" if permanent else "not_stored")
        if read_client_data(datum.data, datum.size, &view) != GOOD \
                or not self.correlator.read(view.correlation_id, &correlation):
            return 0
        self.fail_trace(view.correlation_id, "not_storable" if permanent else "not_stored")
        if found is None:
            return 0
        endpoint = self.sessions.endpoints.find(view.endpoint_id)
        self.report(
            found, &correlation, &view, instance.encode(), endpoint,
            CONTENT_TOO_LARGE if permanent else SERVICE_UNAVAILABLE,
            "The message is too large to be stored" if permanent else "The message could not be stored",
        )
        return found.acknowledge(token) if permanent and token else 0

    cdef int on_backlog(self, bint full) except -1:
        """Count that the backlog has passed its bound (readers pause when they next read), or resume the sessions."""
        if full:
            return self.counters.count("paused", "nats_backlog")
        return self.uplink.resume_blocked()
