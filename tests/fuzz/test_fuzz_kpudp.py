"""Random and mutated datagrams of KP over UDP: the codec reads them, or names a reason."""

import random

from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.kpudp import MALFORMED_REASONS, Type, decode, encode

from tests.support.kpudp_examples import HEX

ROUNDS = 120_000
REASONS = {*MALFORMED_REASONS[1:], "kpudp_not_kpudp", "kpudp_version", "kpudp_empty"}


def mutated(draw: random.Random, datagram: bytes) -> bytes:
    data = bytearray(datagram)
    for _ in range(draw.randrange(1, 5)):
        kind = draw.randrange(4)
        at = draw.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : at + draw.randrange(1, 6)]
        elif kind == 2:
            data[at:at] = draw.randbytes(draw.randrange(1, 6))
        elif kind == 3:
            data += draw.choice(HEX)[2:]
    return bytes(data)


def test_any_bytes_are_read_or_have_a_reason() -> None:
    draw = random.Random(20261123)
    read = 0
    reasons: dict[str, int] = {}
    for count in range(ROUNDS):
        if count % 4 == 0:
            datagram = b"\xb1" + draw.randbytes(draw.randrange(0, 40))
        else:
            datagram = mutated(draw, draw.choice(HEX))
        try:
            epoch, messages = decode(datagram)
        except ProtocolError as error:
            reasons[error.reason] = reasons.get(error.reason, 0) + 1
            continue
        read += 1
        if len(datagram) <= 1200 and all(
            message.type not in (Type.RESPONSE, Type.PUSH) or "\ufffd" not in message.reason_phrase
            for message in messages
        ):
            assert decode(encode(epoch, messages)) == (epoch, messages)
    # Neither everything nor nothing is read, and every reason is met.
    assert ROUNDS // 20 < read < ROUNDS * 19 // 20
    assert set(reasons) == REASONS
