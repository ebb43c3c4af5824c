"""What a further worker costs: all kinds of work run, and the table has a column for each number of workers."""

import shutil

import pytest
from kaa_bench.compare import scaling
from kaa_bench.compare.callgrind import Callgrind
from kaa_bench.compare.features import connect_devices
from kaa_bench.processes import Gateway, NatsServer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("SECONDS", 1.0),
        ("WARM_UP_S", 0.1),
        ("GREETED_S", 0.1),
        ("CONNECTS", 20),
        ("PUSHES", 100),
    ):
        monkeypatch.setattr(scaling, name, value)


def test_every_work_has_a_cost_for_each_number_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.measure(workers=(1, 2)) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| us of CPU | 1 | 2 | last / first |"
    assert [row.split(" | ")[0] for row in rows] == [f"| {work.title}" for work in scaling.WORKS]
    for row in rows:
        costs = [float(cell.strip(" |").replace(",", "")) for cell in row.split(" | ")[1:]]
        assert min(costs) > 0


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_the_instructions_of_all_workers_are_counted() -> None:
    with NatsServer() as nats:
        gateway = Gateway(nats, 2)
        callgrind = Callgrind(gateway, gateway.workers)
        with gateway:
            assert len(gateway.workers()) == 2
            _, counts = callgrind.count(lambda: connect_devices(gateway, 60, persistent=False, at_once=20))
            assert any("kaa_gateway" in function for _, function in counts)
            assert len(list(gateway.directory.glob("callgrind.out*"))) >= 2
