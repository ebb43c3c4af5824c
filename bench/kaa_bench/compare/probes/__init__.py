"""The probes: codecs, connections, latency and its tail, lone messages, pushes, the bridge, workers, extensions."""

from kaa_bench.compare.figures import Probe
from kaa_bench.compare.probes.bridge import BRIDGE
from kaa_bench.compare.probes.codecs import DECODE, ENCODE, PUBLISH
from kaa_bench.compare.probes.connections import (
    CONNECT,
    CONNECT_AUTHENTICATED,
    CONNECT_TLS,
    DISCONNECT,
    MEMORY,
    MEMORY_TLS,
    RESUME_TLS,
)
from kaa_bench.compare.probes.extensions import EXTENSIONS, STORED
from kaa_bench.compare.probes.latency import LATENCIES
from kaa_bench.compare.probes.lone import LONE
from kaa_bench.compare.probes.push import PUSH
from kaa_bench.compare.probes.tail import TAILS
from kaa_bench.compare.probes.workers import WORKERS

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        ENCODE,
        DECODE,
        PUBLISH,
        CONNECT,
        DISCONNECT,
        CONNECT_AUTHENTICATED,
        MEMORY,
        CONNECT_TLS,
        RESUME_TLS,
        MEMORY_TLS,
        *LATENCIES,
        *TAILS,
        LONE,
        PUSH,
        BRIDGE,
        WORKERS,
        *EXTENSIONS,
        STORED,
    )
}
