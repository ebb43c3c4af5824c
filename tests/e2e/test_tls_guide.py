"""docs/tls.md as an operator follows it: its certificates, its configuration, its commands; only ports are others."""

import re
from pathlib import Path

from tests.support.demo import commands, demo
from tests.support.encrypted import run
from tests.support.gateway import ROOT


def blocks(mark: str, language: str) -> list[str]:
    """The code blocks of the guide that follow this mark."""
    text = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8")
    return re.findall(rf"<!-- {mark} -->\n```{language}\n(.*?)```", text, re.DOTALL)


async def test_the_guide(tmp_path: Path) -> None:
    make, use = blocks("try", "sh")
    configuration, _ = blocks("example", "yaml")  # the other has tenants
    code, output = await run("sh", "-ec", f"cd {tmp_path}\n{make}")
    assert code == 0, output
    (tmp_path / "tls.yml").write_text(configuration)
    async with demo(tmp_path, "--config", "tls.yml") as platform:
        for title, scheme, port, path in (
            ("MQTTS", "mqtts", "8883", ""),
            ("WebSocket", "ws", "8083", "/ws"),
            ("WebSocket", "wss", "8084", "/ws"),
            ("HTTPS", "https", "8443", ""),
            ("CoAPS", "coaps", "5684", ""),
        ):
            assert f"{title:<12}{scheme}://localhost:{platform.ports[port]}{path}" in platform.lines
        found = commands(use)
        assert len(found) == 4
        for command in found:
            # So that an error can be told from an answer without payload.
            loud = command.replace("curl ", "curl --fail --silent --show-error ").replace(
                "-openssl", "-openssl -v 6"
            )
            output = await platform.run(loud)
            if "coap-client" in loud:
                assert "c:2.04" in output, output
            else:
                assert output == ""
