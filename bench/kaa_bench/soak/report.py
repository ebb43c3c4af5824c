"""Prints the tables of a soak, and decides whether it has passed."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from kaa_bench.soak.account import Account
from kaa_bench.soak.checker import Finding
from kaa_bench.soak.cluster import Datagrams
from kaa_bench.soak.run import Row

SHOWN_MAX = 10
"""Violations of a property that are printed."""
COLUMNS = ("sent", "acked", "refused", "delivered", "twice", "answered", "lost", "to NATS")


def lost(accounts: Mapping[Row, Account]) -> int:
    """Return the losses in breach of the guarantees: in core mode those without a death of NATS."""
    return sum(account.lost for account in accounts.values())


def violations(findings: Mapping[str, Finding]) -> int:
    """Return the number of violations of all properties."""
    return sum(len(finding.violations) for finding in findings.values())


def print_soak(
    accounts: Mapping[Row, Account],
    findings: Mapping[str, Finding],
    faults: Mapping[str, int],
    datagrams: Datagrams,
    console: Console,
) -> None:
    """Print a table by mode and kind of device, one by property, the counts of faults and those of datagrams."""
    table = Table(title="Messages by what became of them", box=None, padding=(0, 1, 0, 0))
    table.add_column("mode")
    table.add_column("device", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for (mode, kind), account in sorted(accounts.items()):
        figures = (
            account.sent,
            account.acknowledged,
            account.refused,
            account.delivered,
            account.duplicated,
            account.answered,
            account.lost,
            account.lost_with_nats,
        )
        table.add_row(mode, kind, *(f"{figure:,}" for figure in figures))
    console.print(table)
    console.print(
        "lost: acknowledged and never delivered. To NATS: the same, around a SIGKILL of the NATS server, which takes "
        "along what core NATS holds in memory.",
        highlight=False,
        soft_wrap=True,
    )
    _print_findings(findings, console)
    broken = ", ".join(f"{name.replace('_', ' ')} {count}x" for name, count in faults.items())
    console.print(f"broken: {broken}", highlight=False, soft_wrap=True)
    console.print(
        f"datagrams: {datagrams.forwarded:,} forwarded, {datagrams.lost:,} lost, {datagrams.repeated:,} repeated, "
        f"{datagrams.held:,} held back so that others overtake them",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"lost of acknowledged: {lost(accounts)}", highlight=False)
    console.print(f"violations: {violations(findings)}", highlight=False)


def _print_findings(findings: Mapping[str, Finding], console: Console) -> None:
    table = Table(title="Properties of the histories", box=None, padding=(0, 1, 0, 0))
    table.add_column("property", no_wrap=True)
    for column in ("checked", "excused", "violations"):
        table.add_column(column, justify="right")
    for name, finding in findings.items():
        figures = finding.checked, finding.excused, len(finding.violations)
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    console.print(table)
    for finding in findings.values():
        for violation in finding.violations[:SHOWN_MAX]:
            console.print(str(violation), highlight=False, soft_wrap=True)
