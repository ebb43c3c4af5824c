"""Builds a wheel for each CPython from 3.11 to 3.14 found here, and tries it where no compiler is.

`make wheels` runs it: the wheels are in dist/. Each is installed into an empty environment whose PATH has no
compiler. There `kaa-gateway --version` runs, a configuration is checked, all modules are imported, `kaa-gateway dev`
starts and stops. Interpreters are looked for on PATH (python3.11, ...) and among those of pyenv.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
REPOSITORY = Path(__file__).resolve().parents[1]
DIST = REPOSITORY / "dist"
IMPORT_ALL = """
import importlib, pkgutil, kaa_gateway, kaa_ext
for package in (kaa_gateway, kaa_ext):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith(".__main__"):  # these run when they are imported
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.split(".")[0] not in ("aiomqtt", "litestar", "opentelemetry", "uvicorn"):  # of extras
                raise
"""


def interpreters() -> dict[str, str]:
    """Return the path of an interpreter of each version that can be had."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        places = sorted(pyenv.glob(f"{version}.*/bin/python"))
        on_path = [path] if (path := shutil.which(f"python{version}")) else []
        for place in [*map(str, places), *on_path]:
            check = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
            answer = subprocess.run([place, "-c", check], capture_output=True, text=True, check=False)
            if answer.stdout.strip() == version:
                found[version] = place
    return found


def build(python: str, directory: Path) -> Path:
    """Build the wheel with an interpreter, in an environment of its own; return its path in dist/."""
    # Modules that were built for other purposes, or are gone, would be packed too.
    for stale in (REPOSITORY / "build/release").glob("lib*"):
        shutil.rmtree(stale)
    subprocess.run([python, "-m", "venv", directory / "build"], check=True)
    out = directory / "out"
    pip = [directory / "build/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", out, REPOSITORY], check=True)
    (wheel,) = out.glob("kaa_gateway-*.whl")
    DIST.mkdir(exist_ok=True)
    return Path(shutil.copy(wheel, DIST))


def check_contents(wheel: Path) -> None:
    """Check that the wheel has what it should have, and nothing of the bench, the tests or the compiler's work."""
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {
        "kaa_gateway/py.typed",
        "kaa_ext/py.typed",
        "kaa_gateway/wire/mqtt.pxd",
        "kaa_gateway/wire/esp.pyi",
    }
    if missing := wanted - set(names):
        raise SystemExit(f"{wheel.name} lacks {', '.join(sorted(missing))}")
    packages = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    if packages != {"kaa_gateway", "kaa_ext"}:
        raise SystemExit(f"{wheel.name} has packages {', '.join(sorted(packages))}")
    # `make annotate` writes an HTML page beside a Cython module.
    annotated = {name.removesuffix(".pyx") + ".html" for name in names if name.endswith(".pyx")}
    if generated := [name for name in names if name.endswith(".c") or name in annotated]:
        raise SystemExit(f"{wheel.name} has {', '.join(generated)}")


def test(python: str, wheel: Path, directory: Path) -> None:
    """Install the wheel into an empty environment and use it, without a compiler."""
    environment = directory / "try"
    subprocess.run([python, "-m", "venv", environment], check=True)
    bare = {"PATH": str(environment / "bin"), "HOME": str(directory), "CC": "no-compiler-here"}
    if (config := os.environ.get("PIP_CONFIG_FILE")) is not None:
        bare["PIP_CONFIG_FILE"] = config
    install = [
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
        "--only-binary",
        ":all:",
        f"{wheel}[dev]",
    ]
    subprocess.run([environment / "bin/python", "-m", *install], check=True, env=bare)
    config_file = directory / "service-config.yml"
    nats_port, admin, mqtt, http, coap, udp = free_ports(6)
    transports = {
        "mqtt": {"tcp": {"port": mqtt}},
        "http": {"port": http},
        "coap": {"port": coap},
        "udp": {"enabled": True, "port": udp},
    }
    document = {"server": {"port": admin}, "kaa": {"kpc": {"transports": transports}}}
    # JSON is YAML.
    config_file.write_text(json.dumps(document))
    for command in (
        ["bin/kaa-gateway", "--version"],
        ["bin/kaa-gateway", "check-config", config_file],
        ["bin/kaa-ext", "--help"],
        ["bin/python", "-P", "-c", IMPORT_ALL],
    ):
        program = environment / str(command[0])
        subprocess.run(
            [program, *command[1:]], check=True, env=bare, cwd=directory, stdout=subprocess.DEVNULL
        )
    arguments = ["dev", "--config", str(config_file), "--nats-port", str(nats_port)]
    start_and_stop([str(environment / "bin/kaa-gateway"), *arguments], bare, directory)


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_and_stop(command: list[str], environment: dict[str, str], directory: Path) -> None:
    """Start a command that prints `ready`, then stop it."""
    with subprocess.Popen(
        command, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.strip() == "ready":
                break
        else:
            raise SystemExit(f"`{' '.join(command)}` is not ready:\n{''.join(printed)}")
        process.send_signal(signal.SIGTERM)
        process.communicate()
    if process.returncode:
        raise SystemExit(f"`{' '.join(command)}` ended with {process.returncode}")


def main() -> int:
    """Build and try all wheels; return 1 if there is no interpreter."""
    found = interpreters()
    for version in VERSIONS:
        if version not in found:
            print(f"CPython {version}: not found here, left out")
            continue
        with tempfile.TemporaryDirectory() as directory:
            wheel = build(found[version], Path(directory))
            check_contents(wheel)
            test(found[version], wheel, Path(directory))
        print(f"CPython {version}: {wheel.name}, {wheel.stat().st_size / 2**20:.1f} MiB, works")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
