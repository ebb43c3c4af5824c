"""Takes the state of a session, to be sent to another worker, and puts such a state into a new session.

The form of a state is in session_state.py. What comes from another worker is checked like what comes from a client: it
is parsed again, and bounded by the limits of this worker.

Source: MQTT 3.1.1 section 4.1 (storing state); MQTT 5 section 4.1 (session state).
"""

from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from kaa_gateway.kp.receipt cimport Receipt
from kaa_gateway.kp.receipts cimport Receipts, borrowed
from kaa_gateway.kp.session cimport Attachment, Endpoint
from kaa_gateway.mqtt.in_flight cimport InFlight
from kaa_gateway.mqtt.message_queue cimport MessageQueue, QueuedMessage, size_of
from kaa_gateway.mqtt.outgoing cimport Outgoing
from kaa_gateway.mqtt.received cimport ReceivedMessage, ReceivedMessages
from kaa_gateway.mqtt.recent_pushes cimport RecentPushes
from kaa_gateway.mqtt.response_topics cimport AwaitedResponse, ResponseTopics
from kaa_gateway.mqtt.session cimport OFFLINE
from kaa_gateway.mqtt.subscriptions cimport Subscriptions
from kaa_gateway.wire.buffer cimport Buffer, slice_of
from kaa_gateway.wire.mqtt cimport (
    LEVEL_5, PUBLISH, REMAINING_LENGTH_MAX, Packet, PublishView, append_publish, next_packet, read_publish,
)
from kaa_gateway.wire.mqtt_fields cimport check_topic_filter, check_topic_name

from itertools import islice

from kaa_gateway.errors import ProtocolError
from kaa_gateway.mqtt import session_state
from kaa_gateway.mqtt.session_state import (
    AttachedEndpoint,
    Awaited,
    Queued,
    Received,
    SessionState,
    Subscription,
    WantedReceipt,
)

cdef uint64_t ALL_BITS = 0xFFFFFFFFFFFFFFFFULL


cdef bytes take_state(MqttSession session):
    """Return what a session remembers of its client, as bytes. Another worker reports its pushes from now on."""
    cdef bytes state = session_state.encode(state_of(session))
    cdef QueuedMessage message
    cdef Receipt receipt
    if session.in_flight is not None and session.in_flight.receipts is not None:
        for receipt in session.in_flight.receipts.values():
            receipt.over = True
    if session.queued is not None:
        for message in session.queued.messages:
            if message.receipt is not None:
                message.receipt.over = True
    return state


cdef object state_of(MqttSession session):
    """Return what a session remembers of its client, as a SessionState."""
    cdef InFlight in_flight = session.in_flight
    return SessionState(
        version=session_state.VERSION,
        expiry=remaining_of(session),
        level_in_flight=0 if in_flight is None else in_flight.level,
        last_packet_id=0 if in_flight is None else in_flight.last_packet_id,
        subscriptions=subscriptions_of(session.subscriptions),
        endpoints=endpoints_of(session),
        in_flight=packets_of(in_flight),
        queued=messages_of(session.queued, PY_SSIZE_T_MAX),
        received=received_of(session.received),
        pushes=[] if session.pushes is None else session.pushes.copy(),
        awaited=awaited_of(session.responses),
        registered_topics=session.registered_topics or [],
        uses_predefined_topics=bool(session.uses_predefined_topics),
        revision=0 if session.stored is None or session.stored.writing else session.stored.revision,
    )


cdef double remaining_of(MqttSession session) except -1:
    """Return the seconds for which a session stays if its client does not come back."""
    if session.state != OFFLINE:
        return session.expiry
    return max(session.offline_since + session.expiry - session.store.directory.loop.time(), 0)


cdef list subscriptions_of(Subscriptions subscriptions):
    if subscriptions is None:
        return []
    identifiers = subscriptions.identifiers or {}
    return [Subscription(name, qos, identifiers.get(name, 0)) for name, qos in subscriptions.granted.items()]


cdef list endpoints_of(MqttSession session):
    cdef Attachment attachment
    endpoints = []
    # In the order of their numbers, so that the new session gives them the same ones, which answers name.
    for attachment in sorted(session.all_attachments(), key=number_of):
        endpoints.append(AttachedEndpoint(
            attachment.app_version, attachment.token, attachment.endpoint.endpoint_id.decode(),
            attachment.identity.token_id,
        ))
    return endpoints


