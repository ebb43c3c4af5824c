# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The decoders of the gateway as C functions for libFuzzer.

A function reads an input as the gateway does. It aborts if a slice that it gets lies outside of the input, or if a
decoder claims more bytes than there are. Those of PURE use nothing of the interpreter. Those of RAISING call decoders
that raise a violation; they hold the interpreter's lock, and the loop around them is libFuzzer's.
"""

from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport abort

from kaa_gateway.wire cimport (
    avro, coap, coap_stream, esp, http, kpudp, kpudp_secure, mqtt, mqtt_properties, mqtt_sn, nats, proxy_header,
    query, websocket,
)
from kaa_gateway.wire.buffer cimport Slice

from kaa_gateway.errors import GatewayError, ProtocolError

# Violations are many, and nobody reads what they say.
del GatewayError.__init__

cdef enum:
    PAYLOAD_MAX = 1 << 20
    UNMASKED_MAX = 256


cdef inline void within(Slice part, const uint8_t* data, size_t size) noexcept nogil:
    if part.data == NULL:
        return
    if part.size < 0 or part.data < data or part.data + part.size > data + size:
        abort()


cdef inline void at_most(Py_ssize_t taken, size_t size) noexcept nogil:
    if taken < 0 or <size_t>taken > size:
        abort()


cdef int read_coap(const uint8_t* data, size_t size) noexcept nogil:
    """A CoAP message: its header, its options with block sizes, its payload."""
    cdef coap.MessageView view
    cdef coap.OptionReader reader
    cdef Slice value
    coap.read_header(data, <Py_ssize_t>size, &view)
    if coap.read_message(data, <Py_ssize_t>size, &view) != coap.Format.WELL_FORMED:
        return 0
    within(view.token, data, size)
    within(view.options, data, size)
    within(view.payload, data, size)
    reader = coap.option_reader(&view)
    while coap.next_option(&reader, &value) == coap.Format.WELL_FORMED:
        within(value, data, size)
        if value.size <= 4:
            coap.read_block(value)
    coap.take_payload(&reader, &view)
    within(view.payload, data, size)
    return 0


cdef int read_coap_stream(const uint8_t* data, size_t size) noexcept nogil:
    """CoAP messages of a stream, and all of it as one message of a WebSocket."""
    cdef coap.MessageView view
    cdef coap.OptionReader reader
    cdef Slice value
    cdef Py_ssize_t at = 0, taken = 0
    cdef int turn
    for turn in range(2):
        at = 0
        while <size_t>at < size:
            taken = coap_stream.size_of_message(data + at, <Py_ssize_t>size - at) if turn == 0 else <Py_ssize_t>size
            if taken <= 0 or taken > <Py_ssize_t>size - at:
                break
            if coap_stream.read_stream_message(data + at, taken, &view) != coap_stream.StreamFormat.STREAM_MESSAGE:
                if turn == 0:
                    abort()  # its size was known
                break
            within(view.token, data + at, <size_t>taken)
            within(view.options, data + at, <size_t>taken)
            reader = coap.option_reader(&view)
            while coap.next_option(&reader, &value) == coap.Format.WELL_FORMED:
                within(value, data + at, <size_t>taken)
            coap.take_payload(&reader, &view)
            within(view.payload, data + at, <size_t>taken)
            at += taken
    return 0


cdef int read_kpudp(const uint8_t* data, size_t size) noexcept nogil:
    """The frames of a KP/UDP datagram."""
    cdef kpudp.Frame frame
    cdef Py_ssize_t at = 0, taken = 0
    cdef kpudp.FrameStatus status
    while <size_t>at < size:
        taken = 0
        status = kpudp.read_frame(data + at, <Py_ssize_t>size - at, &frame, &taken)
        if status != kpudp.FrameStatus.WELL_FORMED and status != kpudp.FrameStatus.BAD_TYPE:
            return 0
        at_most(taken, size - <size_t>at)
        if taken == 0:
            abort()
        if status == kpudp.FrameStatus.WELL_FORMED:
            within(frame.path, data, size)
            within(frame.reason_phrase, data, size)
            within(frame.payload, data, size)
        at += taken
    return 0


cdef int read_kpudp_secure(const uint8_t* data, size_t size) noexcept nogil:
    """What stands around the sealed frames of an encrypted KP/UDP datagram."""
    cdef kpudp_secure.SecureHeader header
    if kpudp_secure.read_secure(
        data, <Py_ssize_t>size, &header
    ) != kpudp_secure.SecureFormat.SECURE_WELL_FORMED:
        return 0
    within(header.header, data, size)
    within(header.sealed, data, size)
    within(header.identity, data, size)
    if header.client_random != NULL:
        within(Slice(header.client_random, kpudp_secure.CLIENT_RANDOM_SIZE), data, size)
    if header.cookie != NULL:
        within(Slice(header.cookie, kpudp_secure.COOKIE_SIZE), data, size)
    if header.resume_random != NULL:
        within(Slice(header.resume_random, kpudp_secure.RESUME_RANDOM_SIZE), data, size)
    return 0


cdef int read_client_data(const uint8_t* data, size_t size) noexcept nogil:
    """A ClientData datum."""
    cdef esp.ClientDataView view
    if esp.read_client_data(data, <Py_ssize_t>size, &view) != avro.Status.GOOD:
        return 0
    within(view.correlation_id, data, size)
    within(view.app_version_name, data, size)
    within(view.endpoint_id, data, size)
    within(view.resource_path, data, size)
    within(view.payload, data, size)
    within(view.config_name, data, size)
    return 0


cdef int read_extension_data(const uint8_t* data, size_t size) noexcept nogil:
    """An ExtensionData datum."""
    cdef esp.ExtensionDataView view
    if esp.read_extension_data(data, <Py_ssize_t>size, &view) != avro.Status.GOOD:
        return 0
    within(view.correlation_id, data, size)
    within(view.app_version_name, data, size)
    within(view.extension_instance_name, data, size)
    within(view.endpoint_id, data, size)
    within(view.resource_path, data, size)
    within(view.payload, data, size)
    within(view.reason_phrase, data, size)
    return 0


cdef int read_websocket(const uint8_t* data, size_t size) noexcept nogil:
    """The frames of a WebSocket stream, unmasked."""
    cdef websocket.FrameHeader header
    cdef Py_ssize_t at = 0, taken = 0
    cdef uint8_t[UNMASKED_MAX] plain
    cdef size_t count
    while <size_t>at < size:
        taken = 0
        if websocket.read_header(
            data + at, <Py_ssize_t>size - at, &header, &taken
        ) != websocket.HeaderFormat.HEADER_WELL_FORMED:
            return 0
        at_most(taken, size - <size_t>at)
        at += taken
        count = min(size - <size_t>at, <size_t>min(header.size, <uint64_t>UNMASKED_MAX))
        websocket.unmask(plain, data + at, <Py_ssize_t>count, header.mask, 0)
        websocket.unmask(plain, data + at, <Py_ssize_t>count, header.mask, 3)
        if header.size > size - <size_t>at:
            return 0
        at += <Py_ssize_t>header.size
    return 0


cdef int read_proxy_header(const uint8_t* data, size_t size) noexcept nogil:
    """A PROXY header of a stream, and of a datagram."""
    cdef proxy_header.ProxyHeader header
    cdef int datagram
    for datagram in range(2):
        if proxy_header.read_proxy_header(
            data, <Py_ssize_t>size, datagram, &header
        ) == proxy_header.ProxyFormat.PROXY_WELL_FORMED:
            at_most(header.size, size)
            within(header.authority, data, size)
            within(header.common_name, data, size)
    return 0


cdef int read_avro(const uint8_t* data, size_t size) noexcept nogil:
    """Avro primitives, as the first byte of each says."""
    cdef avro.Reader reader = avro.Reader(data, data + size)
    cdef Slice text
    cdef avro.Status status = avro.Status.GOOD
    cdef uint8_t kind
    while status == avro.Status.GOOD and reader.at < reader.end:
        kind = reader.at[0] % 5
        reader.at += 1
        if kind == 0:
            avro.get_long(&reader, &status)
        elif kind == 1:
            avro.get_int(&reader, &status)
        elif kind == 2:
            avro.get_branch(&reader, 1, &status)
        else:
            if kind == 3:
                avro.get_bytes(&reader, &text, &status)
            else:
                avro.get_optional_bytes(&reader, 0, &text, &status)
            if status == avro.Status.GOOD:
                within(text, data, size)
        if reader.at > reader.end:
            abort()
    return 0


cdef int read_nats(const uint8_t* data, size_t size) noexcept:
    """What a NATS server sends."""
    cdef nats.ServerMessage message
    cdef Py_ssize_t at = 0, taken
    cdef Slice value
    message.operation = nats.Operation.OK
    try:
        while <size_t>at < size:
            taken = nats.next_message(data + at, <Py_ssize_t>size - at, PAYLOAD_MAX, &message)
            at_most(taken, size - <size_t>at)
            if taken == 0:
                return 0
            if message.operation in (nats.Operation.MSG, nats.Operation.HMSG):
                within(message.subject, data, size)
                within(message.sid, data, size)
                within(message.reply, data, size)
            if message.operation in (nats.Operation.MSG, nats.Operation.HMSG, nats.Operation.INFO, nats.Operation.ERR):
                within(message.payload, data, size)
            if message.operation == nats.Operation.HMSG:
                within(message.header, data, size)
                nats.status_of(message.header)
                value = nats.header_value(message.header, b"Nats-Subject")
                within(value, data, size)
            at += taken
    except ProtocolError:
        pass
    except BaseException:
        abort()
    return 0


cdef int read_packets(const uint8_t* data, size_t size, uint8_t level) except -1:
    cdef mqtt.Packet packet
    cdef mqtt.ConnectView connect
    cdef mqtt.PublishView publish
    cdef mqtt.DisconnectView disconnect
    cdef mqtt.TopicFilter entry
    cdef mqtt_properties.Properties properties
    cdef Py_ssize_t at = 0, taken, place
    cdef uint8_t reason_code
    mqtt.can_be_connect(data, <Py_ssize_t>size)
    while <size_t>at < size:
        taken = mqtt.next_packet(data + at, <Py_ssize_t>size - at, PAYLOAD_MAX, &packet)
        at_most(taken, size - <size_t>at)
        if taken == 0:
            mqtt.missing_bytes(data + at, <Py_ssize_t>size - at)
            return 0
        within(packet.body, data, size)
        at += taken
        try:
            if packet.type == 1:
                mqtt.read_connect(&packet, &connect)
                if connect.level in (mqtt.LEVEL_3_1, mqtt.LEVEL_3_1_1, mqtt.LEVEL_5):
                    within(connect.client_id, data, size)
                    within(connect.will_topic, data, size)
                    within(connect.will_message, data, size)
                    within(connect.user_name, data, size)
                    within(connect.password, data, size)
            elif packet.type == 3:
                mqtt.read_publish(&packet, level, &publish)
                within(publish.topic, data, size)
                within(publish.payload, data, size)
            elif packet.type <= 7:
                mqtt.read_packet_id(&packet, level, &reason_code)
            elif packet.type == 8 or packet.type == 10:
                mqtt.check_flags(&packet, level)
                place = mqtt.first_filter(&packet, level, &properties)
                while place < packet.body.size:
                    taken = mqtt.next_filter(&packet, level, place, &entry)
                    if taken <= place:
                        abort()
                    place = taken
                    within(entry.filter, data, size)
            elif packet.type == 14:
                mqtt.read_disconnect(&packet, level, &disconnect)
            else:
                mqtt.read_empty(&packet, level)
        except ProtocolError:
            pass
    return 0


cdef int read_mqtt_of(const uint8_t* data, size_t size, uint8_t level) noexcept:
    try:
        read_packets(data, size, level)
    except ProtocolError:
        pass
    except BaseException:
        abort()
    return 0


cdef int read_mqtt_311(const uint8_t* data, size_t size) noexcept:
    """MQTT 3.1.1 packets."""
    return read_mqtt_of(data, size, 4)


cdef int read_mqtt_5(const uint8_t* data, size_t size) noexcept:
    """MQTT 5 packets with their properties."""
    return read_mqtt_of(data, size, 5)


cdef int read_http(const uint8_t* data, size_t size) noexcept nogil:
    """The head of an HTTP request, its fields, and the input as the line before a chunk."""
    cdef http.RequestLine line
    cdef Slice name, value
    cdef Py_ssize_t at, before
    http.read_chunk_size(data, <Py_ssize_t>size)
    if http.read_request_line(data, <Py_ssize_t>size, &line) == http.LineFormat.LINE_WELL_FORMED:
        within(line.method_name, data, size)
        within(line.target, data, size)
        at_most(line.size, size)
        at = line.size
    else:
        at = 0
    while True:
        before = at
        if http.next_field(data, <Py_ssize_t>size, &at, &name, &value) != http.FieldFormat.FIELD_WELL_FORMED:
            at_most(at, size)
            return 0
        at_most(at, size)
        if at <= before:
            abort()
        within(name, data, size)
        within(value, data, size)
        http.read_content_length(value)
        http.has_option(value, b"close", 5)


cdef int read_query(const uint8_t* data, size_t size) noexcept nogil:
    """The query of a request, over HTTP in one and over CoAP as a parameter."""
    cdef query.Query found
    query.clear_query(&found)
    query.read_query(data, data + size, &found)
    query.read_parameter(Slice(data, <Py_ssize_t>size), &found)
    if found.wait < query.BAD_WAIT or found.wait > 99999 or found.batch < query.BAD_BATCH or found.batch > 1000:
        abort()
    return 0


cdef int read_mqtt_sn(const uint8_t* data, size_t size) noexcept nogil:
    """An MQTT-SN message, with the header of a forwarder if there is one."""
    cdef mqtt_sn.SnMessage message
    cdef Py_ssize_t header = mqtt_sn.forwarded_header(data, <Py_ssize_t>size)
    if header < 0:
        return 0
    at_most(header, size)
    if mqtt_sn.read_message(data + header, <Py_ssize_t>size - header, &message) == \
            mqtt_sn.MessageStatus.SN_WELL_FORMED:
        within(message.text, data, size)
    return 0


PURE = {
    "coap": <uintptr_t>&read_coap,
    "coap-stream": <uintptr_t>&read_coap_stream,
    "kpudp": <uintptr_t>&read_kpudp,
    "kpudp-secure": <uintptr_t>&read_kpudp_secure,
    "mqtt-sn": <uintptr_t>&read_mqtt_sn,
    "client-data": <uintptr_t>&read_client_data,
    "extension-data": <uintptr_t>&read_extension_data,
    "websocket": <uintptr_t>&read_websocket,
    "proxy-header": <uintptr_t>&read_proxy_header,
    "avro": <uintptr_t>&read_avro,
    "http": <uintptr_t>&read_http,
    "query": <uintptr_t>&read_query,
}
RAISING = {
    "nats": <uintptr_t>&read_nats,
    "mqtt-3.1.1": <uintptr_t>&read_mqtt_311,
    "mqtt-5": <uintptr_t>&read_mqtt_5,
}
