"""Notifications of CoAP, for one peer: its observers, and the writing of answers, which these share with responses.

A notification is confirmable and waits for the one before it. Which push is for whom is coap_observe.pyx.

Source: RFC 7641; RFC 7959 sections 2.4 and 2.6 (a large body is kept, and fetched by blocks).
"""

from kaa_gateway.coap.answer cimport (
    PHRASE_SIZE_MAX, code_of_status, content_format, fit_answer, is_cut, octets, start_answer,
)
from kaa_gateway.coap.blocks cimport Body
from kaa_gateway.coap.messages cimport CoapShared
from kaa_gateway.coap.observe cimport observer_of
from kaa_gateway.net.addresses cimport address_key
from kaa_gateway.wire.coap cimport BAD_REQUEST, CON, CONTENT, GET, INTERNAL_SERVER_ERROR

cdef enum:
    SEQUENCE_MASK = 0xFFFFFF     # of Observe in a notification
    QUEUED_NOTIFICATIONS_MAX = 16  # of an observer
    QUEUED_BYTES_MAX = 16 * 1024 * 1024  # of the notifications of all observers


cdef class CoapNotifier(CoapMessages):
    """A peer as one that is answered and notified."""

    # ------------------------------------------------------------ answers

    cdef bint compose(
        self, Type type, uint16_t message_id, Slice token, Answer* answer, Slice resource
    ) except -1:
        """Write an answer into `shared.out`, as large as this peer may be sent; False if it may be sent nothing.

        A body that needs more than one block is kept, and named by an ETag. Hot path.
        """
        cdef CoapShared shared = self.shared
        cdef int64_t room = self.room(shared.now)
        cdef Body body
        cdef bytes echo
        if not fit_answer(shared.out, type, message_id, token, answer, room):
            shared.counters.count("dropped", "coap_amplification")
            return False
        if not is_cut(answer) or answer.etag.data != NULL:
            return True
        if not shared.responses.make_room(answer.body.size):
            shared.counters.count("dropped", "coap_response_too_large")
            start_answer(answer, INTERNAL_SERVER_ERROR)
        else:
            body = shared.responses.open(self, resource.data[:resource.size], shared.now)
            shared.responses.extend(body, answer.body.data, answer.body.size)
            shared.etag += 1
            body.code = answer.code
            body.content_format = answer.content_format
            body.etag = shared.etag.to_bytes(4, "big")
            answer.etag = octets(body.etag)
            if room < answer.body.size:
                # Whoever returns this with the request for the next block is sent as much as it asks for.
                echo = shared.echo.make(address_key(&self.address), shared.now)
                answer.echo = octets(echo)
        return fit_answer(shared.out, type, message_id, token, answer, room)

    # ------------------------------------------------------------ observers

    cdef int64_t observe(self, Exchange exchange, Endpoint endpoint) except -2:
        """Register for an exchange whose answer is good: the sequence of that answer, or -1 if it cannot be."""
        cdef CoapShared shared = self.shared
        cdef bytes resource = exchange.resource.copy()
        cdef bytes token = exchange.token_bytes[:exchange.token_size]
        cdef bytes topic = resource[2 + resource[1]:]
        cdef Observer observer = self.observers.get(token)
        if observer is not None and observer.resource != resource:
            self.deregister(observer)
            observer = None
        if observer is None:
            if len(self.observers) >= shared.observers_per_peer or shared.observer_count >= shared.observers_max:
                shared.counters.count("refused", "coap_too_many_observers")
                return -1
            observer = observer_of(token, resource, octets(topic), endpoint)
            self.observers[token] = observer
            shared.observer_count += 1
            shared.sessions.set_online(self, True)
        observer.accept = exchange.accept
        observer.szx = exchange.szx
        self.observe_sequence = (self.observe_sequence + 1) & SEQUENCE_MASK
        return self.observe_sequence

    cdef int deregister(self, Observer observer) except -1:
        """Its peer wants no more notifications of it, or does not acknowledge them."""
        if self.observers.pop(observer.token, None) is None:
            return 0
        self.shared.observer_count -= 1
        if observer.outstanding is not None:
            self.cancel(observer.outstanding)
        for _, _, body in observer.queue:
            self.shared.queued_bytes -= len(body)
        observer.queue.clear()
        if not self.observers:
            self.shared.sessions.set_online(self, False)
        return 0

    cdef int delivered(self, Observer observer) except -1:
        return 0 if observer is None else self.send_queued(observer)

    cdef int undeliverable(self, Observer observer) except -1:
        if observer is None:
            return 0
        self.shared.counters.count("closed", "coap_observer_gone")
        return self.deregister(observer)

    cdef int notify(self, Observer observer, const ExtensionDataView* data) except -1:
        """Send a push as a notification, or queue it behind the one that is not yet acknowledged.

        Each is confirmable: a push may be a command, and not only the newest state of something.
        """
        cdef CoapShared shared = self.shared
        cdef uint8_t code = code_of_status(data.status_code, GET)
        cdef int format = -1
        cdef Slice body = data.payload
        if code < BAD_REQUEST:
            code = CONTENT
            format = content_format(observer.accept)
        elif data.reason_phrase.size:
            body = Slice(data.reason_phrase.data, min(data.reason_phrase.size, <Py_ssize_t>PHRASE_SIZE_MAX))
        if observer.outstanding is None and not observer.queue:
            return self.send_notification(observer, code, format, body)
        if len(observer.queue) >= QUEUED_NOTIFICATIONS_MAX:
            shared.queued_bytes -= len(observer.queue.popleft()[2])
            shared.counters.count("dropped", "coap_notification_queue_full")
        if shared.queued_bytes + body.size > QUEUED_BYTES_MAX:
            return shared.counters.count("dropped", "coap_notification_memory")
        shared.queued_bytes += body.size
        observer.queue.append((code, format, body.data[:body.size] if body.size else b""))
        return 0

    cdef int send_queued(self, Observer observer) except -1:
        """The way is free for what follows."""
        cdef bytes body
        while observer.queue and observer.outstanding is None:
            code, format, body = observer.queue.popleft()
            self.shared.queued_bytes -= len(body)
            self.send_notification(observer, code, format, octets(body))
        return 0

    cdef int send_notification(self, Observer observer, uint8_t code, int format, Slice body) except -1:
        cdef Answer answer
        cdef uint16_t message_id = self.new_message_id()
        start_answer(&answer, code)
        answer.body = body
        answer.content_format = format if body.size else -1
        answer.szx = observer.szx
        if code < BAD_REQUEST:
            self.observe_sequence = (self.observe_sequence + 1) & SEQUENCE_MASK
            answer.observe = self.observe_sequence
        else:
            self.deregister(observer)  # an error ends the observation (RFC 7641 section 4.2)
        if not self.compose(CON, message_id, octets(observer.token), &answer, octets(observer.resource)):
            return 0
        return self.transmit(message_id, observer if code < BAD_REQUEST else None)

    cdef int close(self) except -1:
        cdef Observer observer
        for observer in list(self.observers.values()):
            self.deregister(observer)
        return CoapMessages.close(self)
