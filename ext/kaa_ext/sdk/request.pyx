"""A message of a device, as handlers see it: a ClientData whose fields are decoded when a handler asks for them.

Source: 4/ESP, ClientData.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from kaa_gateway.wire.avro cimport GOOD, Status, raise_malformed
from kaa_gateway.wire.buffer cimport Slice, to_bytes
from kaa_gateway.wire.esp cimport read_client_data

from kaa_gateway.bus import subjects
from kaa_gateway.errors import MalformedAvro
from kaa_gateway.wire.esp import encode_client_data

cdef enum:
    HIGH_BITS = 0x80  # of a byte that is not ASCII

cdef tuple REPLICA_SUBJECT = tuple(subjects.replica("*", "esp", subjects.EXTENSION_DATA).split("*"))
cdef dict NO_PARAMETERS = {}


cdef class Request:
    """A message of a device. It cannot be changed.

    `endpoint_id` is None for an endpoint-unaware extension; `request_id` is None if the device wants no response.
    `resource_path` does not contain the endpoint token and may be empty. `timestamp` (of the gateway) and `deadline`
    (None for never) are UNIX times in milliseconds. `config_name` is the one of 4/ESP; None is the default
    configuration. `parameters` has the values of the levels in braces of `route`, the handler's resource path.
    `gateway_replica_id` is the gateway replica that sent the message, if its reply-to names one. `trace_parent` is the
    W3C `traceparent` of a message that the gateway traces.
    """

    def __init__(
        self, *, str endpoint_id, str app_version_name not None, str resource_path not None, request_id,
        bytes payload not None, str correlation_id not None, timestamp, deadline, str config_name, parameters,
        str route="", str gateway_replica_id=None, str trace_parent=None,
    ):
        timeout = 0 if deadline is None else max(deadline - timestamp, 1)
        self.datum = encode_client_data(
            correlation_id, timestamp, timeout, app_version_name, endpoint_id, resource_path, request_id, payload,
            config_name,
        )
        read(self)
        self.parameters = parameters
        self.route = route
        self.reply = ""
        if gateway_replica_id is not None:
            self.reply = subjects.replica(gateway_replica_id, "esp", subjects.EXTENSION_DATA)
        self.trace_parent = trace_parent

    @property
    def endpoint_id(self):
        """Return the endpoint, or None."""
        return text(self.view.endpoint_id)

    @property
    def app_version_name(self):
        """Return the application version of the endpoint."""
        return text(self.view.app_version_name)

    @property
    def request_id(self):
        """Return the ID that the device has given the request, or None."""
        return self.view.request_id if self.view.has_request_id else None

    @property
    def payload(self):
        """Return what the device has sent."""
        if self.body is None:
            self.body = to_bytes(self.view.payload)
        return self.body

    @property
    def correlation_id(self):
        """Return the ID by which the gateway finds the request of an answer."""
        return text(self.view.correlation_id)

    @property
    def timestamp(self):
        """Return when the gateway received the message, in milliseconds of UNIX time."""
        return self.view.timestamp

    @property
    def deadline(self):
        """Return when the message expires, in milliseconds of UNIX time, or None."""
        return self.view.timestamp + self.view.timeout if self.view.timeout > 0 else None

    @property
    def config_name(self):
        """Return the configuration that the message is about, or None for the default one."""
        return text(self.view.config_name)

    @property
    def gateway_replica_id(self):
        """Return the gateway replica that sent the message, or None."""
        before, after = REPLICA_SUBJECT
        if self.reply.startswith(before) and self.reply.endswith(after):
            return self.reply[len(before):-len(after)] or None
        return None

    def __eq__(self, other):
        if not isinstance(other, Request):
            return NotImplemented
        return fields(self) == fields(other)

    def __repr__(self):
        return f"Request({', '.join(f'{name}={value!r}' for name, value in fields(self).items())})"


cdef dict fields(Request request):
    return {
        name: getattr(request, name)
        for name in (
            "endpoint_id", "app_version_name", "resource_path", "request_id", "payload", "correlation_id",
            "timestamp", "deadline", "config_name", "parameters", "route", "gateway_replica_id", "trace_parent",
        )
    }


cdef Request read_request(bytes datum, str reply, str trace_parent, object stored):
    """Return the request in a ClientData. Raise MalformedAvro if it is none. Hot path."""
    cdef Request request = Request.__new__(Request)
    request.datum = datum
    read(request)
    request.parameters = NO_PARAMETERS
    request.route = ""
    request.reply = reply
    request.trace_parent = trace_parent
    request.stored = stored
    return request


cdef int read(Request request) except -1:
    """Fill the view, and check that all text is UTF-8, since it is decoded later."""
    cdef const uint8_t* data = <const uint8_t*>request.datum
    cdef Status status = read_client_data(data, len(request.datum), &request.view)
    if status != GOOD:
        raise_malformed(status)
    check_text(request.view.correlation_id)
    check_text(request.view.app_version_name)
    check_text(request.view.endpoint_id)
    check_text(request.view.config_name)
    try:
        request.resource_path = text(request.view.resource_path)
    except UnicodeDecodeError as error:
        raise MalformedAvro("avro_not_utf8") from error
    return 0


cdef int check_text(Slice value) except -1:
    if not is_ascii(value):
        try:
            text(value)
        except UnicodeDecodeError as error:
            raise MalformedAvro("avro_not_utf8") from error
    return 0


cdef bint is_ascii(Slice value) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef uint64_t eight
    while value.size - at >= 8:
        memcpy(&eight, value.data + at, 8)
        if eight & <uint64_t>0x8080808080808080:
            return False
        at += 8
    while at < value.size:
        if value.data[at] & HIGH_BITS:
            return False
        at += 1
    return True


cdef str text(Slice value):
    return None if value.data == NULL else value.data[:value.size].decode()
