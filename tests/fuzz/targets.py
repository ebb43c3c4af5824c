"""What is fuzzed: every decoder of what a peer sends, and whole sessions; and how inputs are made.

`TARGETS` is all of it, for the short run in the test suite and the long one under libFuzzer alike. A target takes any
bytes and raises nothing. The decoders are decoders.py's, and sessions are simulation.py's.
"""

import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.bridged import BridgeSimulation
from tests.fuzz.decoders import DECODERS, NATS, check
from tests.fuzz.durable import DurableSimulation
from tests.fuzz.encrypted import EncryptedSimulation
from tests.fuzz.session_seeds import (
    BRIDGE_SESSIONS,
    COAP_SESSIONS,
    COAP_STREAM_SESSIONS,
    COAP_WEBSOCKET_SESSIONS,
    DTLS_SESSIONS,
    HTTP_CLIENT_SESSIONS,
    HTTP_SESSIONS,
    JETSTREAM_SESSIONS,
    KPUDP_SESSIONS,
    MQTT_SESSIONS,
    MQTT_SN_SESSIONS,
    PLUGIN_SESSIONS,
    TLS_SESSIONS,
    WEBSOCKET_SESSIONS,
)
from tests.fuzz.simulation import NatsSimulation, Simulation

CORPUS = Path(__file__).parent / "corpus"
CLOCK_MAX_S = 1e9
"""Thirty years, which no machine's clock counts; sessions that wait for a day get there."""
INPUT_SIZE_MAX = 16 * 1024

INTERESTING = [0x00, 0x01, 0x02, 0x04, 0x7F, 0x80, 0x81, 0xFE, 0xFF, *b"\r\n /+#$09aAZ:"]


def mutations(seeds: list[bytes], count: int, source: random.Random) -> Iterator[bytearray]:
    """Inputs that are nearly right, and grow further from it; each begins with one of the seeds."""
    for _ in range(count):
        data = bytearray(source.choice(seeds))
        for _ in range(source.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            at = source.randrange(len(data) + 1)
            kind = source.randrange(8)
            if kind == 0:
                del data[at:]
            elif kind == 1:
                del data[at : at + source.randint(1, 4)]
            elif kind == 2:
                data.insert(at, source.choice(INTERESTING))
            elif kind == 3:
                data[at:at] = source.choice(seeds)[: source.randint(1, 40)]
            elif kind == 4:
                data[at:at] = data[at : at + source.randint(1, 40)] * source.randint(1, 3)
            elif at < len(data):
                if kind == 5:
                    data[at] ^= 1 << source.randrange(8)
                elif kind == 6:
                    data[at] = source.choice(INTERESTING)
                else:
                    data[at] = source.randrange(256)
        yield data[:INPUT_SIZE_MAX]


class Target(NamedTuple):
    """`run` takes an input; `seeds` are good ones to begin with."""

    run: Callable[[bytes], object]
    seeds: list[bytes]


@functools.cache
def _simulation(protocol: str) -> Simulation | NatsSimulation | DurableSimulation | BridgeSimulation:
    if protocol in ("tls", "dtls"):
        return EncryptedSimulation(protocol)
    if protocol == "bridge":
        return BridgeSimulation()
    if protocol == "durable":
        return DurableSimulation()
    return NatsSimulation() if protocol == "nats" else Simulation(protocol)


def _session(protocol: str) -> Callable[[bytes], object]:
    def play(data: bytes) -> None:
        simulation = _simulation(protocol)
        simulation.play(data)
        if simulation.loop.time() > CLOCK_MAX_S:
            _simulation.cache_clear()

    return play


SESSIONS = {
    "MQTT session": Target(_session("mqtt"), MQTT_SESSIONS),
    "WebSocket session": Target(_session("websocket"), WEBSOCKET_SESSIONS),
    "HTTP session": Target(_session("http"), HTTP_SESSIONS),
    "HTTP client session": Target(_session("http clients"), HTTP_CLIENT_SESSIONS),
    "CoAP session": Target(_session("coap"), COAP_SESSIONS),
    "CoAP stream session": Target(_session("coap stream"), COAP_STREAM_SESSIONS),
    "CoAP websocket session": Target(_session("coap websocket"), COAP_WEBSOCKET_SESSIONS),
    "KP UDP session": Target(_session("kpudp"), KPUDP_SESSIONS),
    "MQTT-SN session": Target(_session("mqtt-sn"), MQTT_SN_SESSIONS),
    "plug-in session": Target(_session("plug-in"), PLUGIN_SESSIONS),
    "plug-in datagram session": Target(_session("plug-in datagrams"), PLUGIN_SESSIONS),
    "bridge session": Target(_session("bridge"), BRIDGE_SESSIONS),
    "TLS session": Target(_session("tls"), TLS_SESSIONS),
    "DTLS session": Target(_session("dtls"), DTLS_SESSIONS),
    "NATS session": Target(_session("nats"), NATS),
    "JetStream session": Target(_session("durable"), JETSTREAM_SESSIONS),
}
TARGETS = {
    **{name: Target(functools.partial(check, decoder), decoder.seeds) for name, decoder in DECODERS.items()},
    **SESSIONS,
}


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept of a target: found by libFuzzer, each for something that no other reaches."""
    return [path.read_bytes() for path in sorted((CORPUS / name.replace(" ", "-")).glob("*"))]
