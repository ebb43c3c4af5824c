"""The observations of a CoAP server: who is registered on which resource, and the notifications that wait.

A push is a notification for the registrations on exactly its resource: the same endpoint, extension instance and
resource path. A notification does not name its path, so an observer of a part of a path could not tell what changed.

Source: RFC 7641; 1/KP, its CoAP binding.
"""

from collections import OrderedDict, deque

from libc.string cimport memcmp

from kaa_gateway.kp.resource_path cimport ResourcePath, split_resource_path, split_token
from kaa_gateway.kp.session cimport Session
from kaa_gateway.wire.buffer cimport slice_of

from kaa_gateway.bus.push_receipts import DROPPED

cdef enum:
    QUEUED_NOTIFICATIONS_MAX = 16        # of an observation
    QUEUED_BYTES_MAX = 16 * 1024 * 1024  # of the notifications of all observations
    CHECKED_AT_ONCE = 500                # observations


cdef inline Slice without_slash(Slice path) noexcept nogil:
    if path.size and path.data[0] == c"/":
        return Slice(path.data + 1, path.size - 1)
    return path


cdef inline bint equals(Slice text, bytes name) noexcept:
    return text.size == len(name) and memcmp(text.data, <const char*>name, <size_t>text.size) == 0


cdef class Notification:
    """A notification that waits for the one before it to be acknowledged."""


cdef class Observation:
    """One entry of a list of observers (RFC 7641 section 4.1)."""

    cdef bint matches(self, const ExtensionDataView* data, Endpoint endpoint) noexcept:
        """Return whether a push is for this observation. One without an extension instance is for those of any."""
        return (
            endpoint is self.endpoint
            and (data.extension_instance_name.data == NULL or equals(data.extension_instance_name, self.extension))
            and equals(without_slash(data.resource_path), self.path)
        )


cdef class ObservationTable:
    """The bounds that the observations of all peers share. The observations of a peer are a dict by token, its own."""

    def __init__(self, Counters counters not None, Py_ssize_t observations_max, Py_ssize_t per_peer_max):
        self.counters = counters
        self.observations_max = observations_max
        self.per_peer_max = per_peer_max
        self.observations = OrderedDict()

    def __len__(self):
        return len(self.observations)

    cdef Observation register(self, object peer, dict of_peer, bytes token, bytes transfer_key, Endpoint endpoint):
        """Return the observation of a resource by a peer, new or renewed; None if there are too many.

        A peer has one observation of a resource: a device that has restarted registers with another token, and does
        not know those that it used before. The path within `transfer_key` has been routed, so it is well-formed.
        """
        cdef Observation observation
        cdef ResourcePath parts
        cdef Slice endpoint_token, path, topic
        cdef bytes extension
        topic = slice_of(transfer_key)
        topic = Slice(topic.data + 2 + topic.data[1], topic.size - 2 - topic.data[1])
        split_resource_path(topic, &parts)
        split_token(parts.rest, &endpoint_token, &path)
        path = without_slash(path)
        extension = parts.extension.data[:parts.extension.size]
        for observation in of_peer.values():
            if observation.endpoint is endpoint and observation.extension == extension \
                    and equals(path, observation.path):
                break
        else:
            if len(of_peer) >= self.per_peer_max or len(self.observations) >= self.observations_max:
                return None
            observation = Observation()
            observation.peer = peer
            observation.endpoint = endpoint
            observation.app_version = parts.app_version.data[:parts.app_version.size]
            observation.extension = extension
            observation.path = path.data[:path.size]
            observation.queue = deque()
            self.observations[observation] = None
        if observation.token != token:
            of_peer.pop(observation.token, None)
            observation.token = token
        observation.transfer_key = transfer_key
        of_peer[observation.token] = observation
        return observation

    cdef bint remove(self, dict of_peer, Observation observation) except -1:
        """Remove an observation and its queue. Return False if it was removed before."""
        cdef Notification notification
        if of_peer.pop(observation.token, None) is None:
            return False
        del self.observations[observation]
        for notification in observation.queue:
            self.queued_bytes -= len(notification.body)
        observation.queue.clear()
        return True

    cdef list next_unserved(self, dict app_versions):
        """Return the observations whose resource is gone, of the next ones that are to be checked.

        An application version may have lost its extension instance, and a peer its endpoint token.
        """
        cdef Observation observation
        cdef list result = []
        cdef int _
        for _ in range(min(len(self.observations), <Py_ssize_t>CHECKED_AT_ONCE)):
            observation = next(iter(self.observations))
            self.observations.move_to_end(observation)
            if observation.extension not in app_versions.get(observation.app_version, ()) \
                    or observation.endpoint.attachment_of(<Session>observation.peer) is None:
                result.append(observation)
        return result

    cdef int enqueue(
        self, Observation observation, uint8_t code, int content_format, Slice body, Receipt receipt
    ) except -1:
        """Queue a notification behind those that wait.

        If the queue is full its oldest notification is dropped; if memory is short, the new one.
        """
        cdef Notification notification, oldest
        if len(observation.queue) >= QUEUED_NOTIFICATIONS_MAX:
            oldest = self.dequeue(observation)
            if oldest.receipt is not None:
                oldest.receipt.end(DROPPED, "coap_notification_queue_full")
            self.counters.count("dropped", "coap_notification_queue_full")
        if self.queued_bytes + body.size > QUEUED_BYTES_MAX:
            if receipt is not None:
                receipt.end(DROPPED, "coap_notification_memory")
            return self.counters.count("dropped", "coap_notification_memory")
        notification = Notification()
        notification.code = code
        notification.content_format = content_format
        notification.body = body.data[:body.size] if body.size else b""
        notification.receipt = receipt
        self.queued_bytes += body.size
        observation.queue.append(notification)
        return 0

    cdef Notification dequeue(self, Observation observation):
        """Remove and return the notification that has waited longest, or None."""
        cdef Notification notification
        if not observation.queue:
            return None
        notification = observation.queue.popleft()
        self.queued_bytes -= len(notification.body)
        return notification

    cdef int put_back(self, Observation observation, Notification notification) except -1:
        """Put a notification back that was dequeued and cannot be sent now."""
        self.queued_bytes += len(notification.body)
        observation.queue.appendleft(notification)
        return 0
