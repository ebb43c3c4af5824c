"""Imports point down only: a table says which package may import which, by cimport and for types too."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

COMMON = {
    "access",
    "completion",
    "errors",
    "counters",
    "logs",
    "clock",
    "files",
    "slices",
    "stdio",
    "tasks",
    "tick",
    "version",
    "yaml_tree",
}
"""Modules of kaa_gateway that stand below all packages, and __version__."""
PROTOCOL = {"net", "kp", "bus", "wire", "identity.clients", "identity.known_clients"}
ALL = {"*"}
SHARED = {"identity.clients", "identity.known_clients", "admin.server", "admin.fleet", "admin.fleet_server"}
"""Modules that others may import than may import their whole package."""

ALLOWED: dict[str, set[str]] = {
    "wire": {"errors"},
    "bus": {"wire"} | COMMON,
    "kp": {"bus", "wire"} | COMMON,
    "fleet": {"bus", "wire"} | COMMON,
    "identity": {"bus", "wire"} | COMMON,
    "lifecycle": {"bus"} | COMMON,
    "net": {"wire"} | COMMON,
    "mqtt": PROTOCOL | {"fleet"} | COMMON,
    "http": PROTOCOL | COMMON,
    "coap": PROTOCOL | COMMON,
    "kpudp": PROTOCOL | COMMON,
    "mqtt_sn": PROTOCOL | {"mqtt"} | COMMON,
    "plugins": PROTOCOL | COMMON,
    "bridge": {"kp", "bus", "wire"} | COMMON,
    "config": {"bus", "wire"} | COMMON,
    "supervision": COMMON,
    "admin": {"config", "bus", "fleet", "kp", "identity", "net", "supervision"} | COMMON,
    "app": ALL,
    "cli": ALL,
    "commands": ALL,
    "__main__": ALL,
    "kaa_ext.messages": {"bus"},
    "kaa_ext.sdk": {
        "kaa_ext.messages", "bus", "wire", "errors", "stdio", "version", "clock", "counters", "admin.server",
    },
    "kaa_ext.testing": {"kaa_ext.sdk", "bus", "wire", "errors", "stdio", "version"},
    "kaa_ext.services": {"kaa_ext.messages", "kaa_ext.sdk", "bus", "wire", "errors", "stdio", "version"},
    "kaa_ext.operations": {"kaa_ext.messages", "kaa_ext.sdk", "kaa_ext.services", "bus", "errors"},
    "kaa_ext.rest": {
        "kaa_ext.messages", "kaa_ext.sdk", "kaa_ext.services", "kaa_ext.operations",
        "access", "files", "admin.server", "bus", "errors", "version",
    },
    "kaa_ext.cli": {
        "kaa_ext.messages", "kaa_ext.sdk", "kaa_ext.services", "kaa_ext.operations", "kaa_ext.rest",
        "bus", "wire", "errors", "stdio", "version", "completion",
        "supervision", "admin.fleet", "admin.fleet_server",
    },
    "kaa_ext": {"kaa_ext.sdk", "kaa_ext.cli"},
    "kaa_bench": {
        "kaa_ext", "kaa_ext.sdk", "kaa_ext.messages", "bus", "wire", "plugins", "errors", "stdio", "tasks",
        "version", "completion",
    },
}  # fmt: skip
"""What each package may import beside itself; packages of kaa_gateway by their second name."""

PACKAGES = {"kaa_gateway": ROOT / "gateway", "kaa_ext": ROOT / "ext", "kaa_bench": ROOT / "bench"}
CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+([\w.]+)\s+c?import\s+\(?([\w, ]*)|c?import\s+([\w.]+))", re.MULTILINE
)


def sources() -> Iterator[Path]:
    for name, directory in PACKAGES.items():
        for path in sorted((directory / name).rglob("*.p*")):
            if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
                yield path


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports; `from a import b` may be the module a.b, or a name of a."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".pyx", ".pxd"):
        for found in CYTHON_IMPORT.finditer(text):
            module, names, plain = found.groups()
            if plain:
                yield plain
            else:
                yield from (
                    f"{module}.{name.split()[0]}" for name in (names or "?").split(",") if name.strip()
                )
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    """Return the name that a module of ours has in the table; None for other people's modules."""
    top, _, rest = module.partition(".")
    parts = rest.split(".")
    if top == "kaa_gateway":
        if parts[0] in ("__version__", "__init__", ""):
            return "version"
        part = ".".join(parts[:2])
        return part if part in SHARED else parts[0]
    if top == "kaa_ext":
        return f"kaa_ext.{parts[0]}" if (PACKAGES[top] / top / parts[0]).is_dir() and rest else "kaa_ext"
    return "kaa_bench" if top == "kaa_bench" else None


def violations() -> Iterator[str]:
    for path in sources():
        module = ".".join(path.relative_to(PACKAGES[path.relative_to(ROOT).parts[1]]).with_suffix("").parts)
        package = package_of(module)
        assert package is not None
        package = package.partition(".")[0] if package in SHARED else package
        allowed = ALLOWED.get(package, set()) if package not in COMMON else COMMON
        for name in imported(path):
            other = package_of(name)
            if other is None or "*" in allowed:
                continue
            whole = other.partition(".")[0] if other in SHARED else other
            if whole != package and not {other, whole} & allowed:
                yield f"{path.relative_to(ROOT)} imports {name}"


def test_imports_point_down() -> None:
    assert list(violations()) == []


def test_every_package_is_in_the_table() -> None:
    packages = {path.parent.name for path in (ROOT / "gateway/kaa_gateway").glob("*/__init__.py")}
    assert packages <= set(ALLOWED)
