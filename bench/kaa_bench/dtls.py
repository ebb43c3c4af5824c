"""Measures what DTLS costs the gateway beside libcoap's server: `python -m kaa_bench.dtls`.

Both use OpenSSL. Clients have a pre-shared key. The CPU time is that of the server's process: for a full handshake, a
resumed one, and a confirmable request of 100 bytes with its response in an established session. The gateway forwards
the request to NATS and responds when NATS has it; libcoap's server stores it.
"""

import argparse
import contextlib
import itertools
import shutil
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml
from kaa_gateway.wire import coap
from OpenSSL import SSL

from kaa_bench.compare.instruments import Sink
from kaa_bench.connecting import Address
from kaa_bench.errors import BenchError
from kaa_bench.packets import APP_VERSION, EXTENSION, PAYLOAD
from kaa_bench.processes import HOST, Gateway, NatsServer, Server, free_port

IDENTITY, KEY = b"device-1", b"0123456789abcdef"
"""The key is text, because that is what libcoap's server takes."""
CIPHER = b"PSK-AES128-CCM8"
TIMEOUT_S = 20.0
DATAGRAM_SIZE = 65536
DEVICES = 32
"""Sessions in which the requests are sent, in each one after the other."""
CON, ACK = 0, 2
EMPTY, POST = 0, 2
URI_PATH, URI_QUERY = 11, 15


class Target(NamedTuple):
    """A server, where it has DTLS, and the options of a request."""

    server: Server
    address: Address
    options: tuple[tuple[int, bytes], ...]


class Cost(NamedTuple):
    """The CPU time of a server in microseconds."""

    full: float
    resumed: float
    """0 if it does not resume sessions."""
    request: float


class DtlsGateway(Gateway):
    """The gateway of the bench, with CoAP over DTLS."""

    def __init__(self, nats: NatsServer) -> None:
        super().__init__(nats)
        self.dtls_address: Address = (HOST, free_port(socket.SOCK_DGRAM))

    def configuration(self) -> dict[str, object]:
        """See `Gateway.configuration`."""
        document: Any = super().configuration()
        keys = self.directory / "dtls-psk.yml"
        keys.write_text(yaml.safe_dump({"keys": {IDENTITY.decode(): KEY.hex()}}))
        document["kaa"]["kpc"]["transports"]["coap"]["dtls"] = {
            "enabled": True,
            "port": self.dtls_address[1],
            "psk-file": str(keys),
        }
        return document  # type: ignore[no-any-return]


class LibcoapDtls(Server):
    """The example server of libcoap, on OpenSSL. Its DTLS port is the CoAP port plus one."""

    name = "libcoap"

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        super().__init__(coap_port=self.port)
        self.dtls_address: Address = (HOST, self.port + 1)

    def command(self) -> list[str]:
        """See `Server.command`."""
        found = shutil.which("coap-server-openssl")
        if found is None:
            raise BenchError("coap-server-openssl is not installed: apt-get install libcoap3-bin")
        return [
            found,
            "-A",
            HOST,
            "-p",
            str(self.port),
            "-h",
            "bench",
            "-k",
            KEY.decode(),
            "-d",
            str(DEVICES),
        ]


class Device:
    """A client of DTLS with a pre-shared key."""

    def __init__(self, context: SSL.Context, address: Address, session: SSL.Session | None = None) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(address)
        self._tls = SSL.Connection(context, None)
        self._tls.set_connect_state()
        self._tls.set_ciphertext_mtu(1200)
        if session is not None:
            self._tls.set_session(session)
        self._step(self._tls.do_handshake)

    def _step(self, function: Callable[[], Any]) -> Any:
        """Call a function until it has what it needs of the server."""
        while True:
            try:
                result = function()
            except SSL.WantReadError:
                self._flush()
                self._tls.bio_write(self._socket.recv(DATAGRAM_SIZE))
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self._socket.send(self._tls.bio_read(DATAGRAM_SIZE))

    def session(self) -> SSL.Session:
        """Return its session, for another client to resume."""
        session = self._tls.get_session()
        assert session is not None
        return session

    def is_resumed(self) -> bool:
        """Return whether the server has resumed an earlier session."""
        return bool(SSL._lib.SSL_session_reused(self._tls._ssl))  # type: ignore[attr-defined]

    def send(self, message: bytes) -> None:
        """Encrypt and send a message."""
        self._tls.send(message)
        self._flush()

    def receive(self) -> bytes:
        """Return the next message of the server."""
        return bytes(self._step(lambda: self._tls.recv(DATAGRAM_SIZE)))

    def response(self) -> coap.Message:
        """Return the next response, which comes after an empty acknowledgement if the server was slow."""
        while (message := coap.decode(self.receive())).code == EMPTY:
            pass
        if message.type == CON:
            self.send(coap.encode(coap.Message(ACK, EMPTY, message.message_id)))
        return message

    def close(self) -> None:
        """End the session."""
        self._tls.shutdown()
        self._flush()
        self._socket.close()


