"""The header of the PROXY protocol, against an encoder made from its specification."""

import pytest
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.proxy_header import decode_proxy_header

from tests.support.proxy_headers import (
    AUTHORITY,
    DATAGRAM,
    LOCAL,
    SIGNATURE,
    TLS_CERTIFICATE,
    TLS_USED,
    binary,
    field,
    line,
    sockaddr,
    tls_field,
    with_checksum,
)

GOOD = [
    line("192.0.2.7"),
    line("2001:db8::7"),
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    binary("192.0.2.7"),
    binary("2001:db8::7", fields=[field(AUTHORITY, b"iot.example.com"), tls_field(b"meter-7")]),
    binary(None),
    binary(None, command=LOCAL),
    with_checksum("192.0.2.7"),
]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_the_address_of_the_client(host: str) -> None:
    for header in (line(host, 4711), binary(host, 4711)):
        decoded = decode_proxy_header(header + b"more")
        assert decoded is not None
        assert (decoded.size, decoded.address) == (len(header), sockaddr(host, 4711))
    decoded = decode_proxy_header(binary(host, 4711, kind=DATAGRAM), datagram=True)
    assert decoded is not None
    assert decoded.address == sockaddr(host, 4711)


@pytest.mark.parametrize("header", GOOD)
def test_a_header_that_is_cut_anywhere_is_incomplete(header: bytes) -> None:
    for size in range(len(header)):
        assert decode_proxy_header(header[:size]) is None
    decoded = decode_proxy_header(header)
    assert decoded is not None
    assert decoded.size == len(header)


def test_a_proxy_that_speaks_for_itself_names_no_client() -> None:
    unix = SIGNATURE + b"\x21\x31" + (216).to_bytes(2) + bytes(216)
    with_addresses = binary("192.0.2.7", command=LOCAL)
    garbage = SIGNATURE + b"\x20\xff\x00\x03abc"  # what follows LOCAL is passed over
    for header in (b"PROXY UNKNOWN\r\n", binary(None), unix, with_addresses, garbage):
        decoded = decode_proxy_header(header)
        assert decoded is not None
        assert (decoded.size, decoded.address) == (len(header), b"")


def test_what_is_said_of_tls() -> None:
    decoded = decode_proxy_header(
        binary("192.0.2.7", fields=[field(0xEE, b"?"), field(AUTHORITY, b"a.example"), tls_field(b"meter-7")])
    )
    assert decoded is not None
    assert (decoded.authority, decoded.common_name) == (b"a.example", b"meter-7")
    assert (decoded.tls, decoded.verified) == (True, True)
    for inner in (
        tls_field(b"meter-7", verify=1),
        tls_field(b"meter-7", client=TLS_USED),
        tls_field(b"meter-7", client=0),
    ):
        decoded = decode_proxy_header(binary("192.0.2.7", fields=[inner]))
        assert decoded is not None
        assert not decoded.verified
    resumed = decode_proxy_header(binary("192.0.2.7", fields=[tls_field(b"m", client=TLS_USED | 0x04)]))
    assert resumed is not None
    assert resumed.verified
    assert TLS_CERTIFICATE == 0x02


MALFORMED = [
    b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 1883\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 1883 \r\n",
    b"PROXY TCP4  192.0.2.7 127.0.0.1 50000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 50000\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 65536 1883\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 050000 1883\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 -1 1883\r\n",
    b"PROXY TCP4 192.0.2.007 127.0.0.1 5 1883\r\n",
    b"PROXY TCP4 192.0.2 127.0.0.1 5 1883\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 5 1883\r\n",
    b"PROXY TCP6 192.0.2.7 127.0.0.1 5 1883\r\n",
    b"PROXY TCP4 192.0.2.7\0 127.0.0.1 5 1883\r\n",
    b"PROXY UDP4 192.0.2.7 127.0.0.1 5 1883\r\n",
    b"PROXY TCP5 192.0.2.7 127.0.0.1 5 1883\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP\r\n",
    b"PROXY \r\n",
    b"PROXY \n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN " + bytes(200),
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    SIGNATURE + b"\x11",  # another version
    SIGNATURE + b"\x22",  # another command
    SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),  # too short for two addresses and ports
    SIGNATURE + b"\x21\x21\x00\x23" + bytes(35),
    SIGNATURE + b"\x21\x31\x00\xd7" + bytes(215),
    SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # datagrams on a stream
    SIGNATURE + b"\x21\x41\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x01\x00\x00",
    SIGNATURE + b"\x21\x11\xff\xff",  # longer than any that is accepted
    SIGNATURE + b"\x20\x00\x0f\xf1",
    binary("192.0.2.7", fields=[b"\x04"]),
    binary("192.0.2.7", fields=[b"\x04\x00\x02x"]),
    binary("192.0.2.7", fields=[field(0x20, bytes(4))]),
    binary("192.0.2.7", fields=[field(0x20, bytes(5) + b"\x22\x00")]),
    binary("192.0.2.7", fields=[field(0x20, bytes(5) + b"\x22\x00\x09x")]),
    binary("192.0.2.7", fields=[field(0x03, b"abcd")]),
    binary("192.0.2.7", fields=[field(0x03, b"abc")]),
    with_checksum("192.0.2.7").replace(b"\xc0\x00\x02\x07", b"\xc0\x00\x02\x08", 1),
]


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed(header: bytes) -> None:
    with pytest.raises(ProtocolError, match="proxy_malformed_header"):
        decode_proxy_header(header)


@pytest.mark.parametrize("data", [b"\x10\x0c", b"\x16\x03\x01", b"GET / HTTP/1.1", b"PROXX", b"\r\n\r\nGET"])
def test_other_protocols_begin_no_header(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="proxy_missing_header"):
        decode_proxy_header(data)


def test_the_header_of_a_datagram_is_whole_and_of_version_2() -> None:
    header = binary("192.0.2.7", kind=DATAGRAM)
    for size in range(16, len(header)):
        with pytest.raises(ProtocolError, match="proxy_malformed_header"):
            decode_proxy_header(header[:size], datagram=True)
    with pytest.raises(ProtocolError, match="proxy_malformed_header"):
        decode_proxy_header(binary("192.0.2.7"), datagram=True)
    with pytest.raises(ProtocolError, match="proxy_missing_header"):
        decode_proxy_header(line("192.0.2.7"), datagram=True)
