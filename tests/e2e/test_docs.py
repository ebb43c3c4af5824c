"""The commands and programs of docs/devices.md and docs/getting-started.md, run as they stand but for the ports."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("devices", "getting-started")
TIMEOUT_S = 60
NOT_HERE = re.compile(r"apt-get|make run|^\./kpudp_device|wait=30")
"""Commands that are for the reader's machine, or wait for a push, which tests of their own send."""
CONFIGURATION = {
    "kaa": {
        "applications": {
            "demo_application": {
                "versions": {"demo_application_v1": {"allowed-extension-instances": ["dcx", "tsx"]}}
            }
        },
        "extension-instances": {"dcx": {"endpoint-aware": True}, "tsx": {"endpoint-aware": True}},
    }
}


def blocks(language: str) -> list[str]:
    """The code blocks of a language, commands apart."""
    found: list[str] = []
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for code in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found += [code] if language != "sh" else re.sub(r"\\\n\s*", "", code).splitlines()
    return [code for code in found if not NOT_HERE.search(code)]


@pytest.fixture(scope="module")
def platform() -> Iterator[GatewayProcess]:
    with (
        NatsServer() as nats,
        GatewayProcess(nats.url, CONFIGURATION) as gateway,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "kaa_ext", "run", "dcx", "tsx", "--nats", nats.url],
            stdout=subprocess.PIPE,
            text=True,
        ) as extensions,
    ):
        try:
            assert extensions.stdout is not None
            assert extensions.stdout.readline() == "ready\n"
            yield gateway
        finally:
            extensions.terminate()


def here(code: str, gateway: GatewayProcess) -> str:
    """The code with the ports of this gateway."""
    for old, new in (
        ("localhost:8080", f"localhost:{gateway.http_port}"),
        ("localhost:8008", f"localhost:{gateway.admin_port}"),
        ("coap://localhost/", f"coap://localhost:{gateway.coap_port}/"),
        ('"localhost", 1883', f'"localhost", {gateway.mqtt_port}'),
        ("mosquitto_pub ", f"mosquitto_pub -p {gateway.mqtt_port} "),
        ("mosquitto_rr ", f"mosquitto_rr -p {gateway.mqtt_port} "),
        ("127.0.0.1 5686", f"127.0.0.1 {gateway.udp_port}"),
    ):
        code = code.replace(old, new)
    return code


def run(command: list[str], directory: Path) -> str:
    ended = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def test_commands(platform: GatewayProcess, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    commands = blocks("sh")
    assert len(commands) >= 9
    for command in commands:
        output = run(["sh", "-c", here(command, platform)], tmp_path)
        if command.startswith("curl -i"):
            assert output.startswith("HTTP/1.1 404" if "/nobody/" in command else "HTTP/1.1 200"), command


def test_programs_in_python(platform: GatewayProcess, tmp_path: Path) -> None:
    programs = blocks("python")
    said = [run([sys.executable, "-c", here(program, platform)], tmp_path) for program in programs]
    assert [text.split()[0] for text in said[:2]] == [
        "200",
        "kp1/demo_application_v1/dcx/my-device/json/41/status",
    ]
    assert sorted(said[2].splitlines()) == ["PUBACK: Success", "b'41' 200"]
    assert said[3].split()[0] == "2.04"


def test_the_sketch_for_an_arduino(tmp_path: Path) -> None:
    """Compiled against a stand-in for the libraries, and run for a few turns of its loop."""
    (sketch,) = blocks("cpp")
    program = tmp_path / "sketch.cpp"
    program.write_text(
        f'#include "Arduino.h"\n{sketch}\nint main() {{ setup(); for (int i = 0; i < 8; i++) loop(); }}\n'
    )
    stubs = ROOT / "tests" / "support" / "arduino"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{stubs}"]
    run(["g++", *flags, str(program), "-o", "sketch"], tmp_path)
    topic = "kp1/demo_application_v1/dcx/my-device/json"
    assert run([str(tmp_path / "sketch")], tmp_path).splitlines()[:5] == [
        "server 192.0.2.1 1883",
        "connect my-device-24:0A:C4:00:00:01",
        "connect my-device-24:0A:C4:00:00:01",
        f'publish {topic} [{{"temperature": 21.5}}]',
        f"{topic}/status: OK",
    ]
