from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.counters cimport Counters, ExtensionCounters, VersionCounters
from kaa_gateway.bus.durable cimport DurableLane
from kaa_gateway.kp.endpoints cimport Endpoints
from kaa_gateway.kp.quota cimport Quota
from kaa_gateway.kp.quotas cimport Quotas
from kaa_gateway.kp.session cimport Attachment, Endpoint, Session
from kaa_gateway.wire.buffer cimport Slice


cdef class Binding:
    # Where messages for an extension instance go: those of one endpoint that it has redirected, or all others.
    cdef bytes extension
    cdef bytes instance_head     # PUB <instance-wide subject> <reply-to> : where messages go by default
    cdef bytes replica_head      # the replica that session affinity has named last, or None
    cdef bytes head              # where they go now: one of the two
    cdef ExtensionCounters counters
    cdef DurableLane lane        # what takes them instead, of a durable extension instance; else None


cdef class Route:
    # All that is fixed by a resource path.
    cdef bytes key               # the topic without request ID
    cdef bytes middle            # pre-encoded Avro: appVersionName, endpointId, resourcePath
    cdef bytes config_name       # pre-encoded Avro: configName; None for null
    cdef Py_ssize_t overhead     # bytes of ClientData without payload, at most
    cdef Binding binding
    cdef Endpoint endpoint       # None for an extension without endpoints
    cdef bytes token
    cdef bytes app_version
    cdef str tenant              # whose application it is, or None
    # how the token was last found good, for sessions that come with it
    cdef object identity
    cdef uint32_t revocations    # the endpoint's count at that time
    cdef uint64_t generation     # that of the configuration for which it was last found right
    cdef VersionCounters version_counters   # counts of the application version
    cdef Quota quota             # the narrowest that its messages count for; None if there is none


cdef class RouteCache:
    # wiring
    cdef Endpoints endpoints
    cdef Py_ssize_t generation_max
    # state: two generations, so that the cache is bounded without a list of uses
    cdef dict young
    cdef dict old
    cdef list outgoing           # dicts of routes that have left the cache and are dropped a few at a time
    cdef uint64_t generation     # of the configuration
    cdef dict changed_at         # application version -> generation in which its routes were last changed

    cdef Route find(self, const uint8_t* key, Py_ssize_t size)
    cdef int keep(self, Route route) except -1
    cdef bint is_stale(self, Route route) except -1
    cdef int drop(self, Route route) except -1
    cdef int drop_outgoing(self) except -1


cdef struct Target:
    # What a topic says, checked against the configuration; slices borrow from the topic.
    Slice app_version
    Slice extension
    bint endpoint_aware
    Slice token        # data NULL if not endpoint_aware
    Slice path         # the extension-specific rest, without request ID
    bint has_request_id


cdef class Router:
    # wiring
    cdef Counters counters
    cdef Endpoints endpoints
    cdef Quotas quotas
    cdef dict app_versions       # name -> frozenset of the extension instances that it may use
    cdef dict tenants            # application version -> ID of its tenant, where it has one
    cdef dict endpoint_aware     # extension instance -> bool
    cdef frozenset named         # extension instances whose paths name configurations
    cdef dict shared_bindings    # extension instance -> Binding, of extensions without endpoints
    cdef dict lanes              # extension instance -> DurableLane, of those that are durable
    cdef str replica_id
    cdef str reply_to
    cdef dict extension_of       # instance-wide subject -> extension instance
    cdef Py_ssize_t topic_size_max
    # state
    cdef uint64_t generation     # of the configuration: a route of an older one may not be right any more
    cdef RouteCache topics       # of protocols whose paths may end in a request ID
    cdef RouteCache paths        # of those whose paths are taken as they are

    cdef int invalidate(self, app_versions) except -1
    cdef RouteCache cache(self, bint literal)
    cdef str read_target(self, Slice topic, bint literal, Target* target)
    cdef tuple named_by_filter(self, Slice topic_filter)
    cdef Route make(self, Slice topic, bint literal, const Target* target, Attachment attachment)
    cdef Binding binding(self, Endpoint endpoint, bytes extension)
    cdef int rebind(self, Route route) except -1
    cdef Binding own_binding(self, Endpoint endpoint, bytes extension)
    cdef int redirect(self, Endpoint endpoint, bytes extension, Slice subject) except -1
    cdef bytes extension_at(self, Endpoint endpoint, Slice subject)
    cdef Binding unbind(self, Endpoint endpoint, Slice subject)
