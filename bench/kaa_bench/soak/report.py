"""Prints the table of a soak, and decides whether it has passed."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from kaa_bench.soak.cluster import Datagrams
from kaa_bench.soak.ledger import Account
from kaa_bench.soak.run import Row

COLUMNS = ("sent", "acked", "refused", "delivered", "twice", "answered", "lost", "to NATS")


def lost(accounts: Mapping[Row, Account]) -> int:
    """Return the losses in breach of the guarantees: in core mode those without a death of NATS."""
    return sum(
        account.lost + (account.lost_with_nats if mode != "core" else 0)
        for (mode, _), account in accounts.items()
    )


def print_soak(
    accounts: Mapping[Row, Account], faults: Mapping[str, int], datagrams: Datagrams, console: Console
) -> None:
    """Return a table by mode and kind of device, the counts of faults, and the counts of datagrams."""
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
    broken = ", ".join(f"{name.replace('_', ' ')} {count}x" for name, count in faults.items())
    console.print(f"broken: {broken}", highlight=False, soft_wrap=True)
    console.print(
        f"datagrams: {datagrams.forwarded:,} forwarded, {datagrams.lost:,} lost, {datagrams.repeated:,} repeated, "
        f"{datagrams.held:,} held back so that others overtake them",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"lost of acknowledged: {lost(accounts)}", highlight=False)
