"""Datagrams of encrypted KP/UDP: the test vectors of the specification, and what is malformed.

Two implementations have to agree with each vector: the gateway's, on libcrypto, and that of the bench's device, on
`cryptography`.
"""

import pytest
from kaa_bench.peers import kpudp_sealing as sealing
from kaa_gateway.errors import ProtocolError
from kaa_gateway.kpudp.key_schedule import generation_keys, session_secret
from kaa_gateway.wire import aead
from kaa_gateway.wire.kpudp import decode
from kaa_gateway.wire.kpudp_secure import Type, decode_secure

from tests.support.kpudp_examples import HEX, VECTORS

CONNECTION_ID = bytes.fromhex("00c1c2c3c4c5c6c7")
KEY, IDENTITY = VECTORS["pre-shared key"], VECTORS["identity"]
FRAMES = VECTORS["frames of the device: the first example of version 1"]
DEVICE, SERVER = slice(0, 44), slice(44, 88)

SEALED = {
    "OPEN": (0, DEVICE, FRAMES),
    "SEALED of the server, counter 0": (0, SERVER, VECTORS["frames of the server: ACK"]),
    "SEALED of the device, counter 1": (0, DEVICE, VECTORS["the next frames of the device"]),
    "PATH CHECK, counter 1": (0, SERVER, VECTORS["the bytes of a check"]),
    "PATH PROOF, counter 2": (0, DEVICE, VECTORS["the bytes of a check"]),
    "RESUME with the first frames, counter 0": (1, DEVICE, FRAMES),
}
"""Datagrams with their generations, keys, and contents."""


def opened() -> sealing.Sealing:
    challenge = sealing.read_challenge(VECTORS["CHALLENGE"])
    assert challenge is not None
    return sealing.Sealing.open(challenge, IDENTITY, KEY)


class TestVectors:
    def test_the_frames_are_those_of_version_1(self) -> None:
        assert HEX[0][2:] == FRAMES
        assert decode(b"\xb1\x00" + VECTORS["frames of the server: ACK"])

    def test_keys_of_the_gateway(self) -> None:
        secret = session_secret(KEY, VECTORS["transcript"])
        assert secret == VECTORS["session secret"]
        assert generation_keys(secret, 0, bytes(8)) == VECTORS["keys of generation 0"]
        assert generation_keys(secret, 1, VECTORS["resume random"]) == VECTORS["keys of generation 1"]

    @pytest.mark.parametrize("name", SEALED)
    def test_datagrams_of_the_gateway(self, name: str) -> None:
        generation, part, content = SEALED[name]
        keys = VECTORS[f"keys of generation {generation}"][part]
        datagram = decode_secure(VECTORS[name])
        nonce = (int.from_bytes(keys[32:]) ^ datagram.counter).to_bytes(12)
        assert aead.decrypt(keys[:32], nonce, datagram.header, datagram.sealed) == content
        assert aead.encrypt(keys[:32], nonce, datagram.header, content) == datagram.sealed

    def test_the_other_implementation(self) -> None:
        session = opened()
        assert sealing.hello(bytes(range(0xA0, 0xB0))) == VECTORS["HELLO"]
        assert session.secret == VECTORS["session secret"]
        assert session.seal(FRAMES) == VECTORS["OPEN"]
        assert session.unseal(VECTORS["SEALED of the server, counter 0"]) == b"\x04\x10\x00"
        assert (
            session.seal(VECTORS["the next frames of the device"])
            == VECTORS["SEALED of the device, counter 1"]
        )
        content = session.unseal(VECTORS["PATH CHECK, counter 1"])
        assert content == VECTORS["the bytes of a check"]
        assert session.seal(content, sealing.PATH_PROOF) == VECTORS["PATH PROOF, counter 2"]
        resumed = sealing.Sealing.resume(session.saved(), VECTORS["resume random"])
        assert resumed.seal(FRAMES) == VECTORS["RESUME with the first frames, counter 0"]

    def test_fields(self) -> None:
        hello = decode_secure(VECTORS["HELLO"])
        assert (hello.type, hello.offered, hello.client_random) == (Type.HELLO, 1, bytes(range(0xA0, 0xB0)))
        opening = decode_secure(VECTORS["OPEN"])
        assert (opening.connection_id, opening.identity, opening.counter) == (CONNECTION_ID, IDENTITY, 0)
        assert (opening.stamp, opening.cookie) == (3600, bytes(range(0xD0, 0xE0)))
        assert opening.header[:-4] == VECTORS["transcript"]
        challenge = decode_secure(VECTORS["CHALLENGE"])
        assert (challenge.connection_id, challenge.suite) == (CONNECTION_ID, 1)
        resume = decode_secure(VECTORS["RESUME with the first frames, counter 0"])
        assert (resume.generation, resume.resume_random) == (1, VECTORS["resume random"])
        unknown = decode_secure(VECTORS["UNKNOWN SESSION, for counter 0"])
        assert (unknown.type, unknown.connection_id, unknown.counter) == (
            Type.UNKNOWN_SESSION,
            CONNECTION_ID,
            0,
        )


