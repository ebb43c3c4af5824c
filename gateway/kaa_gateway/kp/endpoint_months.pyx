"""The endpoints of an application version whose month is limited, in shards that are counted together.

A quota stays here after its endpoint has gone until all its messages are in the count. So an endpoint that comes back
soon goes on with it. Who counts the messages of all workers is in kaa_gateway.fleet.
"""

from zlib import crc32

from cpython.object cimport PyObject

from kaa_gateway.kp.quota cimport Quota

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* object)

cdef enum:
    SHARD_COUNT = 128
    PARTS = 100                    # an endpoint is counted at once when it has sent one of so many parts of its month
    OWN_REFERENCES = 2             # to a quota, while `look` looks at it: of the shard, and of its variable


cdef class EndpointMonths:
    """The quotas of the endpoints of one application version, each of which may send `month_max` messages a month."""

    shard_count = SHARD_COUNT

    def __init__(self, int64_t month_max):
        self.month_max = month_max
        self.shards = [{} for _ in range(SHARD_COUNT)]

    def set_max(self, int64_t month_max):
        """Set how many messages an endpoint may send in a month."""
        cdef Quota quota
        self.month_max = month_max
        for shard in self.shards:
            for quota in shard.values():
                quota.set_month_max(month_max)

    cdef Quota join(self, bytes endpoint_id, Quota quota):
        """Return the quota of an endpoint: the one that it had, or the new one that is given."""
        cdef dict shard = self.shards[crc32(endpoint_id) % SHARD_COUNT]
        cdef Quota before = shard.get(endpoint_id)
        if before is not None:
            return before
        quota.set_month_max(self.month_max)
        shard[endpoint_id] = quota
        return quota

    def look(self, Py_ssize_t number):
        """Return when a shard must be counted: "now", "soon", or "never". Forget endpoints that are gone and counted.

        "now" means that the count of an endpoint is not known, or that it has sent a hundredth of its month since the
        last time. "soon" means that an endpoint has sent something, or has nothing left.
        """
        cdef dict shard = self.shards[number]
        cdef Quota quota
        cdef int64_t new
        cdef list gone = []
        when = "never"
        for endpoint_id, quota in shard.items():
            new = <int64_t>(quota.messages_passed - quota.messages_counted)
            if new == 0 and Py_REFCNT(<PyObject*>quota) <= OWN_REFERENCES:
                gone.append(endpoint_id)
            elif not quota.month_known or new * PARTS >= self.month_max:
                when = "now"
            elif when == "never" and (new or quota.month_left <= 0):
                when = "soon"
        for endpoint_id in gone:
            del shard[endpoint_id]
        return when

    def quotas(self, Py_ssize_t number):
        """Return the quotas of a shard, by endpoint ID."""
        return {endpoint_id.decode(): quota for endpoint_id, quota in self.shards[number].items()}

    def forget_counts(self):
        """Note that what was counted is of a month that is over."""
        cdef Quota quota
        for shard in self.shards:
            for quota in shard.values():
                quota.month_known = False
