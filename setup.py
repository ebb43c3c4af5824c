"""Lists the native modules; everything else about the package is in pyproject.toml.

`KAA_BUILD` is the kind of build: `release`; `debug`, with bounds checks, assertions and C debug information (`make
test-debug`); `asan`, which is that under AddressSanitizer and UndefinedBehaviorSanitizer of gcc (`make test-asan`);
`fuzz`, for libFuzzer, with clang (`make fuzz`); `none`, for an installation whose modules are built in place.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

KIND = os.environ.get("KAA_BUILD", "release")
DEBUG = KIND != "release"

CHECKED = ["-O1", "-g", "-UNDEBUG"]
SANITIZED = [*CHECKED, "-fno-omit-frame-pointer"]
UNDEFINED = "-fsanitize=address,undefined"

COMPILE_ARGS = {
    "release": ["-O3", "-fno-plt"],
    "debug": CHECKED,
    "asan": [*SANITIZED, UNDEFINED],
    # libFuzzer and AddressSanitizer themselves are in what `make fuzz` preloads.
    "fuzz": [*SANITIZED, "-fsanitize=address,fuzzer-no-link"],
}
LINK_ARGS = {"asan": [UNDEFINED]}

# What gcc says of the C that Cython writes, and nobody can mend.
QUIET = ["-Wno-unused-function", "-Wno-sign-compare"]

MODULES = [
    "gateway.wire.buffer",
    "gateway.wire.avro",
    "gateway.wire.esp",
    "gateway.wire.mqtt",
    "gateway.wire.nats",
    "gateway.wire.coap",
    "gateway.wire.kpudp",
    "gateway.wire.websocket",
    "gateway.bus.block",
    "gateway.bus.histogram",
    "gateway.bus.link",
    "gateway.bus.durable",
    "gateway.kp.correlation",
    "gateway.kp.counters",
    "gateway.kp.resource_path",
    "gateway.kp.sessions",
    "gateway.kp.router",
    "gateway.kp.pending",
    "gateway.kp.recent_keys",
    "gateway.kp.uplink",
    "gateway.kp.downlink",
    "gateway.transports.stream",
    "gateway.transports.admission",
    "gateway.transports.epoll",
    "gateway.transports.tcp",
    "gateway.transports.tls",
    "gateway.transports.websocket",
    "gateway.transports.udp",
    "gateway.transports.udp_peers",
    "gateway.transports.kpudp_window",
    "gateway.transports.kpudp_table",
    "gateway.transports.kpudp_outbox",
    "gateway.transports.kpudp_peer",
    "gateway.transports.kpudp",
    "gateway.transports.mqtt_session",
    "gateway.transports.mqtt",
    "gateway.transports.http_parser",
    "gateway.transports.http_target",
    "gateway.transports.http_response",
    "gateway.transports.http",
    "gateway.transports.coap_request",
    "gateway.transports.coap_answer",
    "gateway.transports.coap_exchanges",
    "gateway.transports.coap_answered",
    "gateway.transports.coap_blocks",
    "gateway.transports.coap_observe",
    "gateway.transports.coap_echo",
    "gateway.transports.coap_messages",
    "gateway.transports.coap_notify",
    "gateway.transports.coap_peer",
    "gateway.transports.coap",
    "gateway.transports.dtls",
    "bench.histogram",
    "bench.loop",
    "bench.stream_load",
    "bench.mqtt_load",
    "bench.http_load",
    "bench.datagram_load",
    "bench.coap_load",
    "bench.kpudp_load",
    "bench.mqtt_request_load",
    "bench.nats_request_load",
    "bench.nats_sink",
    "bench.discard",
    "bench.codecs",
]

setup(
    ext_modules=cythonize(
        [
            Extension(
                name,
                [name.replace(".", "/") + ".pyx"],
                extra_compile_args=[*QUIET, *COMPILE_ARGS[KIND]],
                extra_link_args=LINK_ARGS.get(KIND, []),
                define_macros=[] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")],
            )
            for name in (MODULES if KIND != "none" else [])
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": True,
            "always_allow_keywords": True,
        },
        # A build of one kind must not reuse the C of the other: assertions and checks differ.
        build_dir="build/cython-debug" if DEBUG else "build/cython",
    ),
    # Of each kind its own, or what the last build of another has left would look up to date.
    options={"build": {"build_base": f"build/{KIND}"}, "build_ext": {"parallel": os.cpu_count()}},
)
