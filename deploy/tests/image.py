"""Builds and tries the image without a container engine: each stage of the Dockerfile in a chroot of its own.

    sudo python deploy/tests/image.py DIRECTORY

Needs root and debootstrap, which FROM becomes; RUN, COPY, ENV, WORKDIR and USER do what Docker does with them; other
instructions only describe. At the end the image's command runs as the image's user, on a root file system that it
cannot write to, and must be healthy.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILERS = ["gcc", "cc", "g++", "clang", "tcc", "as", "ld"]
START_TIMEOUT = 60.0
"""Seconds until the gateway must be healthy."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass
class Stage:
    """One FROM, and what the instructions after it have made of it."""

    root: Path
    environment: dict[str, str]
    workdir: str = "/"
    user: str = "0:0"
    health_command: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """(instruction, rest) of each logical line."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


class Builder:
    """Builds the stages below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._arguments: dict[str, str] = {}
        self._stages: list[Stage] = []
        self._names: dict[str, Stage] = {}

    def build(self, dockerfile: Path) -> Stage:
        """The last stage."""
        for name, rest in instructions(dockerfile):
            print(f"{name} {rest}", flush=True)
            getattr(self, f"_{name.lower()}")(rest)
        return self._stages[-1]

    def _expanded(self, text: str) -> str:
        known = {**self._arguments, **(self._stages[-1].environment if self._stages else {})}
        return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text)

    def _arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self._arguments[name] = value

    def _from(self, rest: str) -> None:
        image, *alias = self._expanded(rest).split()
        root = self._directory / f"stage-{len(self._stages)}"
        matched = re.fullmatch(r"debian:(\w+)-slim", image)
        assert matched, f"FROM {image}: only debian:<release>-slim is known here"
        base = self._directory / f"debian-{matched[1]}"
        if not base.exists():
            subprocess.run(
                ["debootstrap", "--variant=minbase", matched[1], base], check=True, stdout=subprocess.DEVNULL
            )
        subprocess.run(["cp", "--archive", "--reflink=auto", base, root], check=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        self._stages.append(Stage(root, dict(ENVIRONMENT)))
        if alias:
            self._names[alias[1]] = self._stages[-1]

    def _run(self, rest: str) -> None:
        stage = self._stages[-1]
        command = chrooted(stage, ["/bin/sh", "-c", rest], trust(stage.root))
        subprocess.run(command, check=True)

    def _copy(self, rest: str) -> None:
        stage = self._stages[-1]
        *sources, destination = shlex.split(rest)
        origin = REPOSITORY
        if sources[0].startswith("--from="):
            origin = self._names[sources.pop(0).removeprefix("--from=")].root
        target = stage.root / (Path(stage.workdir) / destination).as_posix().lstrip("/")
        for source in sources:
            path = origin / source.lstrip("/")
            if path.is_dir():
                ignored = (
                    shutil.ignore_patterns("*.so", "*.c", "__pycache__") if origin == REPOSITORY else None
                )
                shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            else:
                into = target / path.name if destination.endswith("/") else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into)

    def _env(self, rest: str) -> None:
        for pair in shlex.split(self._expanded(rest)):
            name, _, value = pair.partition("=")
            self._stages[-1].environment[name] = value

    def _workdir(self, rest: str) -> None:
        self._stages[-1].workdir = rest
        (self._stages[-1].root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _user(self, rest: str) -> None:
        self._stages[-1].user = rest

    def _entrypoint(self, rest: str) -> None:
        self._stages[-1].entrypoint = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self._stages[-1].command = json.loads(rest)

    def _healthcheck(self, rest: str) -> None:
        self._stages[-1].health_command = json.loads(rest.partition("CMD ")[2])

    def _describe(self, rest: str) -> None:
        """Nothing to do."""

    _label = _expose = _stopsignal = _describe


def trust(root: Path) -> dict[str, str]:
    """Make the authorities that this machine names in SSL_CERT_FILE, if it does, those of pip in a chroot."""
    authorities = os.environ.get("SSL_CERT_FILE")
    if authorities is None:
        return {}
    shutil.copy(authorities, root / "run/authorities.pem")
    return {"PIP_CERT": "/run/authorities.pem"}


def chrooted(stage: Stage, command: list[str], extra: dict[str, str]) -> list[str]:
    """A command line that runs `command` in a stage, as its user and in its directory."""
    user, _, group = stage.user.partition(":")
    variables = [f"{name}={value}" for name, value in {**stage.environment, **extra}.items()]
    inside = ["/usr/bin/env", "-i", f"--chdir={stage.workdir}", *variables, *command]
    return ["chroot", f"--userspec={user}:{group}", "--groups=", str(stage.root), *inside]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check(stage: Stage) -> None:
    """The image has no compiler, runs as nobody in particular, reads only, and is healthy."""
    for name in COMPILERS:
        for directory in ("usr/bin", "usr/local/bin", "opt/kaa-gateway/bin"):
            assert not (stage.root / directory / name).exists(), f"{directory}/{name} is in the image"
    assert stage.user.split(":")[0] not in ("", "0", "root")
    files = {
        f"KAA_KPC_TRANSPORTS_{name}_PORT": str(free_port()) for name in ("MQTT_TCP", "HTTP", "COAP", "UDP")
    }
    config = stage.root / "srv/kpc/service-config.yml"
    config.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "gateway/kaa_gateway/app/demo-config.yml", config)
    environment = {**files, "SERVER_PORT": str(free_port()), "NATS_URLS": f"nats://127.0.0.1:{free_port()}"}
    # A mount of its own, so that it can be read-only, in a name space that goes with the process.
    script = (
        f"mount --bind {shlex.quote(str(stage.root))} {shlex.quote(str(stage.root))}"
        f" && mount -o remount,ro,bind {shlex.quote(str(stage.root))}"
        f" && exec {shlex.join(chrooted(stage, stage.entrypoint + stage.command, environment))}"
    )
    process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while subprocess.run(
            chrooted(stage, stage.health_command, environment), check=False, capture_output=True
        ).returncode:
            assert process.poll() is None, "the gateway has ended"
            assert time.monotonic() < deadline, "the gateway is not healthy"
            time.sleep(0.2)
    finally:
        process.terminate()
        code = process.wait(60)
    assert code in (0, -15, 143), f"exit code {code}"
    size = int(subprocess.check_output(["du", "--summarize", "--block-size=1M", stage.root]).split()[0])
    print(f"healthy, on a read-only root file system, as user {stage.user}; {size} MiB with its Debian")


def main() -> None:
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("stage-*"):
        shutil.rmtree(old)
    check(Builder(directory).build(REPOSITORY / "Dockerfile"))


if __name__ == "__main__":
    main()
