"""CoAP over DTLS with libcoap's client on OpenSSL: pre-shared keys and certificates; and every refusal."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from kaa_ext import Extension, Request
from kaa_ext.services import echo
from kaa_gateway.wire.coap import Message, decode, encode

from tests.support.certificates import Issued
from tests.support.encrypted import EncryptedGateway, Pki, run
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer

NewToken = Callable[[], str]

KEY = b"an example key!!"
NON = 1
POST, CHANGED = 2, 0x44
URI_PATH, BLOCK2 = 11, 23
IDENTITY = "device-1"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki(tmp_path_factory.mktemp("pki"))
    (pki.directory / "psk.yml").write_text(f"keys:\n  {IDENTITY}: {KEY.hex()}\n")
    return pki


@pytest.fixture(scope="module")
def encrypted(shared_nats: NatsServer, pki: Pki) -> Iterator[EncryptedGateway]:
    """Pre-shared keys, or certificates of devices."""
    section = pki.section("required", **{"psk-file": str(pki.directory / "psk.yml"), "handshakes": 8})
    with EncryptedGateway(shared_nats.url, {"coap": {"dtls": section}}) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
async def extensions(shared_nats: NatsServer) -> AsyncIterator[Extension]:
    """`echo`, and `slow`, whose answers come as separate responses."""
    service = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(service)
    slow = Extension("slow", nats_urls=[shared_nats.url])

    @slow.handler("*")
    async def answer_late(request: Request) -> bytes:
        await asyncio.sleep(0.4)
        return b"late " * 180

    async with service, slow:
        yield service


async def coap_client(
    gateway: EncryptedGateway,
    token: str,
    *options: str,
    extension: str = "echo",
    wait: int = 30,
    query: str = "",
) -> str:
    _, output = await run(
        "coap-client-openssl", "-B", str(wait), "-m", "post", *options,
        f"coaps://{HOST}:{gateway.coaps_port}/kp1/app_v1/{extension}/{token}/hello{query}",
    )  # fmt: skip
    return output


def psk(identity: str = IDENTITY, key: bytes = KEY) -> tuple[str, ...]:
    return "-u", identity, "-k", key.decode()


def certificate(pki: Pki, client: Issued) -> tuple[str, ...]:
    return "-c", str(client.cert_file), "-j", str(client.key_file), "-C", str(pki.authority.file)


class TestPreSharedKeys:
    async def test_answer(
        self, encrypted: EncryptedGateway, extensions: Extension, new_token: NewToken
    ) -> None:
        assert "over DTLS" in await coap_client(encrypted, new_token(), *psk(), "-e", "over DTLS")

    async def test_a_body_in_blocks_both_ways(
        self, encrypted: EncryptedGateway, extensions: Extension, new_token: NewToken, tmp_path: Path
    ) -> None:
        body = b"".join(b"%06d " % n for n in range(2000))
        (tmp_path / "body").write_bytes(body)
        output = await coap_client(encrypted, new_token(), *psk(), "-f", str(tmp_path / "body"))
        assert body.decode() in output

    async def test_a_separate_response_needs_no_proof_of_the_address(
        self, encrypted: EncryptedGateway, extensions: Extension, new_token: NewToken
    ) -> None:
        """The cookie has proved it: the answer is many times the request, and comes whole."""
        output = await coap_client(encrypted, new_token(), *psk(), extension="slow")
        assert "late " * 180 in output

    async def test_a_device_waits_for_a_push(
        self, shared_nats: NatsServer, encrypted: EncryptedGateway, new_token: NewToken
    ) -> None:
        extension = Extension("dcx", nats_urls=[shared_nats.url])
        token = new_token()
        asked = asyncio.Event()

        @extension.handler("*")
        async def note(request: Request) -> None:
            asked.set()

        async with extension:
            waiting = asyncio.create_task(
                coap_client(encrypted, token, *psk(), extension="dcx", query="?wait=20")
            )
            await asyncio.wait_for(asked.wait(), 30)
            receipt = await extension.push(token, "/hello/you", b"pushed over DTLS", receipt=True)
            assert "pushed over DTLS" in await waiting
            assert (await receipt.outcome(30)).status == "delivered"

    async def test_unknown_identity(self, encrypted: EncryptedGateway, new_token: NewToken) -> None:
        before = encrypted.count("events", "closed", "dtls_unknown_psk_identity")
        await coap_client(encrypted, new_token(), *psk("nobody"), wait=1)
        assert encrypted.count("events", "closed", "dtls_unknown_psk_identity") > before
        assert "unknown identity of a pre-shared key" in encrypted.log

    async def test_wrong_key(self, encrypted: EncryptedGateway, new_token: NewToken) -> None:
        sessions = encrypted.count("connections_opened", "coap")
        output = await coap_client(encrypted, new_token(), *psk(key=b"not the right one"), "-e", "x", wait=1)
        assert "x" not in output.splitlines()
        assert encrypted.count("connections_opened", "coap") == sessions


class TestCertificates:
    async def test_answer(
        self, encrypted: EncryptedGateway, pki: Pki, extensions: Extension, new_token: NewToken
    ) -> None:
        arguments = certificate(pki, pki.device)
        assert "over DTLS" in await coap_client(encrypted, new_token(), *arguments, "-e", "over DTLS")

    @pytest.mark.parametrize(
        ("name", "reason", "said"),
        [
            ("unknown", "tls_unknown_ca", "unable to get local issuer certificate"),
            ("revoked", "tls_certificate_revoked", "certificate revoked"),
            ("expired", "tls_certificate_expired", "certificate has expired"),
        ],
    )
    async def test_refusals(
        self, encrypted: EncryptedGateway, pki: Pki, new_token: NewToken, name: str, reason: str, said: str
    ) -> None:
        before = encrypted.count("events", "closed", reason)
        await coap_client(encrypted, new_token(), *certificate(pki, getattr(pki, name)), wait=2)
        await until(lambda: encrypted.count("events", "closed", reason) > before, "the refusal")
        assert said in encrypted.log

    async def test_no_certificate(self, encrypted: EncryptedGateway, pki: Pki, new_token: NewToken) -> None:
        before = encrypted.count("events", "closed", "tls_no_certificate")
        await coap_client(encrypted, new_token(), "-C", str(pki.authority.file), wait=2)
        await until(lambda: encrypted.count("events", "closed", "tls_no_certificate") > before, "the refusal")


async def test_plain_coap_is_ignored(encrypted: EncryptedGateway) -> None:
    before = encrypted.count("events", "dropped", "dtls_malformed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.sendto(b"\x40\x01\x00\x01", (HOST, encrypted.coaps_port))
        await until(
            lambda: encrypted.count("events", "dropped", "dtls_malformed") > before,
            "the datagram to be dropped",
        )


async def test_new_keys_hold_for_new_sessions(
    shared_nats: NatsServer, extensions: Extension, new_token: NewToken, tmp_path: Path
) -> None:
    """Without a certificate, pre-shared keys are enough."""
    pki = Pki(tmp_path)
    keys = tmp_path / "psk.yml"
    keys.write_text(f"keys: {{{IDENTITY}: {KEY.hex()}}}\n")
    section = {"enabled": True, "port": pki.section()["port"], "psk-file": str(keys)}
    with EncryptedGateway(shared_nats.url, {"coap": {"dtls": section}}) as gateway:
        assert "one" in await coap_client(gateway, new_token(), *psk(), "-e", "one")
        keys.write_text(f"keys: {{other: {KEY.hex()}}}\n")
        await until(lambda: "read changed files" in gateway.log, "the new keys")
        assert "two" in await coap_client(gateway, new_token(), *psk("other"), "-e", "two")
        await coap_client(gateway, new_token(), *psk(), wait=1)
        assert gateway.count("events", "closed", "dtls_unknown_psk_identity") > 0


async def test_answers_are_cut_to_the_fragment_length_of_the_client(
    encrypted: EncryptedGateway, extensions: Extension, new_token: NewToken
) -> None:
    """RFC 6066 section 4, RFC 7252 section 4.6, RFC 7959 section 2.4: what 512 bytes do not hold comes in blocks."""
    levels = ("kp1", "app_v1", "slow", new_token(), "hello")
    path = tuple((URI_PATH, level.encode()) for level in levels)
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-dtls1_2", "-connect", f"{HOST}:{encrypted.coaps_port}", "-maxfraglen", "512",
        "-psk_identity", IDENTITY, "-psk", KEY.hex(), "-cipher", "PSK-AES128-CCM8:@SECLEVEL=0",
        "-quiet",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None

    async def response() -> Message:
        """Return the next message that has a code."""
        assert client.stdout is not None
        while (message := decode(await asyncio.wait_for(client.stdout.read(65536), 20.0))).code == 0:
            pass
        return message

    client.stdin.write(encode(Message(NON, POST, 1, b"t", path, b"hello")))
    body, more, number, szx = b"", True, 0, None
    while more:
        message = await response()
        assert message.code == CHANGED
        (block,) = [int.from_bytes(value) for option, value in message.options if option == BLOCK2]
        assert len(encode(message)) <= 512
        assert szx in (None, block & 7)
        more, szx = bool(block & 8), block & 7
        assert block >> 4 == number
        body += message.payload
        number += 1
        if more:
            following = (*path, (BLOCK2, (number << 4 | szx).to_bytes(2)))
            client.stdin.write(encode(Message(NON, POST, 1 + number, b"t", following, b"")))
    assert body == b"late " * 180
    client.stdin.close()
    client.terminate()
    await client.wait()
