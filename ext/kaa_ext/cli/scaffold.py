"""`kaa-ext new`: writes a new extension service from templates/."""

import keyword
from importlib import resources
from pathlib import Path

from kaa_gateway.bus import subjects


def write(name: str, directory: Path) -> list[Path]:
    """Write a project into a new directory, and return its files. Raise ValueError for a wrong name or directory."""
    if not subjects.NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: expected 1 to 128 letters, digits, dashes and underscores")
    module = name.replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module) or module in ("kaa_ext", "kaa_gateway"):
        raise ValueError(f"name {name!r} cannot be that of a Python module as well")
    if directory.exists():
        raise ValueError(f"{directory} is there already")
    files = {
        "service.py.txt": f"{module}.py",
        "test_service.py.txt": f"test_{module}.py",
        "README.md.txt": "README.md",
    }
    directory.mkdir(parents=True)
    written = []
    for template, file_name in files.items():
        text = (resources.files("kaa_ext.cli") / "templates" / template).read_text(encoding="utf-8")
        path = directory / file_name
        path.write_text(text.replace("{name}", name).replace("{module}", module), encoding="utf-8")
        written.append(path)
    return written
