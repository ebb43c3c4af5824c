"""The files of listeners that encrypt: what may be in them, what is said of others, and how they are watched."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from kaa_gateway import commands
from kaa_gateway.app.encryption import problems, stream_credentials
from kaa_gateway.config.keys import Http, HttpTls, Transports
from kaa_gateway.errors import ConfigError
from kaa_gateway.net.certificates import watch
from kaa_gateway.wire.certificate import read_client_certificate

from tests.support.certificates import Authority
from tests.support.esp import until

KEY = "kaa.kpc.transports.http.tls"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(authority: Authority, **changes: Any) -> HttpTls:
    server = authority.issue("gateway")
    files: dict[str, Any] = {"cert_file": server.cert_file, "key_file": server.key_file}
    return HttpTls(enabled=True, **(files | changes))


def said(settings: HttpTls) -> list[str]:
    return problems(Transports(http=Http(tls=settings)))


def test_what_is_right(authority: Authority) -> None:
    changes = {"ca_file": authority.file, "crl_file": authority.crl_file}
    assert said(settings(authority, client_certificate="required", min_version="1.3", **changes)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: {"cert_file": path / "none"}, "cert-file: DIR/none: cannot be read: No such file or directory"),
        (lambda path: {"cert_file": path}, "cert-file: DIR: cannot be read: Is a directory"),
        (lambda path: {"cert_file": path / "junk"}, "cert-file: DIR/junk: holds no certificate in PEM form"),
        (lambda path: {"key_file": path / "junk"}, "key-file: DIR/junk: holds no private key in PEM form"),
        (
            lambda path: {"key_file": path / "locked"},
            "key-file: DIR/locked: the key has a passphrase; one without is needed",
        ),
        (
            lambda path: {"key_file": path / "other.key"},
            "key-file: DIR/other.key: is not the key of the certificate in DIR/gateway.pem",
        ),
        (
            lambda path: {"client_certificate": "optional", "ca_file": path / "junk"},
            "ca-file: DIR/junk: holds no certificate in PEM form",
        ),
        (
            lambda path: {
                "client_certificate": "optional", "ca_file": path / "devices-ca.pem", "crl_file": path / "junk",
            },
            "crl-file: DIR/junk: holds no certificate revocation list in PEM form",
        ),
        *(
            (lambda path, key=key: {
                "client_certificate": "optional", "ca_file": path / "devices-ca.pem", key: path / "cut",
            }, f"{key.replace('_', '-')}: DIR/cut: is cut off: a PEM block has no end")
            for key in ("cert_file", "key_file", "ca_file", "crl_file")
        ),
        (lambda path: {"ciphers": "NONSENSE"}, "ciphers: no cipher suite in this list is available"),
    ],
)  # fmt: skip
def test_what_is_wrong(
    authority: Authority, tmp_path: Path, change: Callable[[Path], dict[str, Any]], message: str
) -> None:
    """Each message names the key and the file, and never shows what is in it."""
    (tmp_path / "junk").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    other = authority.issue("other").certificate.public_bytes(Encoding.PEM)
    # Its writer has come this far: a whole certificate, and another without the last of its lines.
    (tmp_path / "cut").write_bytes(other + other[: -len("-----\n")])
    locked = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked").write_bytes(locked)
    assert said(settings(authority, **change(tmp_path))) == [f"{KEY}.{message.replace('DIR', str(tmp_path))}"]


def test_check_config(authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = authority.issue("gateway")
    file = tmp_path / "service-config.yml"
    file.write_text(f"{KEY}: {{enabled: true, cert-file: {server.cert_file}, key-file: {server.key_file}}}\n")
    assert commands.check_config(file) == 0
    server.key_file.unlink()
    assert commands.check_config(file) == 1
    line = f"{KEY}.key-file: {server.key_file}: cannot be read: No such file or directory"
    assert capsys.readouterr().out == f"ok\n{line}\n"


def test_client_certificate(authority: Authority) -> None:
    """Issuer and subject as RFC 4514 writes them, the last part of the name first; the serial number in base 10."""
    issued = authority.issue("device")
    shown = read_client_certificate(issued.certificate.public_bytes(Encoding.DER))
    assert shown.issuer == "CN=devices-ca,O=Example"
    assert shown.subject == "CN=device,O=Example"
    assert shown.serial_number == issued.serial_number


async def test_files_are_read_again_when_they_change(authority: Authority) -> None:
    tls = settings(authority)
    credentials = stream_credentials(("http", "tls"), tls)
    first, shown = credentials.context, credentials.certificate
    assert not credentials.changed()
    assert tls.key_file is not None
    good = tls.key_file.read_bytes()
    tls.key_file.write_text("nothing of use")
    assert credentials.changed()
    assert not credentials.changed()
    with pytest.raises(ConfigError, match="holds no private key"):
        credentials.read_again()
    tls.key_file.unlink()
    assert credentials.changed()
    assert (credentials.context, credentials.certificate) == (first, shown)

    watching = asyncio.create_task(watch([credentials], 0.01, 0.01))
    tls.key_file.write_bytes(good)
    await until(lambda: credentials.context is not first, "a new context")
    assert credentials.certificate == shown
    watching.cancel()


def test_unusable_files_do_not_start(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        stream_credentials(("http", "tls"), settings(authority, cert_file=tmp_path / "none"))
