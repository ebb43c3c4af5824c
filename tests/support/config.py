"""Configuration files for tests, and the problems that the gateway finds in them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from kaa_gateway.config import check, load
from kaa_gateway.errors import ConfigError

Write: TypeAlias = Callable[[str], Path]

MQTT_PORT = "kaa.kpc.transports.mqtt.tcp.port"
"""A key that is easy to get wrong."""


def writer(directory: Path) -> Write:
    """Return a function that writes its text to service-config.yml in `directory`."""

    def write(text: str) -> Path:
        path = directory / "service-config.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path: Path | None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return what `check` says, one line each, the file by its name only; `load` must fail with the same errors."""
    environ = environ or {}
    found = check(path, environ)
    errors = sorted(str(problem) for problem in found if problem.severity == "error")
    if errors:
        with pytest.raises(ConfigError) as failure:
            load(path, environ)
        assert sorted(failure.value.detail.split("\n")) == errors
    else:
        load(path, environ)
    directory = "" if path is None else f"{path.parent}/"
    return [str(problem).replace(directory, "") for problem in found]
