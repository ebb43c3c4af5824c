"""Clients of the file of the provider `static`."""

from pathlib import Path

import pytest
from kaa_gateway.errors import ConfigError, IdentityError
from kaa_gateway.identity.client_provider import Credentials
from kaa_gateway.identity.clients import Client
from kaa_gateway.identity.static import StaticClients
from kaa_gateway.wire.certificate import ClientCertificate


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("clients: {bob: {password: plain}}", "clients.bob.password: expected what"),
        ("clients: {bob: {}}", "clients.bob: password is missing"),
        ("clients: {bob: {role: admin}}", "clients.bob.role: unknown key"),
        ("clients: {bob: {tenant: a b}}", "clients.bob.tenant: expected a tenant ID"),
        ("certificates: {CN=A: {0x10: {}}}", "certificates.CN=A.0x10: expected a serial number in base 10"),
    ],
)
async def test_wrong_clients_in_a_file(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "identity.yml"
    path.write_text(text, encoding="utf-8")
    clients = StaticClients(path)
    with pytest.raises(ConfigError) as failure:
        await clients.start()
    assert problem in failure.value.detail
    assert "plain" not in failure.value.detail
    await clients.stop()


async def test_certificates_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "identity.yml"
    path.write_text("certificates: {'CN=A,O=B': {4711: {tenant: acme}, 12: }}", encoding="utf-8")
    clients = StaticClients(path)
    await clients.start()
    for serial, tenant in (("4711", "acme"), ("12", None)):
        certificate = ClientCertificate("CN=A,O=B", serial, "CN=device")
        client = await clients.check(Credentials(certificate=certificate))
        assert client == Client(f"static:certificate {serial} of CN=A,O=B", tenant)
    with pytest.raises(IdentityError):
        await clients.check(Credentials(certificate=ClientCertificate("CN=A,O=B", "13", "CN=device")))
    await clients.stop()