class TestMalformed:
    @pytest.mark.parametrize(
        ("datagram", "reason"),
        [
            (b"", "kpudp_not_kpudp"),
            (b"\xb2", "kpudp_not_kpudp"),
            (b"\xa2\x04" + bytes(60), "kpudp_not_kpudp"),
            (b"\xb1\x2a\x04\x10\x00", "kpudp_version"),
            (b"\xb3\x04" + bytes(60), "kpudp_version"),
            (b"\xb2\x00" + bytes(60), "kpudp_secure_type"),
            (b"\xb2\x09" + bytes(60), "kpudp_secure_type"),
            (b"\xb2\x04" + bytes(1227), "kpudp_datagram_too_large"),
            (VECTORS["HELLO"][:-1], "kpudp_secure_truncated"),
            (b"\xb2\x04" + bytes(27), "kpudp_secure_truncated"),
            (b"\xb2\x05" + bytes(37), "kpudp_secure_truncated"),
            (b"\xb2\x03" + bytes(46), "kpudp_secure_truncated"),
            (b"\xb2\x03" + bytes(47), "kpudp_secure_identity"),
            (b"\xb2\x03" + bytes(46) + b"\x81" + bytes(300), "kpudp_secure_identity"),
            (b"\xb2\x03" + bytes(46) + b"\x80" + bytes(128 + 19), "kpudp_secure_truncated"),
        ],
    )
    def test_is_refused(self, datagram: bytes, reason: str) -> None:
        with pytest.raises(ProtocolError, match=reason):
            decode_secure(datagram)

    def test_every_shorter_datagram_of_a_vector_is_read_or_refused(self) -> None:
        for vector in VECTORS.values():
            for size in range(len(vector)):
                try:
                    decode_secure(vector[:size])
                except ProtocolError:
                    continue

    @pytest.mark.parametrize("name", SEALED)
    def test_every_changed_bit_is_noticed(self, name: str) -> None:
        """Header, content and tag: none of them can be changed."""
        generation, part, _ = SEALED[name]
        keys = VECTORS[f"keys of generation {generation}"][part]
        good = decode_secure(VECTORS[name])
        nonce = (int.from_bytes(keys[32:]) ^ good.counter).to_bytes(12)
        both = good.header + good.sealed
        for bit in range(8 * len(both)):
            changed = bytearray(both)
            changed[bit // 8] ^= 1 << bit % 8
            header, content = bytes(changed[: len(good.header)]), bytes(changed[len(good.header) :])
            assert aead.decrypt(keys[:32], nonce, header, content) is None


class TestAead:
    def test_the_example_of_rfc_8439(self) -> None:
        """Section 2.8.2."""
        key = bytes(range(0x80, 0xA0))
        nonce = bytes.fromhex("070000004041424344454647")
        header = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
        plain = (
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
            b"sunscreen would be it."
        )
        content = aead.encrypt(key, nonce, header, plain)
        assert content[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
        assert content[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
        assert aead.decrypt(key, nonce, header, content) == plain

    def test_nothing_can_be_sealed(self) -> None:
        content = aead.encrypt(KEY, bytes(12), b"header", b"")
        assert len(content) == 16
        assert aead.decrypt(KEY, bytes(12), b"header", content) == b""
        assert aead.decrypt(KEY, bytes(12), b"header", content[:15]) is None

    def test_sizes(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            aead.encrypt(KEY[:31], bytes(12), b"", b"")
        with pytest.raises(ValueError, match="32 bytes"):
            aead.decrypt(KEY, bytes(11), b"", bytes(16))