def number_of(Attachment attachment not None):
    """Return the number of an attachment in its session."""
    return attachment.number


cdef list awaited_of(ResponseTopics responses):
    cdef AwaitedResponse response
    awaited = []
    if responses is not None:
        for number, response in responses.awaited.items():
            awaited.append(Awaited(number, response.topic, response.correlation_data))
    return awaited


cdef list packets_of(InFlight in_flight):
    if in_flight is None:
        return []
    deadlines, receipts = in_flight.deadlines or {}, in_flight.receipts or {}
    return [
        session_state.InFlight(
            packet_id, packet, deadlines.get(packet_id, 0), wanted_receipt(receipts.get(packet_id))
        )
        for packet_id, packet in in_flight.packets.items()
    ]


cdef list messages_of(MessageQueue queue, Py_ssize_t last):
    """Return the messages of a queue, or the last ones of it, in order."""
    cdef QueuedMessage message
    messages = []
    if queue is not None:
        for message in islice(queue.messages, max(0, len(queue.messages) - last), None):
            messages.append(Queued(
                message.topic, message.payload, message.properties, message.deadline, message.qos, message.repeats,
                wanted_receipt(message.receipt),
            ))
    return messages


cdef object wanted_receipt(Receipt receipt):
    """Return what another worker needs to report what becomes of a push; None for None."""
    if receipt is None:
        return None
    return WantedReceipt(receipt.subject.decode(), receipt.push_id, receipt.endpoint_id, receipt.session)


cdef Receipt receipt_of(Receipts receipts, wanted):
    """Return the receipt that has come with a message."""
    cdef Receipt receipt = receipts.restore(
        wanted.subject.encode(), wanted.push_id, wanted.endpoint_id, wanted.session
    )
    receipt.kept = True
    return receipt


cdef list received_of(ReceivedMessages table):
    """Return the QoS 2 messages that NATS has. Others are sent again by the client, as if they had never come."""
    cdef Py_ssize_t at
    received = []
    if table is not None:
        for at in range(table.capacity):
            if table.slots[at].packet_id and table.slots[at].qos == 2 and table.slots[at].confirmed:
                received.append(Received(
                    table.slots[at].packet_id, table.slots[at].digest, table.slots[at].reason_code
                ))
    return received


cdef bint put_state(MqttSession session, bytes data, Uplink uplink) except -1:
    """Put a state into a new session. Return False if the state is malformed; then the session is not to be used."""
    state = session_state.decode(data)
    if state is None:
        return False
    session.state = OFFLINE
    session.clean = False
    session.revision = <uint64_t>state.revision
    session.expiry = min(<double>state.expiry, session.limits.session_expiry)
    try:
        put_subscriptions(session, state.subscriptions)
        put_in_flight(session, state, uplink.receipts)
        put_queued(session, state.queued, uplink.receipts)
        put_awaited(session, state.awaited)
        put_registered_topics(session, state.registered_topics)
        session.uses_predefined_topics = state.uses_predefined_topics
    except ProtocolError:
        return False
    put_received(session, state.received)
    for digest in state.pushes:
        if session.pushes is None:
            session.pushes = RecentPushes()
        session.pushes.add(<uint64_t>(digest & ALL_BITS))
    attach(session, state.endpoints, uplink)
    return True


cdef int put_subscriptions(MqttSession session, list subscriptions) except -1:
    for each in subscriptions:
        check_topic_filter(slice_of(each.topic_filter))
        if session.subscriptions is None:
            session.subscriptions = Subscriptions()
        if len(session.subscriptions.granted) >= session.limits.subscriptions \
                or len(each.topic_filter) > session.limits.topic_filter_size:
            session.counters.count("refused", "too_many_subscriptions")
            continue
        session.subscriptions.add(each.topic_filter, each.qos, each.identifier)
    return 0


