"""A gateway with every encrypted listener that there is, and the certificates that its clients need."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority
from tests.support.gateway import GatewayProcess
from tests.support.nats import free_port

CLIENT_TIMEOUT_S = 40.0


class Pki:
    """Authorities and what they have issued, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.stranger = Authority(directory, "other-ca")
        self.server = self.authority.issue("gateway")
        self.device = self.authority.issue("device")
        self.expired = self.authority.issue("expired", expired=True)
        self.revoked = self.authority.issue("revoked")
        self.unknown = self.stranger.issue("unknown")
        self.authority.revoke(self.revoked)

    def section(self, client_certificate: str = "off", **changes: Any) -> dict[str, Any]:
        """Return the section of a listener with TLS, on a free port."""
        section: dict[str, Any] = {
            "enabled": True,
            "port": free_port(),
            "cert-file": str(self.server.cert_file),
            "key-file": str(self.server.key_file),
            "client-certificate": client_certificate,
        }
        if client_certificate != "off":
            section["ca-file"] = str(self.authority.file)
            section["crl-file"] = str(self.authority.crl_file)
        return section | changes


class EncryptedGateway(GatewayProcess):
    """A gateway whose listeners of `transports` encrypt; `kpc` are further settings of kaa.kpc."""

    def __init__(
        self,
        nats_url: str,
        transports: dict[str, Any],
        applications: dict[str, Any] | None = None,
        tenants: dict[str, Any] | None = None,
        **kpc: Any,
    ) -> None:
        kaa = {
            "applications": applications or {},
            "tenants": tenants or {},
            "kpc": {"transports": transports, **kpc},
        }
        super().__init__(nats_url, {"kaa": kaa})
        mqtt, websocket = transports.get("mqtt", {}), transports.get("mqtt", {}).get("websocket", {})
        self.mqtts_port: int = mqtt.get("tls", {}).get("port", 0)
        self.https_port: int = transports.get("http", {}).get("tls", {}).get("port", 0)
        self.ws_port: int = websocket.get("port", 0)
        self.wss_port: int = websocket.get("tls", {}).get("port", 0)
        self.coaps_port: int = transports.get("coap", {}).get("dtls", {}).get("port", 0)
        self.udps_port: int = transports.get("udp", {}).get("secure", {}).get("port", 0)


async def run(*command: str) -> tuple[int | None, str]:
    """Run a client. Return its exit code and all that it prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), CLIENT_TIMEOUT_S)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode(errors="replace")
