"""Routes: the meaning of a resource path under the configuration, compiled once and cached.

A route holds the fixed middle of ClientData in Avro and the head of the NATS PUB, so that a message of a known path
costs one lookup. The cache is bounded; sessions that share an endpoint share its routes. Session affinity (an
extension replica that asked for an endpoint's messages) is kept per endpoint and extension, in the Binding.

Source: 1/KP, resource paths; 4/ESP, ClientData and session affinity.
"""

from kaa_gateway.bus.durable cimport DurableLanes
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.resource_path cimport (
    ResourcePath, is_clean, split_request_id, split_resource_path, split_token,
)
from kaa_gateway.wire.buffer cimport to_bytes
from kaa_gateway.wire.esp cimport HEAD_SIZE_MAX, TAIL_OVERHEAD_MAX, encode_config_name, encode_middle

from libc.stdint cimport int32_t, uint64_t

import re

from kaa_gateway.bus import subjects
from kaa_gateway.wire.nats import encode_publish_head

cdef enum:
    TOKEN_SIZE_MAX = 256  # bytes

REPLICA_SUBJECT = re.compile(rb"kaa\.v1\.replica\.[A-Za-z0-9_-]{1,128}\.esp\.[A-Za-z0-9_-]{1,64}\Z")
"""A reply-to that an extension may redirect an endpoint's messages to (4/ESP, session affinity)."""
NAMED_CONFIGURATION = re.compile(rb"/(?:config|applied)/json/([A-Za-z0-9_-]+)\Z")
"""The resource paths of 7/CMP that name a configuration."""


cdef class Binding:
    """The subject of messages to an extension instance."""

    def __init__(self, bytes extension, bytes head, ExtensionCounters counters, DurableLane lane):
        self.extension = extension
        self.counters = counters
        self.lane = lane
        self.instance_head = self.head = head


cdef class Route:
    """The parts of ClientData and PUB that all messages of a resource path share."""