cdef int put_in_flight(MqttSession session, state, Receipts receipts) except -1:
    """Put in what the client has not acknowledged. It counts as sent, so no limit drops any of it."""
    cdef InFlight in_flight
    cdef Packet packet
    cdef PublishView publish
    cdef bytes encoded
    cdef uint8_t level = state.level_in_flight
    if not state.in_flight and not state.last_packet_id:
        return 0
    in_flight = InFlight()
    for each in state.in_flight:
        encoded = each.packet
        if encoded is None:
            in_flight.packets[each.packet_id] = None
            if each.receipt is not None:
                in_flight.add_receipt(each.packet_id, receipt_of(receipts, each.receipt))
            continue
        if next_packet(<const uint8_t*>encoded, len(encoded), REMAINING_LENGTH_MAX, &packet) != len(encoded) \
                or packet.type != PUBLISH:
            raise ProtocolError("session_state_malformed")
        read_publish(&packet, level, &publish)
        check_topic_name(publish.topic)
        if publish.packet_id != each.packet_id:
            raise ProtocolError("session_state_malformed")
        in_flight.add(each.packet_id, encoded, level, each.deadline)
        if each.receipt is not None:
            in_flight.add_receipt(each.packet_id, receipt_of(receipts, each.receipt))
    in_flight.last_packet_id = <uint16_t>state.last_packet_id
    in_flight.level = level
    in_flight.end_connection()
    session.in_flight = in_flight
    return 0


cdef int put_queued(MqttSession session, list queued, Receipts receipts) except -1:
    """Put in what was not sent yet, as far as there is room."""
    cdef Outgoing message
    cdef Packet packet
    cdef PublishView publish
    cdef Receipt receipt
    cdef Buffer encoded = Buffer()
    for each in queued:
        receipt = None if each.receipt is None else receipt_of(receipts, each.receipt)
        message = Outgoing(
            slice_of(each.topic), slice_of(each.payload), slice_of(each.properties), <int64_t>each.deadline, each.qos,
            each.repeats, borrowed(receipt),
        )
        encoded.size = 0
        append_publish(
            encoded, LEVEL_5, <uint8_t>(message.qos << 1), message.topic, 1, message.properties, message.payload
        )
        next_packet(encoded.data, encoded.size, REMAINING_LENGTH_MAX, &packet)
        read_publish(&packet, LEVEL_5, &publish)
        check_topic_name(publish.topic)
        if session.queued is None:
            session.queued = MessageQueue()
        if len(session.queued.messages) >= session.limits.queued_messages \
                or session.queued.bytes + size_of(&message) > session.limits.queued_bytes:
            session.drop_message(&message, "session_queue_full")
            continue
        session.queued.append(&message)
    return 0


cdef int put_awaited(MqttSession session, list awaited) except -1:
    """Put in where answers go, as far as there is room."""
    for each in awaited:
        check_topic_name(slice_of(each.topic))
        if session.responses is None:
            session.responses = ResponseTopics()
        session.responses.put(each.number, each.topic, each.correlation_data)
    if session.responses is not None:
        session.responses.limit(session.limits.queued_messages, session.limits.queued_bytes, session.counters)
    return 0


cdef int put_registered_topics(MqttSession session, list topics) except -1:
    """Put in the topics of the client's topic IDs; they are bounded when the client comes back."""
    for topic in topics:
        check_topic_name(slice_of(<bytes>topic))
    session.registered_topics = topics
    return 0


cdef int put_received(MqttSession session, list received) except -1:
    cdef ReceivedMessage* message
    for each in received:
        if session.received is None:
            session.received = ReceivedMessages()
        session.received.reserve()
        message = session.received.put(<uint16_t>each.packet_id)
        message.digest = <uint64_t>(each.digest & ALL_BITS)
        message.qos = 2
        message.generation = 0
        message.reason_code = each.reason_code
        message.confirmed = True
    return 0


cdef int attach(MqttSession session, list endpoints, Uplink uplink) except -1:
    """Let the session speak for its endpoints at once, so that it misses no push, and check their tokens."""
    cdef Endpoint endpoint
    for each in endpoints:
        if each.app_version not in uplink.router.app_versions or uplink.is_other_tenants(session, each.app_version):
            continue
        endpoint = uplink.sessions.endpoints.make(each.endpoint_id.encode())
        endpoint.version_counters = uplink.counters.counters_of(each.app_version)
        if uplink.sessions.attach(session, endpoint, each.token, each.app_version, each) is not None:
            uplink.identification.verify(session, (each.app_version, each.token))
        uplink.sessions.endpoints.release(endpoint)
    if session.subscriptions is not None:
        for name in session.subscriptions.granted:
            uplink.identify(session, slice_of(<bytes>name))
    return 0