def client_context() -> tuple[SSL.Context, object]:
    """Return the context of clients, and the callback that it needs for as long as it is used."""
    lib, ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]
    context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
    context.set_cipher_list(CIPHER + b":@SECLEVEL=0")

    @ffi.callback(  # type: ignore[untyped-decorator]
        "unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)"
    )
    def give_key(_: Any, __: Any, identity: Any, identity_room: int, key: Any, key_room: int) -> int:
        ffi.memmove(identity, IDENTITY + b"\0", len(IDENTITY) + 1)
        ffi.memmove(key, KEY, len(KEY))
        return len(KEY)

    lib.SSL_CTX_set_psk_client_callback(context._context, give_key)
    return context, give_key


def measure(target: Target, handshakes: int, messages: int) -> Cost:
    """Return what a running server needs for each."""
    context, callback = client_context()
    server = target.server
    first = Device(context, target.address)
    session = first.session()

    def cost(work: Callable[[], None], count: int) -> float:
        before = server.cpu_seconds()
        work()
        return (server.cpu_seconds() - before) / count * 1e6

    def shake_hands(offered: SSL.Session | None) -> None:
        for _ in range(handshakes):
            Device(context, target.address, offered).close()

    full = cost(lambda: shake_hands(None), handshakes)
    resumes = False
    with contextlib.suppress(
        TimeoutError, SSL.Error
    ):  # libcoap's server answers such a ClientHello with nothing
        resumes = Device(context, target.address, session).is_resumed()
    resumed = cost(lambda: shake_hands(session), handshakes) if resumes else 0.0
    devices = [first, *(Device(context, target.address) for _ in range(DEVICES - 1))]
    rounds = max(messages // DEVICES, 1)
    message_ids = itertools.count()  # never the same one again: a server does not handle a duplicate

    def post() -> None:
        for _ in range(rounds):
            message_id = next(message_ids) & 0xFFFF
            for device in devices:
                device.send(coap.encode(coap.Message(CON, POST, message_id, b"\1", target.options, PAYLOAD)))
            for device in devices:
                answer = device.response()
                if answer.code >> 5 != 2:
                    raise BenchError(f"the response is {answer.code >> 5}.{answer.code & 31:02}")

    post()
    request = cost(post, rounds * DEVICES)
    for device in devices:
        device.close()
    del callback
    return Cost(full, resumed, request)


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(prog="python -m kaa_bench.dtls", description=__doc__.splitlines()[0])
    parser.add_argument("--handshakes", type=int, default=1000, help="of each kind (default: %(default)s)")
    parser.add_argument("--messages", type=int, default=10_000, help="requests (default: %(default)s)")
    arguments = parser.parse_args()
    path = [(URI_PATH, level.encode()) for level in ("kp1", APP_VERSION, EXTENSION, "device-1", "json")]
    with (
        NatsServer() as nats,
        Sink(nats.address, answers=False),
        DtlsGateway(nats) as gateway,
        LibcoapDtls() as libcoap,
    ):
        targets = (
            Target(gateway, gateway.dtls_address, (*path, (URI_QUERY, b"answer=no"))),
            Target(libcoap, libcoap.dtls_address, tuple(path)),
        )
        for target in targets:
            cost = measure(target, arguments.handshakes, arguments.messages)
            resumed = f"{cost.resumed:.0f} us" if cost.resumed else "none"
            print(
                f"{target.server.name}: handshake {cost.full:.0f} us, resumed {resumed}, "
                f"request {cost.request:.1f} us of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
