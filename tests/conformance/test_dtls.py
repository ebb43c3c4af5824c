"""DTLS datagram by datagram: what is kept of whom and for how long, and what a stranger can do to a session.

Source: RFC 6347. The CoAP core behind it is asked for /.well-known/core, which it answers by itself.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kaa_gateway.app.encryption import datagram_credentials
from kaa_gateway.config.keys import CoapDtls, TenantTls
from kaa_gateway.errors import ConfigError, IdentityError
from kaa_gateway.identity.clients import Client
from kaa_gateway.kp.revocation import Revocation
from kaa_gateway.net import dtls_context
from kaa_gateway.wire.coap import decode
from OpenSSL import SSL

from tests.support.coap import coap_server
from tests.support.dtls import IDENTITY, KEY
from tests.support.dtls_handshake import shake_hands
from tests.support.dtls_server import DtlsServer, ask, request
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer
from tests.support.slices import finished

CONTENT = 0x45
KEY_NAME = "kaa.kpc.transports.coap.dtls"


@pytest.fixture
async def server(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[DtlsServer]:
    async with coap_server(nats_server.url) as coap:
        server = DtlsServer(coap, tmp_path)
        server.socket.start(HOST, 0, reuse_port=False)
        yield server
        server.socket.stop()


HELLO_VERIFY_REQUEST = 3
"""The type of a handshake message."""


class TestCookies:
    async def test_nothing_is_kept_of_an_address_that_has_not_returned_one(self, server: DtlsServer) -> None:
        for _ in range(20):
            client = server.client()
            client.step()
            answer = await client.datagram()
            assert len(answer) <= len(client.sent[0])
            client.close()
        assert server.tables == {"handshakes": 0, "sessions": 0}

    async def test_one_of_another_address_is_worth_nothing(self, server: DtlsServer) -> None:
        first, second = server.client(), server.client()
        await first.begin()
        await first.datagram()
        second.send_raw(first.sent[1])
        await second.datagram()
        assert server.tables == {"handshakes": 1, "sessions": 0}
        first.close()
        second.close()


class TestSessions:
    async def test_pre_shared_key(self, server: DtlsServer) -> None:
        client = server.client()
        await client.handshake()
        await ask(client)
        assert server.tables == {"handshakes": 0, "sessions": 1}
        assert server.gate.seen == []
        revocation = Revocation(server.coap.sessions)
        assert finished(revocation.end_clients(frozenset({f"psk:{IDENTITY}"}), "client_revoked")) == 1
        assert await client.receive() == b""
        assert server.tables == {"handshakes": 0, "sessions": 0}
        assert server.coap.tables["peers"] == 0
        assert server.coap.count("closed", "client_revoked") == 1
        client.close()

    @pytest.mark.parametrize(
        "ciphers",
        [
            b"PSK-AES128-CCM8",
            b"PSK-AES256-CCM8",
            b"PSK-AES128-CCM",
            b"PSK-AES256-CCM",
            b"PSK-AES128-GCM-SHA256",
            b"PSK-AES256-GCM-SHA384",
            b"ECDHE-PSK-CHACHA20-POLY1305",
        ],
    )
    async def test_suites_of_a_pre_shared_key(self, server: DtlsServer, ciphers: bytes) -> None:
        """The last one has forward secrecy (RFC 7905)."""
        client = server.client(ciphers=ciphers)
        await client.handshake()
        await ask(client)
        client.close()

    @pytest.mark.parametrize("ciphers", [b"PSK-AES128-CBC-SHA256", b"ECDHE-PSK-AES128-CBC-SHA256"])
    async def test_suites_that_are_off(self, server: DtlsServer, ciphers: bytes) -> None:
        client = server.client(ciphers=ciphers)
        with pytest.raises(SSL.Error):
            await client.handshake()
        client.close()

    async def test_certificate(self, server: DtlsServer) -> None:
        issued = server.authority.issue("device")
        client = server.client(issued=issued, ca_file=server.authority.file)
        await client.handshake()
        await ask(client)
        (presentation,) = server.gate.seen
        assert presentation.transport == "coap"
        assert presentation.certificate is not None
        assert presentation.certificate.issuer == "CN=devices-ca,O=Example"
        assert presentation.certificate.serial_number == issued.serial_number
        client.close()

    async def test_weak_certificate(self, server: DtlsServer) -> None:
        """OpenSSL's security level is lowered for cipher suites of devices, not for certificates."""
        issued = server.authority.issue("device", weak=True)
        client = server.client(issued=issued, ca_file=server.authority.file)
        with pytest.raises(SSL.Error):
            await client.handshake()
        assert server.coap.count("closed", "tls_certificate_rejected") == 1
        assert server.tables == {"handshakes": 0, "sessions": 0}
        client.close()

    async def test_refused_by_the_authenticator(self, server: DtlsServer) -> None:
        server.gate.answer = IdentityError(401, "credentials_rejected")
        issued = server.authority.issue("device")
        client = server.client(issued=issued, ca_file=server.authority.file)
        await client.handshake()
        assert await client.receive() == b""
        assert server.tables == {"handshakes": 0, "sessions": 0}
        assert server.coap.count("closed", "credentials_rejected") == 1
        client.close()

    async def test_messages_wait_for_the_authenticator_within_a_bound(self, server: DtlsServer) -> None:
        server.gate.answer = None
        client = server.client(issued=server.authority.issue("device"), ca_file=server.authority.file)
        await client.handshake()
        for message_id in range(12):
            client.send(request(message_id))
        await until(lambda: server.coap.count("dropped", "dtls_not_admitted") == 4, "four to be dropped")
        assert server.coap.tables["peers"] == 0
        server.gate.pending[0].set_result(Client("somebody"))
        assert [decode(await client.receive()).message_id for _ in range(8)] == list(range(8))
        client.close()

    async def test_the_longest_silent_makes_room(self, server: DtlsServer) -> None:
        clients = [server.client() for _ in range(4)]
        for client in clients[:3]:
            await client.handshake()
        await server.coap.put_forward(2)
        await ask(clients[0])
        await clients[3].handshake()
        assert await clients[1].receive() == b""
        assert server.tables == {"handshakes": 0, "sessions": 3}
        assert server.coap.count("closed", "dtls_sessions_full") == 1
        for client in clients:
            client.close()

    async def test_silence_ends_it(self, server: DtlsServer) -> None:
        client = server.client()
        await client.handshake()
        await ask(client)
        server.coap.clock.shift += 101
        server.socket.check()
        assert await client.receive() == b""
        assert server.tables == {"handshakes": 0, "sessions": 0}
        assert server.coap.tables["peers"] == 0
        client.close()

    async def test_the_client_ends_it(self, server: DtlsServer) -> None:
        client = server.client()
        await client.handshake()
        await ask(client)
        client._connection.shutdown()
        client.flush()
        assert await client.receive() == b""
        assert server.tables["sessions"] == 0
        client.close()


