"""A request that waits for a push: the device of an endpoint that cannot keep a connection asks, and is answered later.

What lives here: which pushes it is for, and that its endpoint counts as connected. What does not: how the transport
answers, and when it looks at the deadline.

Source: docs/devices.md, "Wait for a push".
"""

from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcmp

from kaa_gateway.kp.resource_path cimport split_request_id, split_resource_path, split_token
from kaa_gateway.kp.router cimport Route


cdef inline Slice without_slash(Slice path) noexcept nogil:
    if path.size and path.data[0] == c"/":
        return Slice(path.data + 1, path.size - 1)
    return path


cdef class Waiting:
    """One waiting request of a session."""

    cdef bint matches(self, const ExtensionDataView* data, Endpoint endpoint) except -1:
        """Return whether a push is for it: of its extension, to its resource path or one below."""
        cdef ResourcePath parts
        cdef Slice token, path, pushed = without_slash(data.resource_path)
        cdef Slice instance = data.extension_instance_name
        cdef Attachment attachment = self.find_attachment()
        if attachment is None or attachment.endpoint is not endpoint:
            return False
        self.split(&parts, &token, &path)
        if instance.data != NULL and (
            instance.size != parts.extension.size
            or memcmp(instance.data, parts.extension.data, <size_t>instance.size) != 0
        ):
            return False
        return path.size == 0 or (
            pushed.size >= path.size and memcmp(pushed.data, path.data, <size_t>path.size) == 0
            and (pushed.size == path.size or pushed.data[path.size] == c"/")
        )

    cdef int split(self, ResourcePath* parts, Slice* token, Slice* path) noexcept:
        """Find the parts of the resource path. Of an extension without endpoints, it may have no token."""
        cdef Slice topic = Slice(<const uint8_t*>self.topic, len(self.topic))
        split_resource_path(topic, parts)
        split_token(parts.rest, token, path)
        path[0] = without_slash(path[0])
        if path.size and path.data[path.size - 1] == c"/":
            path.size -= 1
        return 0

    cdef Attachment find_attachment(self):
        """Return the session's attachment under its token, or None."""
        cdef ResourcePath parts
        cdef Slice token, path
        if self.attachment is not None:
            return None if self.attachment.ended else self.attachment
        self.split(&parts, &token, &path)
        return self.session.attachment_under(
            parts.app_version.data[:parts.app_version.size], token.data[:token.size]
        )

    cdef int wait_for(self, Session session, Slice path, double deadline) except -1:
        """Wait for pushes to a resource path of 1/KP. Its endpoint need not be known yet."""
        self.session = session
        self.topic = path.data[:path.size]
        self.deadline = deadline
        return 0

    cdef bint appear(self, Sessions sessions) except -1:
        """Let the endpoint count as connected. Return False if there is none: its extension has no endpoints."""
        cdef Route route = self.session.last_route
        self.attachment = self.find_attachment()
        if self.attachment is None:
            return False
        if route is not None and route.key == self.topic:
            self.topic = route.key  # the same bytes need not be there twice
        sessions.add_waiter(self.session, self.attachment)
        return True

    cdef int disappear(self, Sessions sessions) except -1:
        """Let the endpoint not count as connected any more, for this request."""
        cdef Attachment attachment = self.attachment
        self.attachment = None
        return 0 if attachment is None else sessions.remove_waiter(self.session, attachment)


cdef Slice without_request_id(Slice topic) noexcept nogil:
    """Return a resource path without the request ID at its end, if it has one behind its token."""
    cdef ResourcePath parts
    cdef Slice token, path
    cdef Py_ssize_t size
    cdef int32_t request_id
    split_resource_path(topic, &parts)
    split_token(parts.rest, &token, &path)
    size = path.size
    split_request_id(path, &size, &request_id)
    return Slice(topic.data, topic.size - (path.size - size))
