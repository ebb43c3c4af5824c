"""Observers: which pushes are notifications of which registration. Sending them is the peer's (coap_peer.pyx).

A push is a notification of the registrations on exactly its resource: the same endpoint, extension instance and
resource path. A notification does not name its path, so a registration on a part of it could not tell what it is told.

Source: RFC 7641; 1/KP, its CoAP binding.
"""

from collections import deque

from libc.string cimport memcmp

from kaa_gateway.kp.resource_path cimport ResourcePath, split_resource_path, split_token
from kaa_gateway.wire.buffer cimport Slice


cdef inline Slice without_slash(Slice path) noexcept nogil:
    if path.size and path.data[0] == c"/":
        return Slice(path.data + 1, path.size - 1)
    return path


cdef inline bint equals(Slice text, bytes name) noexcept:
    return text.size == len(name) and memcmp(text.data, <const char*>name, <size_t>text.size) == 0


cdef class Observer:
    """One entry of the list of observers (RFC 7641 section 4.1)."""

    cdef bint matches(self, const ExtensionDataView* data, Endpoint endpoint) noexcept:
        """Whether a push is for this registration. One that does not name its extension instance may be any's."""
        return (
            endpoint is self.endpoint
            and (data.extension_instance_name.data == NULL or equals(data.extension_instance_name, self.extension))
            and equals(without_slash(data.resource_path), self.path)
        )


cdef Observer observer_of(bytes token, bytes resource, Slice topic, Endpoint endpoint):
    """The observer that a registration on a topic makes; the topic has been routed, and so is well-formed."""
    cdef Observer observer = Observer()
    cdef ResourcePath parts
    cdef Slice endpoint_token, path
    split_resource_path(topic, &parts)
    split_token(parts.rest, &endpoint_token, &path)
    path = without_slash(path)
    observer.endpoint = endpoint
    observer.token = token
    observer.resource = resource
    observer.extension = parts.extension.data[:parts.extension.size]
    observer.path = path.data[:path.size]
    observer.queue = deque()
    return observer
