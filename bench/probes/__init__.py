"""What is compared beside floods: codecs, publishing, connections, latency, pushes, workers."""

from bench.figures import Probe
from bench.probes.codecs import DECODE, ENCODE, PUBLISH
from bench.probes.connections import CONNECT, DISCONNECT, MEMORY
from bench.probes.latency import LATENCIES
from bench.probes.push import PUSH
from bench.probes.workers import WORKERS

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (ENCODE, DECODE, PUBLISH, CONNECT, DISCONNECT, MEMORY, *LATENCIES, PUSH, WORKERS)
}
