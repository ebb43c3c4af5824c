"""The optional dependencies of `kaa-bench`, which are imported where they are used."""

from importlib.util import find_spec

from kaa_bench.errors import BenchError

CLIENTS = ("aiocoap", "aiomqtt")
"""The packages of the extra `clients`, whose modules have the same names."""


def require_clients(purpose: str) -> None:
    """Raise BenchError with the command that installs the extra `clients` if a package of it is missing."""
    missing = [package for package in CLIENTS if find_spec(package) is None]
    if missing:
        raise BenchError(f"{purpose} needs the extra `clients` of kaa-bench: pip install {' '.join(missing)}")
