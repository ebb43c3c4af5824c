"""The identities of a fleet's devices: tokens, user names and passwords, client certificates, source addresses."""

import csv
import ssl
from pathlib import Path
from typing import NamedTuple

from kaa_bench.client_tls import ClientTls, numbered
from kaa_bench.errors import BenchError
from kaa_bench.extras import require_clients
from kaa_bench.sim.payloads import content_of
from kaa_bench.sim.scenario import Fleet, Scenario, Target


class Identity(NamedTuple):
    """How a device presents itself."""

    token: str
    user: str | None = None
    password: str | None = None


class Identities:
    """The identities of a fleet. Raise BenchError if a file of it cannot be used."""

    def __init__(self, fleet: Fleet, target: Target) -> None:
        self._fleet = fleet
        self._target = target
        self._listed = listed(Path(fleet.tokens), fleet.devices) if fleet.tokens is not None else None
        if fleet.tls:
            self.tls(0)

    def of(self, device: int) -> Identity:
        """Return the identity of a device."""
        fleet = self._fleet
        if self._listed is not None:
            listed = self._listed[device]
            if listed.user is not None or fleet.user is None:
                return listed
            return Identity(listed.token, numbered(fleet.user, device), numbered(fleet.password, device))
        return Identity(
            fleet.token_of(device), numbered(fleet.user, device), numbered(fleet.password, device)
        )

    def source(self, device: int) -> tuple[str, int] | None:
        """Return the local address of a device, None for any."""
        sources = self._fleet.sources
        return (sources[device % len(sources)], 0) if sources else None

    def tls(self, device: int) -> ssl.SSLContext | None:
        """Return the TLS context of a device. Devices whose certificate is the same share one."""
        fleet = self._fleet
        if not fleet.tls:
            return None
        return ClientTls(self._target.ca_file, fleet.cert_file, fleet.key_file).context(device)


def check_files(scenario: Scenario) -> None:
    """Raise BenchError if something that a scenario needs is missing, before its processes are started."""
    for fleet in scenario.fleets:
        Identities(fleet, scenario.target)
        for file in fleet.payload_files:
            content_of(file)
        if fleet.clients == "independent":
            require_clients("`clients: independent`")


def listed(path: Path, devices: int) -> list[Identity]:
    """Return the identities in a CSV file, whose first line names the columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path} cannot be read: {error}") from None
    if rows and "token" not in rows[0]:
        raise BenchError(f"{path}: the first line names the columns, one of which is `token`")
    if len(rows) < devices:
        raise BenchError(f"{path} has {len(rows)} tokens, and {devices} are needed")
    return [Identity(row["token"], row.get("user") or None, row.get("password") or None) for row in rows]
