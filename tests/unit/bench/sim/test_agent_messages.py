"""Reports of agents over NATS: they arrive as they were, and what is no report is refused."""

import zlib

import msgspec
import pytest
from kaa_bench.errors import BenchError
from kaa_bench.load.histogram import Histogram, restored
from kaa_bench.sim.agent_messages import packed, unpacked
from kaa_bench.sim.process import Report
from kaa_bench.sim.tally import Tally


def report() -> Report:
    tally = Tally(connected=3, reached=4, connects=5, sent=6, acknowledged=0, late=7, downlink_sent=2)
    tally.errors["status 503"] = 2
    recent = Histogram()
    for latency in (0.001, 0.02, 0.3):
        tally.done(10.0, 10.0 + latency)
        recent.record(int(latency * 1e9))
    tally.downlink_latency.record(5_000)
    return Report({"meters": tally}, {"meters": recent}, 1.5, final=True)


def test_a_report_arrives_as_it_was() -> None:
    sent = report()
    agent, reports, error = unpacked(packed("a1", {3: sent}))
    assert (agent, list(reports), error) == ("a1", [3], None)
    got = reports[3]
    assert (got.cpu_seconds, got.final) == (1.5, True)
    for name in (
        "connected",
        "reached",
        "connects",
        "sent",
        "acknowledged",
        "late",
        "downlink_sent",
        "errors",
    ):
        assert getattr(got.tallies["meters"], name) == getattr(sent.tallies["meters"], name), name
    for before, after in (
        (sent.tallies["meters"].latency, got.tallies["meters"].latency),
        (sent.tallies["meters"].downlink_latency, got.tallies["meters"].downlink_latency),
        (sent.recent["meters"], got.recent["meters"]),
    ):
        assert before.parts() == after.parts()
        assert before.percentile(99) == after.percentile(99)
    # The sum of two is that of reports of this machine.
    total = Tally()
    total.add(got.tallies["meters"])
    total.add(sent.tallies["meters"])
    assert (total.sent, total.errors["status 503"], total.latency.total) == (12, 4, 6)


def test_why_an_agent_has_failed() -> None:
    assert unpacked(packed("a1", {}, "no file")) == ("a1", {}, "no file")


@pytest.mark.parametrize(
    "datum",
    [
        b"",
        b"nothing",
        zlib.compress(b"nothing"),
        zlib.compress(msgspec.msgpack.encode({"agent": 1})),
        zlib.compress(msgspec.msgpack.encode({"agent": "a", "reports": {"x": {}}})),
        zlib.compress(msgspec.msgpack.encode({"agent": "a", "reports": {"1": {"tallies": {}}}})),
        zlib.compress(bytes(1 << 27)),
    ],
)
def test_what_is_no_report(datum: bytes) -> None:
    with pytest.raises(BenchError, match="no report"):
        unpacked(datum)


@pytest.mark.parametrize("bucket", [(-1, 1), (1 << 40, 1), (0, -1)])
def test_a_histogram_has_no_such_bucket(bucket: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no bucket"):
        restored([bucket], 0, 0.0)
