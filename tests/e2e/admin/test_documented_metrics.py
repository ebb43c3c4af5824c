"""The table of metrics in docs/operations.md against what a gateway serves."""

import re

from tests.support.gateway import ROOT, GatewayProcess
from tests.support.nats import NatsServer

ELSEWHERE = {"spans"}
"""docs/tracing.md has it; it is there while tracing is on."""

ALL = {
    "workers": 2,
    "identity": {"provider": "ecap", "ecap": {"service-instance": "auth"}},
    "transports": {"mqtt": {"sessions": "durable"}},
}
"""Several workers, an identity provider and stored sessions have metrics of their own."""


def documented() -> set[str]:
    """The names in the first column of the table, without the prefix of the gateway and the suffix of a counter."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name.removesuffix("_total") for row in rows for name in re.findall(r"`(\w+)`", row)}


def served(exposition: str) -> set[str]:
    """The names of the gateway's own metric families, likewise."""
    names = re.findall(r"^# TYPE kaa_gateway_(\w+) ", exposition, re.MULTILINE)
    return {name.removesuffix("_total") for name in names if not name.endswith("_created")}


def test_each_metric_is_in_the_table_and_nothing_else_is(nats_server: NatsServer) -> None:
    with GatewayProcess(nats_server.url, {"kaa": {"kpc": ALL}}) as gateway:
        found = served(gateway.exposition()) - ELSEWHERE
    assert found - documented() == set(), "not in docs/operations.md"
    assert documented() - found == set(), "not served"
