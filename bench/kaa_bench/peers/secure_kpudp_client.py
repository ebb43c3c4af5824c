"""A device of encrypted KP/UDP: the one of kpudp_client.py, with a session below its messages.

It does everything that docs/kp-over-udp-secure.md requires of a device.
"""

from __future__ import annotations

import secrets

from kaa_gateway.wire.kpudp import Message, encode

from kaa_bench.peers import kpudp_sealing as sealing
from kaa_bench.peers.kpudp_client import KpudpClient

HEADER_SIZE = 2
"""Bytes of a datagram of version 1 before its frames."""
QUEUED_MAX = 64
"""Datagrams without confirmable messages that wait for the session."""
OPENS_MAX = 3
"""Datagrams OPEN without an answer, after which the device begins anew with HELLO."""


class SecureKpudpClient(KpudpClient):
    """A device with a pre-shared key. `saved` resumes an earlier session without a handshake."""

    def __init__(
        self,
        port: int,
        identity: bytes,
        key: bytes,
        *,
        host: str = "127.0.0.1",
        ack_timeout: float = 2.0,
        source: tuple[str, int] | None = None,
        saved: sealing.Saved | None = None,
    ) -> None:
        super().__init__(port, host=host, ack_timeout=ack_timeout, source=source)
        self.epoch = 0
        self.session: sealing.Sealing | None = None
        self.handshakes = 0
        self.moves = 0
        """PATH_CHECKs that it has answered."""
        self._identity = identity
        self._key = key
        self._client_random = b""
        self._queued: list[bytes] = []
        if saved is not None:
            self.session = sealing.Sealing.resume(saved, secrets.token_bytes(sealing.RESUME_RANDOM_SIZE))

    def saved(self) -> sealing.Saved:
        """Return what has to be kept to resume the session after a restart."""
        assert self.session is not None
        return self.session.saved()

    def _send(self, *messages: Message) -> None:
        frames = encode(self.epoch, messages)[HEADER_SIZE:]
        session = self.session
        if session is not None and not session.confirmed and session.sent >= OPENS_MAX:
            session = self.session = None
        if session is not None:
            self._send_datagram(session.seal(frames))
            return
        confirmable = any(each.message_id in self._outstanding for each in messages)
        if not confirmable and len(self._queued) < QUEUED_MAX:
            self._queued.append(frames)
        self._send_hello()

    def _send_hello(self) -> None:
        if not self._client_random:
            self._client_random = secrets.token_bytes(sealing.RANDOM_SIZE)
        self._send_datagram(sealing.hello(self._client_random))

    def _send_datagram(self, datagram: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(datagram)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Handle a datagram. Ignore one that is neither authentic nor an answer to HELLO."""
        kind = data[1] if len(data) > 1 and data[:1] == sealing.FIRST else 0
        if kind == sealing.CHALLENGE:
            self._on_challenge(sealing.read_challenge(data))
        elif self.session is None:
            return
        elif kind == sealing.UNKNOWN_SESSION:
            self._on_unknown(data)
        elif kind in (sealing.SEALED, sealing.PATH_CHECK):
            plain = self.session.unseal(data)
            if plain is None:
                return
            if kind == sealing.PATH_CHECK:
                self.moves += 1
                self._send_datagram(self.session.seal(plain, sealing.PATH_PROOF))
            else:
                super().datagram_received(encode_header(self.epoch) + plain, addr)

    def _on_challenge(self, challenge: sealing.Challenge | None) -> None:
        if challenge is None or not self._client_random or challenge.client_random != self._client_random:
            return
        self._client_random = b""
        self.handshakes += 1
        self.session = sealing.Sealing.open(challenge, self._identity, self._key)
        # The server knows no aliases of the new epoch, and numbers its messages anew.
        self._registered.clear()
        self._seen.clear()
        queued, self._queued = self._queued, []
        for frames in queued:
            self._send_datagram(self.session.seal(frames))
        for sent in self._outstanding.values():
            if not sent.taken:
                if sent.path is not None:
                    sent.message = self._addressed(sent.message, sent.path)
                self._send(sent.message)

    def _on_unknown(self, data: bytes) -> None:
        """Begin a new session. Anybody may have sent this, so the one that there is stays until then."""
        session = self.session
        if session is None or len(data) < sealing.SEALED_HEADER_SIZE or data[2:10] != session.connection_id:
            return
        if int.from_bytes(data[10:14]) < session.sent:
            self._send_hello()


def encode_header(epoch: int) -> bytes:
    """Return the header of a datagram of version 1."""
    return bytes([0xB1, epoch])
