"""`kaa-ext new`: writes a new extension service from templates/."""

import keyword
import sys
from importlib import resources
from pathlib import Path

from kaa_gateway.bus import subjects

from kaa_ext.cli.exits import fail


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


def new(name: str, *, directory: Path | None = None) -> None:
    """Write a new extension service: code, test, README.

    Parameters
    ----------
    name
        Service instance name.
    directory
        Directory to write to (default: a new one of that name).
    """
    try:
        written = write(name, directory or Path(name))
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    for path in written:
        print(path)
    print(
        f"`kaa-gateway dev --allow {name}` lets devices use it; README.md says how a cluster does",
        file=sys.stderr,
    )
