"""`kaa-gateway protocol new`: writes a new protocol, with tests, from templates/."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path

FILES = {
    "protocol.py.txt": "{module}.py",
    "test_protocol.py.txt": "test_{module}.py",
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
}
RESERVED = ("mqtt", "http", "coap", "udp", "kaa_gateway", "kaa_ext")


def write(name: str, directory: Path) -> list[Path]:
    """Write a project into a new directory, and return its files. Raise ValueError for a wrong name or directory."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise ValueError(
            f"name {name!r}: expected a small letter, then small letters, digits, dashes and underscores"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in RESERVED:
        raise ValueError(f"name {name!r} cannot be that of a protocol and of a Python module")
    if directory.exists():
        raise ValueError(f"{directory} is there already")
    class_name = "".join(part.capitalize() for part in module.split("_")) or "Device"
    directory.mkdir(parents=True)
    written = []
    for template, file_name in FILES.items():
        text = (resources.files("kaa_gateway.plugins") / "templates" / template).read_text(encoding="utf-8")
        for placeholder, value in (("{name}", name), ("{module}", module), ("{class}", class_name)):
            text = text.replace(placeholder, value)
        path = directory / file_name.replace("{module}", module)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