cdef class RouteCache:
    """At most `capacity` routes by their topic.

    Nothing here takes long: what leaves the cache is dropped a few routes at a time, and routes that a change of the
    configuration has made stale are found out when they are used, or by `sweep`.
    """

    def __init__(self, Endpoints endpoints, Py_ssize_t capacity):
        self.endpoints = endpoints
        self.generation_max = max(capacity // 2, 1)
        self.young = {}
        self.old = {}
        self.outgoing = []
        self.changed_at = {}

    def __len__(self):
        return len(self.young) + len(self.old) + sum(map(len, self.outgoing))

    cdef Route find(self, const uint8_t* key, Py_ssize_t size):
        """Return the cached route of a topic without request ID, or None. Hot path."""
        name = key[:size]
        route = self.young.get(name)
        if route is None:
            route = self.old.pop(name, None)
            if route is None:
                return None
            self.keep(<Route>route)
        if (<Route>route).generation != self.generation:
            if self.is_stale(<Route>route):
                del self.young[name]
                self.drop(<Route>route)
                return None
            (<Route>route).generation = self.generation
        return <Route>route

    cdef bint is_stale(self, Route route) except -1:
        """Return whether the configuration has changed since the route was last found right: it may be wrong."""
        changed_at = self.changed_at.get(route.app_version)
        return changed_at is not None and route.generation < <uint64_t>changed_at

    cdef int keep(self, Route route) except -1:
        """Add a route to the young generation. When that is full, routes unused since the last time are removed."""
        if len(self.young) >= self.generation_max:
            if self.old:
                self.outgoing.append(self.old)
            self.old = self.young
            self.young = {}
        self.young[route.key] = route
        return self.drop_outgoing() if self.outgoing else 0

    cdef int drop_outgoing(self) except -1:
        """Drop two of the routes that have left the cache: they are gone before half as many are added."""
        cdef dict routes = self.outgoing[0]
        cdef int _
        for _ in range(min(2, len(routes))):
            self.drop(<Route>routes.popitem()[1])
        if not routes:
            del self.outgoing[0]
        return 0

    cdef int drop(self, Route route) except -1:
        """Let go of a route that has left the cache."""
        if route.endpoint is not None:
            route.endpoint.route_count -= 1
            self.endpoints.release(route.endpoint)
        return 0

    def invalidate(self, app_versions not None, uint64_t generation):
        """Begin a generation in which the routes of these application versions are not what they were."""
        self.generation = generation
        for app_version in app_versions:
            self.changed_at[app_version] = generation

    def sweep(self):
        """Take out stale routes, which nobody may use again; one route a step."""
        for routes in (self.young, self.old):
            for key in list(routes):
                route = routes.get(key)
                if route is not None and self.is_stale(<Route>route):
                    del routes[key]
                    self.drop(<Route>route)
                yield 1


cdef class Router:
    """Compiles routes, and caches them.

    `app_versions` maps each application version to the extension instances that it may use, `endpoint_aware`
    each extension instance to whether a token follows it, `tenants` application versions to whose they are; `named` has
    the extension instances that get the configName of 4/ESP from the path. `capacity` bounds the cached routes of each
    kind, `topic_size_max` the bytes of a resource path.
    """

    def __init__(
        self, Sessions sessions not None, app_versions, endpoint_aware, tenants, named, str replica_id,
        Py_ssize_t capacity, Py_ssize_t topic_size_max,
    ):
        self.counters = sessions.presence.counters
        self.endpoints = sessions.endpoints
        self.replica_id = replica_id
        self.reply_to = subjects.replica(replica_id, "esp", subjects.EXTENSION_DATA)
        self.app_versions = {}
        self.endpoint_aware = {}
        self.tenants = {}
        self.named = frozenset()
        self.extension_of = {}
        self.shared_bindings = {}
        self.lanes = {}
        self.topics = RouteCache(self.endpoints, capacity)
        self.paths = RouteCache(self.endpoints, capacity)
        self.topic_size_max = topic_size_max
        self.quotas = sessions.quotas
        self.configure(app_versions, endpoint_aware, tenants, named)

    def configure(self, app_versions not None, endpoint_aware not None, tenants not None, named not None):
        """Apply another configuration. Return the application versions that are gone, or belong to another tenant.

        Cached routes that may be wrong now are not used any more; `sweep` takes them out.
        """
        new = {
            name.encode(): frozenset(extension.encode() for extension in extensions)
            for name, extensions in app_versions.items()
        }
        aware = {name.encode(): bool(is_aware) for name, is_aware in endpoint_aware.items()}
        owners = {name.encode(): tenant for name, tenant in tenants.items()}
        naming = frozenset(name.encode() for name in named)
        gone = frozenset(
            name for name in self.app_versions if name not in new or owners.get(name) != self.tenants.get(name)
        )
        changed = gone | frozenset(
            name for name, allowed in self.app_versions.items()
            if any(
                extension not in new.get(name, ()) or aware[extension] != self.endpoint_aware[extension]
                or (extension in naming) != (extension in self.named)
                for extension in allowed
            )
        )
        self.app_versions = new
        self.endpoint_aware = aware
        for name in aware:
            self.counters.counters_of_extension(name)
        self.tenants = owners
        self.named = naming
        # Of what has gone there may be messages under way, so the old names stay.
        self.extension_of.update(
            (subjects.service(name, "esp", subjects.CLIENT_DATA).encode(), name.encode()) for name in endpoint_aware
        )
        self.invalidate(changed)
        return gone

    def extensions(self):
        """Return the extension instances that are configured."""
        return sorted(name.decode() for name in self.endpoint_aware)

    def set_quotas(self, tenants not None, app_versions not None, endpoints not None, owners not None):
        """Apply other quotas: see Quotas.configure. Routes whose quota has come or gone are made again."""
        self.invalidate(self.quotas.configure(tenants, app_versions, endpoints, owners))

    cdef int invalidate(self, app_versions) except -1:
        """Use the cached routes of these application versions no more."""
        if app_versions:
            self.generation += 1
            self.topics.invalidate(app_versions, self.generation)
            self.paths.invalidate(app_versions, self.generation)
        return 0

    def sweep(self):
        """Take stale routes out of the cache; one route a step."""
        yield from self.topics.sweep()
        yield from self.paths.sweep()

    def set_limits(self, Py_ssize_t capacity, Py_ssize_t topic_size_max):
        """Set other bounds, for what comes from now on."""
        self.topics.generation_max = self.paths.generation_max = max(capacity // 2, 1)
        self.topic_size_max = topic_size_max

    def set_durable(self, DurableLanes durable not None):
        """Name the lanes of the durable extension instances; once, before the first message."""
        self.lanes = {lane.instance.encode(): lane for lane in durable.lanes}

    def route_count(self):
        """Return the number of cached routes."""
        return len(self.topics) + len(self.paths)

    def successor(self, bytes previous not None, bytes app_version not None):
        """Return the application version if sessions of the previous one may speak for it, else None.

        They may if it is configured and of the same tenant.
        """
        if app_version not in self.app_versions or self.tenants.get(app_version) != self.tenants.get(previous):
            return None
        return app_version

    def remove_tenant(self, str tenant not None):
        """Remove a tenant's application versions, and return them: no path leads there any more."""
        gone = frozenset(name for name, owner in self.tenants.items() if owner == tenant)
        self.app_versions = {name: allowed for name, allowed in self.app_versions.items() if name not in gone}
        self.invalidate(gone)
        return gone

    cdef RouteCache cache(self, bint literal):
        """Return the routes of topics, or those of literal paths."""
        return self.paths if literal else self.topics

    cdef str read_target(self, Slice topic, bint literal, Target* target):
        """Check a topic of kp1 against the configuration. Return the reason phrase of a 404, or None if it is good.

        A literal path has no request ID, whatever its last level looks like.
        """
        cdef ResourcePath path
        cdef Py_ssize_t base_size
        cdef int32_t request_id
        if topic.size > self.topic_size_max:
            return "Resource path is too long"
        if not split_resource_path(topic, &path):
            return "Resource path must be kp1/<application version>/<extension instance>/..."
        allowed = self.app_versions.get(to_bytes(path.app_version))
        if allowed is None:
            return "Unknown application version"
        if to_bytes(path.extension) not in allowed:
            return "Unknown extension instance, or not allowed for this application version"
        target.app_version = path.app_version
        target.extension = path.extension
        target.endpoint_aware = self.endpoint_aware[to_bytes(path.extension)]
        if not target.endpoint_aware:
            target.token = Slice(NULL, 0)
            target.path = path.rest
        elif not split_token(path.rest, &target.token, &target.path):
            return "Endpoint token is missing"
        elif target.token.size > TOKEN_SIZE_MAX or not is_clean(target.token):
            return "Endpoint token is malformed"
        target.has_request_id = not literal and split_request_id(target.path, &base_size, &request_id)
        if target.has_request_id:
            target.path.size = base_size
        if not is_clean(target.path):
            return "Resource path is malformed"
        return None

    cdef tuple named_by_filter(self, Slice topic_filter):
        """Return (application version, token) of the endpoint that a topic filter names, or None.

        `+` for the extension instance stands for the endpoint-aware ones.
        """
        cdef ResourcePath path
        cdef Slice token, rest
        if not split_resource_path(topic_filter, &path) or topic_filter.size > self.topic_size_max:
            return None
        app_version = to_bytes(path.app_version)
        allowed = self.app_versions.get(app_version, ())
        extension = to_bytes(path.extension)
        if not any(self.endpoint_aware[name] for name in allowed if extension in (name, b"+")):
            return None
        if not split_token(path.rest, &token, &rest) or token.data[0] in (c"+", c"#"):
            return None
        if token.size > TOKEN_SIZE_MAX or not is_clean(token):
            return None
        return app_version, to_bytes(token)

    cdef Route make(self, Slice topic, bint literal, const Target* target, Attachment attachment):
        """Compile and cache the route of a good topic. `attachment` is that of its token, or None."""
        cdef Py_ssize_t key_size = target.path.data + target.path.size - topic.data
        cdef RouteCache routes = self.cache(literal)
        cdef Route route = routes.find(topic.data, key_size)
        cdef bytes extension = to_bytes(target.extension)
        cdef Endpoint endpoint = None if attachment is None else attachment.endpoint
        if route is not None:
            if route.endpoint is endpoint:
                self.rebind(route)
                if endpoint is not None:
                    route.identity = attachment.identity
                    route.revocations = endpoint.revocations
                return route
            # The token has gone over to another endpoint.
            del routes.young[route.key]
            routes.drop(route)
        route = Route()
        route.key = topic.data[:key_size]
        route.generation = self.generation
        route.endpoint = endpoint
        route.app_version = to_bytes(target.app_version)
        route.middle = encode_middle(
            route.app_version, None if endpoint is None else endpoint.endpoint_id, to_bytes(target.path)
        )
        route.overhead = HEAD_SIZE_MAX + len(route.middle) + TAIL_OVERHEAD_MAX
        if extension in self.named:
            name = NAMED_CONFIGURATION.match(to_bytes(target.path))
            if name:
                route.config_name = encode_config_name(name[1])
                route.overhead += len(route.config_name)
        route.binding = self.binding(endpoint, extension)
        route.tenant = self.tenants.get(route.app_version)
        route.quota = self.quotas.quota_of(route.app_version, endpoint)
        if endpoint is not None:
            # The objects of the attachment serve the route too.
            route.token = attachment.token if attachment.token == to_bytes(target.token) else to_bytes(target.token)
            if attachment.app_version == route.app_version:
                route.app_version = attachment.app_version
            route.identity = attachment.identity
            route.revocations = endpoint.revocations
            endpoint.route_count += 1
            self.endpoints.hold(endpoint)
        routes.keep(route)
        return route

    cdef Binding binding(self, Endpoint endpoint, bytes extension):
        """Return the binding of an endpoint, or of None, to an extension: the shared one if nothing redirects it."""
        cdef Binding shared
        if endpoint is not None and endpoint.bindings is not None:
            binding = endpoint.bindings.get(extension)
            if binding is not None:
                return <Binding>binding
        shared = self.shared_bindings.get(extension)
        if shared is None:
            subject = subjects.service(extension.decode(), "esp", subjects.CLIENT_DATA)
            shared = self.shared_bindings[extension] = Binding(
                extension,
                encode_publish_head(subject, self.reply_to),
                self.counters.counters_of_extension(extension),
                self.lanes.get(extension),
            )
        return shared

    cdef int rebind(self, Route route) except -1:
        """Let a cached route have the binding that its endpoint has got since. Hot path."""
        if route.endpoint is not None and route.endpoint.bindings is not None:
            route.binding = self.binding(route.endpoint, route.binding.extension)
        return 0

    cdef Binding own_binding(self, Endpoint endpoint, bytes extension):
        """Return the binding of an endpoint alone. Its sessions look their routes up again, and so use it."""
        cdef Binding binding = self.binding(endpoint, extension)
        cdef Session session
        if binding is not self.shared_bindings[extension]:
            return binding
        binding = Binding(binding.extension, binding.instance_head, binding.counters, binding.lane)
        if endpoint.bindings is None:
            endpoint.bindings = {}
        endpoint.bindings[binding.extension] = binding
        for session in endpoint.all_sessions():
            session.forget_last_route()
        return binding

    cdef int redirect(self, Endpoint endpoint, bytes extension, Slice subject) except -1:
        """Redirect an endpoint's messages for an extension to the replica that a reply-to named.

        A reply-to that is no replica subject of 4/ESP is ignored: it would let a message on NATS choose where
        devices' data goes. So is that of a durable instance, whose messages belong to its stream.
        """
        cdef bytes name = to_bytes(subject)
        cdef Binding binding
        if extension in self.endpoint_aware and extension not in self.lanes and REPLICA_SUBJECT.match(name):
            target = subjects.with_message_type(name.decode(), subjects.CLIENT_DATA)
            binding = self.own_binding(endpoint, extension)
            binding.replica_head = binding.head = encode_publish_head(target, self.reply_to)
        return 0

    cdef bytes extension_at(self, Endpoint endpoint, Slice subject):
        """Return the extension instance whose messages go to a subject, of itself or of a replica; None if unknown."""
        cdef Binding binding
        name = to_bytes(subject)
        extension = self.extension_of.get(name)
        if extension is None and endpoint is not None and endpoint.bindings is not None:
            for binding in endpoint.bindings.values():
                if binding.replica_head is not None and binding.replica_head.startswith(b"PUB " + name + b" "):
                    return binding.extension
        return extension

    cdef Binding unbind(self, Endpoint endpoint, Slice subject):
        """End the affinity to a replica that is gone. Return the binding that has or had it, or None."""
        cdef Binding binding
        cdef bytes prefix = b"PUB " + to_bytes(subject) + b" "
        if endpoint.bindings is None:
            return None
        for binding in endpoint.bindings.values():
            if binding.replica_head is not None and binding.replica_head.startswith(prefix):
                binding.head = binding.instance_head
                return binding
        return None