class TestHandshakes:
    async def test_the_oldest_makes_room(self, server: DtlsServer) -> None:
        clients = [server.client() for _ in range(5)]
        for client in clients:
            await client.begin()
            await client.datagram()
        assert server.tables == {"handshakes": 3, "sessions": 0}
        assert server.coap.count("closed", "tls_handshakes_full") == 2
        for client in clients:
            client.close()

    async def test_it_is_repeated_and_then_given_up(self, server: DtlsServer) -> None:
        client = server.client()
        await client.begin()
        flight = await client.datagram()
        server.coap.clock.shift += 2
        await asyncio.sleep(1.2)  # OpenSSL's own clock
        server.socket.check()
        again = await client.datagram()
        assert (again[0], len(again)) == (flight[0], len(flight))
        server.coap.clock.shift += 10
        server.socket.check()
        assert server.tables == {"handshakes": 0, "sessions": 0}
        assert server.coap.count("closed", "tls_handshake_timeout") == 1
        client.close()

    async def test_another_from_the_same_address_replaces_the_session_in_the_end(
        self, server: DtlsServer
    ) -> None:
        """RFC 6347 section 4.2.8: a device that has lost its state is let in, and a stranger's hello harms nobody."""
        first = server.client()
        await first.handshake()
        await ask(first)
        second = server.client(other=first)
        await second.begin()
        flight = await second.datagram()
        assert server.tables == {"handshakes": 1, "sessions": 1}
        await ask(first, 2)
        second._connection.bio_write(flight)
        await second.handshake()
        assert server.tables == {"handshakes": 0, "sessions": 1}
        await ask(second, 2)
        assert server.coap.tables["peers"] == 1
        assert server.coap.count("dropped", "coap_duplicate") == 0
        first.close()

    async def test_a_client_that_begins_anew_in_the_middle_of_one_is_served_at_once(
        self, server: DtlsServer
    ) -> None:
        """RFC 6347 sections 4.2.1 and 4.2.8: it has lost its state, and its new cookie comes back."""
        client = server.client()
        await client.begin()
        await client.datagram()  # ServerHello ... ServerHelloDone
        again = server.client(other=client)
        await again.handshake()
        await ask(again)
        assert server.tables == {"handshakes": 0, "sessions": 1}
        assert server.coap.count("closed", "dtls_handshake_restarted") == 1
        client.close()

    async def test_a_hello_without_cookie_does_not_disturb_one(self, server: DtlsServer) -> None:
        client = server.client()
        await client.begin()
        flight = await client.datagram()
        first_hello, second_hello = client.sent
        client.send_raw(first_hello)  # as anybody can who forges the address
        assert (await client.datagram())[13] == HELLO_VERIFY_REQUEST
        client.send_raw(second_hello)  # as the client does whose answer was lost
        assert server.tables == {"handshakes": 1, "sessions": 0}
        client.take(flight)
        await client.handshake()
        await ask(client)
        assert server.coap.count("closed", "dtls_handshake_restarted") == 0
        client.close()


