"""The counters of a worker: C integers for events of each message, a dict by reason for rare events, histograms
for durations.

The metrics read them at each scrape. A reason is a code of docs/reasons.md, never data of a peer.
"""

from kaa_gateway.clock cimport now_us

PROTOCOL_NAMES = ("mqtt", "http", "coap", "udp", "mqtt-sn")
cdef str NO_VERSION = ""

PLUGINS_MAX = PROTOCOL_COUNT - PLUGIN_FIRST
"""Protocols of plug-ins that have counters of their own."""

ENDINGS_KEPT = 1000
"""Ended connections that are remembered."""

cdef double[BUCKET_COUNT - 1] BOUNDS = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
]


cdef class VersionCounters:
    """Counts the messages of one application version since the worker's start."""


cdef class ExtensionCounters:
    """What was sent to one extension instance."""


cdef class ReasonCounter:
    """Counts an event for a reason that is not rare. Its owner adds to it."""


cdef class Ending:
    """How a connection ended."""


cdef class Counters:
    """Counts the events of one worker since its start, and remembers the last `endings_kept` ends of connections."""

    def __init__(self, int endings_kept=ENDINGS_KEPT):
        self.names = list(PROTOCOL_NAMES)
        self.reasons = {}
        self.frequent = {}
        self.extensions = {}
        self.versions = {}
        self.unrouted = VersionCounters()
        self.endings = []
        self.endings_kept = endings_kept

    def add_protocol(self, str name not None):
        """Return the number of a protocol, which gets one if it is new: PLUGINS_MAX new ones at most."""
        if name not in self.names:
            if len(self.names) >= PROTOCOL_COUNT:
                raise ValueError(f"more than {PLUGINS_MAX} protocols of plug-ins")
            self.names.append(name)
        return self.names.index(name)

    cdef int count(self, str event, str reason) except -1:
        """Count an event that has a reason: "refused", "dropped", "closed", "ignored" or "paused"."""
        key = (event, reason)
        self.reasons[key] = self.reasons.get(key, 0) + 1
        return 0

    cdef ReasonCounter counter_of(self, str event, str reason):
        """Return the counter of an event and its reason, for one that is not rare."""
        key = (event, reason)
        counter = self.frequent.get(key)
        if counter is None:
            counter = self.frequent[key] = ReasonCounter()
        return <ReasonCounter>counter

    def add(self, str event not None, str reason not None):
        """Do what count does, for Python code."""
        self.count(event, reason)

    cdef int remember_end(self, str client_id, bytes address, str reason) except -1:
        """Remember for an operator why a connection has ended, or was refused; "" for an unknown client.

        `address` is a sockaddr. The oldest is forgotten for it.
        """
        cdef Ending ending
        if self.endings_kept == 0:
            return 0
        if len(self.endings) < self.endings_kept:
            ending = Ending()
            self.endings.append(ending)
        else:
            ending = self.endings[self.oldest_ending]
            self.oldest_ending += 1
            if self.oldest_ending == self.endings_kept:
                self.oldest_ending = 0
        ending.ended_at = now_us()
        ending.client_id = client_id
        ending.address = address
        ending.reason = reason
        return 0

    def recent_endings(self):
        """Return the ends of connections, newest first, as (Unix time, client identifier, sockaddr, reason)."""
        cdef Ending ending
        found = []
        for ending in self.endings[self.oldest_ending:] + self.endings[:self.oldest_ending]:
            found.append((ending.ended_at / 1e6, ending.client_id, ending.address, ending.reason))
        return found[::-1]

    cdef VersionCounters counters_of(self, bytes app_version):
        """Return the counters of an application version. They are kept for ever, so it must be a configured one."""
        counts = self.versions.get(app_version)
        if counts is None:
            counts = self.versions[app_version] = VersionCounters()
        return <VersionCounters>counts

    cdef ExtensionCounters counters_of_extension(self, bytes instance):
        """Return the counters of an extension instance. They are kept for ever, so it must be a configured one."""
        counts = self.extensions.get(instance)
        if counts is None:
            counts = self.extensions[instance] = ExtensionCounters()
        return <ExtensionCounters>counts

    def by_extension(self):
        """Return {extension instance: (messages sent to it, messages of those that nobody took)}."""
        cdef ExtensionCounters counts
        result = {}
        for instance, counts in self.extensions.items():
            result[instance.decode()] = (counts.messages, counts.unserved)
        return result

    def by_version(self):
        """Return {counter name: {(protocol, application version): count}}; "" stands for no version."""
        cdef Py_ssize_t i
        cdef VersionCounters counts
        cdef str version
        result = {name: {} for name in ("messages_in", "bytes_in", "messages_out", "bytes_out")}
        named = [(NO_VERSION, self.unrouted)]
        named.extend((key.decode(), counts) for key, counts in self.versions.items())
        for version, counts in named:
            for i in range(len(self.names)):
                key = (self.names[i], version)
                result["messages_in"][key] = counts.messages_in[i]
                result["bytes_in"][key] = counts.bytes_in[i]
                result["messages_out"][key] = counts.messages_out[i]
                result["bytes_out"][key] = counts.bytes_out[i]
        return result

    def by_protocol(self):
        """Return {counter name: {protocol: count}}, over all application versions."""
        cdef Py_ssize_t i
        result = {}
        for name, values in self.by_version().items():
            result[name] = dict.fromkeys(self.names, 0)
            for (protocol, _), value in values.items():
                result[name][protocol] += value
        result["connections_opened"] = {name: self.connections_opened[i] for i, name in enumerate(self.names)}
        result["connections_closed"] = {name: self.connections_closed[i] for i, name in enumerate(self.names)}
        return result

    def by_reason(self):
        """Return {(event, reason): count}."""
        cdef ReasonCounter counter
        counts = self.reasons.copy()
        for key, counter in self.frequent.items():
            if counter.count:
                counts[key] = counts.get(key, 0) + counter.count
        return counts


cdef class Histogram:
    """Durations since the worker's start, by the bounds of `bucket_bounds()`."""

    cdef void observe(self, double seconds) noexcept:
        """Count one duration. Hot path, though not per message."""
        cdef int i = 0
        while i < BUCKET_COUNT - 1 and seconds > BOUNDS[i]:
            i += 1
        self.counts[i] += 1
        self.sum += seconds

    def snapshot(self):
        """Return the counts of the buckets, each without those before it, and the sum of all durations in seconds."""
        return list(self.counts), self.sum


def bucket_bounds():
    """Return the upper bounds of all buckets but the last, in seconds."""
    return list(BOUNDS)