class TestStrangers:
    async def test_a_record_is_taken_once(self, server: DtlsServer) -> None:
        client = server.client()
        await client.handshake()
        await ask(client)
        client.send_raw(client.sent[-1])
        await server.settled()
        assert await client.silence()
        assert server.coap.count("dropped", "coap_duplicate") == 0
        await ask(client, 2)
        client.close()

    async def test_forged_and_malformed_datagrams_change_nothing(self, server: DtlsServer) -> None:
        chance = random.Random(5)
        client, stranger = server.client(), server.client()
        await client.handshake()
        await ask(client)
        stranger.step()
        await stranger.datagram()
        seeds = [*client.sent, *stranger.sent]
        for n in range(600):
            data = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            if n % 3 == 0:
                data = data[: chance.randrange(len(data))]
            # From the session's own address, and from another.
            (client if n % 2 else stranger).send_raw(bytes(data))
            if n % 50 == 0:
                await server.settled()
        await server.settled()
        while not await client.silence():
            pass
        assert server.tables["sessions"] == 1
        await ask(client, 2)
        late = server.client()
        await late.handshake()
        await ask(late)
        for each in (client, stranger, late):
            each.close()

    async def test_records_of_nobody(self, server: DtlsServer) -> None:
        client = server.client()
        client.send_raw(b"\x17\xfe\xfd\x00\x01" + bytes(20))
        await until(lambda: server.coap.count("dropped", "dtls_no_session") == 1, "the record to be dropped")
        client.send_raw(bytes(30_000))
        await until(lambda: server.coap.count("dropped", "dtls_malformed") == 1, "the datagram to be dropped")
        client.close()


class TestResumption:
    """RFC 5246 section 7.3: a session goes on over another connection, from any address."""

    async def test_a_session_with_a_pre_shared_key_keeps_its_identity(self, server: DtlsServer) -> None:
        first, second, third = server.client(), server.client(), server.client()
        await first.handshake()
        assert not first.resumed
        for later in (second, third):
            later.resume(first)
            await later.handshake()
            assert later.resumed
            await ask(later)
        assert server.gate.seen == [], "the key is the credential"
        revocation = Revocation(server.coap.sessions)
        assert finished(revocation.end_clients(frozenset({f"psk:{IDENTITY}"}), "client_revoked")) == 2
        for each in (first, second, third):
            each.close()

    async def test_from_the_same_address(self, server: DtlsServer) -> None:
        """The session that it replaces does not take the new one along."""
        first = server.client()
        await first.handshake()
        others = [server.client(other=first) for _ in range(3)]
        for again in others:
            again.resume(first)
            await again.handshake()
            assert again.resumed
            await ask(again)
        assert server.tables["sessions"] == 1
        first.close()

    async def test_a_session_that_was_silent_for_too_long(self, server: DtlsServer) -> None:
        first, second = server.client(), server.client()
        await first.handshake()
        server.coap.clock.shift += 101
        server.socket.check()
        assert server.tables["sessions"] == 0
        second.resume(first)
        await second.handshake()
        assert second.resumed
        await ask(second)
        for each in (first, second):
            each.close()

    async def test_a_session_with_a_certificate_is_shown_to_the_provider_again(
        self, server: DtlsServer
    ) -> None:
        device = server.authority.issue("device")
        first, second = (server.client(issued=device, ca_file=server.authority.file) for _ in range(2))
        await first.handshake()
        await ask(first)
        second.resume(first)
        await second.handshake()
        assert second.resumed
        await ask(second)
        shown = [presentation.certificate for presentation in server.gate.seen]
        assert len(shown) == 2
        assert shown[0] is not None
        assert shown[0] == shown[1]
        for each in (first, second):
            each.close()

    async def test_a_session_with_a_certificate_keeps_its_tenant(self, server: DtlsServer) -> None:
        """OpenSSL does not keep the chain, so the certificate is verified again."""
        tenants = {"acme": TenantTls(ca_file=server.authority.file)}
        server.use(msgspec.structs.replace(server.settings, ca_file=None, crl_file=None, tenants=tenants))
        device = server.authority.issue("device")
        first, second = (server.client(issued=device, ca_file=server.authority.file) for _ in range(2))
        await first.handshake()
        await ask(first)
        second.resume(first)
        await second.handshake()
        assert second.resumed
        await ask(second)
        shown = [presentation.certificate for presentation in server.gate.seen]
        assert [each.tenant for each in shown if each is not None] == ["acme", "acme"]
        for each in (first, second):
            each.close()

    async def test_other_files_forget_all_sessions(self, server: DtlsServer) -> None:
        """A key that is not there any more opens nothing."""
        first, second = server.client(), server.client()
        await first.handshake()
        server.use(server.settings)
        second.resume(first)
        await second.handshake()
        assert not second.resumed
        for each in (first, second):
            each.close()


class TestBinaryIdentities:
    """RFC 4279 section 5.1 wants text; devices send what they like."""

    @pytest.mark.parametrize("identity", [b"\xff\x00\xee", b"abc\x00def", b"\x00", b"\xc3\x28", b"n" * 128])
    async def test_any_bytes(self, server: DtlsServer, identity: bytes) -> None:
        file = server.settings.psk_file
        assert file is not None
        file.write_text(f"binary-identities: {{'{identity.hex()}': '{KEY.hex()}'}}\n")
        server.use(server.settings)
        assert await shake_hands(server.socket.port, identity, KEY)
        name = identity.decode() if identity.isalpha() and identity.isascii() else f"hex:{identity.hex()}"
        assert server.principals() == [f"psk:{name}"]

    async def test_what_stands_behind_a_zero_byte_counts(self, server: DtlsServer) -> None:
        file = server.settings.psk_file
        assert file is not None
        file.write_text(
            f"keys: {{abc: '{KEY.hex()}'}}\nbinary-identities: {{'61626300646566': '{'11' * 16}'}}\n"
        )
        server.use(server.settings)
        assert not await shake_hands(server.socket.port, b"abc\x00def", KEY)
        assert not await shake_hands(server.socket.port, b"abc\x00", KEY)
        assert await shake_hands(server.socket.port, b"abc\x00def", bytes([0x11]) * 16)
        assert await shake_hands(server.socket.port, b"abc", KEY)
        assert server.principals() == ["psk:hex:61626300646566", "psk:abc"]

    async def test_a_short_key_is_taken_with_a_warning(
        self, server: DtlsServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = server.settings.psk_file
        assert file is not None
        file.write_text("keys: {old: '0102'}\n")
        server.use(server.settings)
        assert "pre-shared keys are so short that they can be guessed" in capsys.readouterr().out
        assert await shake_hands(server.socket.port, b"old", b"\x01\x02")


class TestStart:
    """What is found before anybody connects."""

    def credentials(self, directory: Path, keys: str) -> None:
        (directory / "psk.yml").write_text(keys)
        datagram_credentials(("coap", "dtls"), CoapDtls(enabled=True, psk_file=directory / "psk.yml"))

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ("", "psk.yml:1: expected the mappings keys or binary-identities"),
            ("tokens: {}", "psk.yml:1: expected the mappings keys or binary-identities"),
            ("keys:\n  a: 00f", "psk.yml:2: expected a key of 1 to 64 bytes in hexadecimal"),
            ("keys:\n  a: ''", "psk.yml:2: expected a key of 1 to 64 bytes in hexadecimal"),
            (f"keys:\n  a: {'00' * 65}", "psk.yml:2: expected a key of 1 to 64 bytes in hexadecimal"),
            (
                "binary-identities:\n  xyz: 0011",
                "psk.yml:2: expected an identity of 1 to 128 bytes in hexadecimal",
            ),
            (
                "keys:\n  a: 0011\nbinary-identities:\n  '61': 0011",
                "psk.yml:4: this identity is there already",
            ),
            (
                "keys:\n  hex:00: 0011\nbinary-identities:\n  '00': 0011",
                "psk.yml:4: this identity is there already",
            ),
            (
                "keys:\n  a: secretsecretsecretsecretsecretsecret",
                "psk.yml:2: expected a key of 1 to 64 bytes",
            ),
            ("keys:\n  a:", "psk.yml:2: expected a key of 1 to 64 bytes in hexadecimal"),
            (
                f"keys:\n  {'x' * 129}: {'00' * 16}",
                "psk.yml:2: expected an identity of 1 to 128 printable characters",
            ),
        ],
    )
    def test_file_of_keys(self, tmp_path: Path, keys: str, message: str) -> None:
        with pytest.raises(ConfigError) as failure:
            self.credentials(tmp_path, keys)
        assert f"{KEY_NAME}.psk-file: " in failure.value.detail
        assert message in failure.value.detail
        assert "secret" not in failure.value.detail

    def test_ciphers(self) -> None:
        with pytest.raises(ConfigError, match=f"{KEY_NAME}.ciphers: no cipher suite"):
            datagram_credentials(("coap", "dtls"), CoapDtls(enabled=True, ciphers="NONSENSE"))

    @pytest.mark.parametrize("missing", ["_lib", "_ffi"])
    def test_a_pyopenssl_without_the_private_binding(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        class WithoutBinding:
            def __getattr__(self, name: str) -> Any:
                if name == missing:
                    raise AttributeError(name)
                return getattr(SSL, name)

        monkeypatch.setattr(dtls_context, "SSL", WithoutBinding())
        with pytest.raises(ConfigError, match=f"{KEY_NAME}.psk-file: the installed versions of pyOpenSSL"):
            self.credentials(tmp_path, f"keys: {{a: {KEY.hex()}}}")
