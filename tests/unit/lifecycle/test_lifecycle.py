"""9/ELCE events: what is in them, how they are cut, and that traffic is counted once.

Datums are read by the schemas of the RFC.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from kaa_gateway.bus.messages import EVENT_SIZE_MAX
from kaa_gateway.lifecycle import traffic
from kaa_gateway.lifecycle.connectivity import Connectivity
from kaa_gateway.lifecycle.traffic import Owner, TrafficReports
from kaa_gateway.wire.esp import encode_extension_data

from tests.support.cluster import STATISTICS, read_event
from tests.support.esp import until
from tests.unit.kp.worker_double import APP, OTHER_APP, WorkerDouble

REPLICA = "kpc-a"
OWNERS = {APP: Owner("tenant-a", "app"), OTHER_APP: Owner("tenant-b", "other")}


class Control:
    """In place of the control connection: keeps what is published."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.largest = 0
        self.event_size_max = EVENT_SIZE_MAX

    def publish_event(self, subject: str, datum: bytes) -> None:
        kind = subject.rpartition(".")[2]
        assert (
            subject
            == {
                "connected": "kaa.v1.events.kpc.endpoint.connectivity.connected",
                "disconnected": "kaa.v1.events.kpc.endpoint.connectivity.disconnected",
                "payload": "kaa.v1.events.kpc.endpoint.traffic-reporting.payload",
            }[kind]
        )
        event = read_event(kind, datum)
        assert event["originatorReplicaId"] == REPLICA
        assert abs(event["timestamp"] / 1000 - time.time()) < 600
        assert event["timeout"] == 0
        self.events.append((kind, event))
        self.largest = max(self.largest, len(datum))

    def endpoints(self) -> list[tuple[str, dict[str, str]]]:
        return [(kind, event["endpoints"]) for kind, event in self.events]


class TestConnectivity:
    async def test_changes_within_the_window_are_one_event(self) -> None:
        control = Control()
        connectivity = Connectivity(control, "kpc", REPLICA)  # type: ignore[arg-type]
        for number in range(3):
            connectivity.appeared(f"endpoint-{number}", "app_v1")
        assert control.events == []
        await until(lambda: len(control.events) == 1, "an event")
        assert control.endpoints() == [("connected", {f"endpoint-{number}": "app_v1" for number in range(3)})]

    async def test_a_client_that_comes_and_goes_in_the_window_is_one_event_of_each_kind(self) -> None:
        control = Control()
        connectivity = Connectivity(control, "kpc", REPLICA)  # type: ignore[arg-type]
        endpoints = {f"endpoint-{number}": "app_v1" for number in range(5)}
        for change in (connectivity.appeared, connectivity.disappeared, connectivity.appeared):
            for endpoint in endpoints:
                change(endpoint, "app_v1")
        connectivity.flush()
        assert control.endpoints() == [
            ("connected", endpoints),
            ("disconnected", endpoints),
            ("connected", endpoints),
        ]

    async def test_ten_thousand_uuids_are_one_event(self) -> None:
        control = Control()
        connectivity = Connectivity(control, "kpc", REPLICA)  # type: ignore[arg-type]
        for number in range(10_000):
            connectivity.disappeared(f"{number:036}", "demo_application_v1")
        connectivity.flush()
        assert len(control.events) == 1
        assert control.largest <= EVENT_SIZE_MAX

    async def test_an_event_is_not_larger_than_nats_takes(self) -> None:
        control = Control()
        connectivity = Connectivity(control, "kpc", REPLICA)  # type: ignore[arg-type]
        names = [f"{number:04}" + 1020 * "x" for number in range(2000)]
        for name in names:
            connectivity.appeared(name, "app_v1")
        connectivity.flush()
        assert len(control.events) > 1
        assert EVENT_SIZE_MAX // 2 < control.largest <= EVENT_SIZE_MAX + 200
        assert [name for _, endpoints in control.endpoints() for name in endpoints] == names


class Traffic:
    """A worker's native parts, with what is reported of it."""

    def __init__(self, worker: WorkerDouble) -> None:
        self.worker = worker
        self.control = Control()
        self.reports = TrafficReports(
            self.control,  # type: ignore[arg-type]
            worker.sessions.endpoints,
            "kpc",
            REPLICA,
            OWNERS,
            3600.0,
        )

    async def report(self) -> dict[tuple[str, str, str], tuple[int, ...]]:
        """What is new since the last time."""
        self.control.events.clear()
        self.reports.start()
        await self.reports.stop()
        return self.reported()

    def reported(self) -> dict[tuple[str, str, str], tuple[int, ...]]:
        """(tenant, application, endpoint) -> counts in the order of the schema, summed over all events."""
        found: Counter[tuple[str, str, str, str]] = Counter()
        for _, event in self.control.events:
            assert 0 < event["timeFrom"] <= event["timeTo"]
            assert abs(event["timeTo"] / 1e9 - time.time()) < 600
            for tenant, applications in event["tenantTrafficStats"].items():
                for application, endpoints in applications.items():
                    for endpoint, stat in endpoints.items():
                        found.update(
                            {(tenant, application, endpoint, name): stat[name] for name in STATISTICS}
                        )
        rows = {key[:3] for key in found}
        return {row: tuple(found[*row, name] for name in STATISTICS) for row in rows}


def answer(worker: WorkerDouble, payload: bytes, status: int = 200) -> None:
    """The extension's answer to the last message."""
    (published,) = worker.published()[-1:]
    data = published.data
    worker.deliver(
        encode_extension_data(
            data.correlation_id,
            0,
            0,
            data.app_version_name,
            "dcx",
            data.endpoint_id,
            data.resource_path,
            data.request_id,
            payload,
            status,
        )
    )


class TestTraffic:
    async def test_both_directions_by_tenant_application_and_endpoint(self) -> None:
        with WorkerDouble() as worker:
            reports = Traffic(worker)
            device = worker.device()
            device.publish(f"kp1/{APP}/dcx/one/json/1", b"12345")
            worker.identify()
            answer(worker, b"123")
            device.publish(f"kp1/{APP}/dcx/one/json/2", b"")
            answer(worker, b"", 500)
            device.publish(f"kp1/{OTHER_APP}/dcx/two/json", b"1")
            worker.identify()
            assert await reports.report() == {
                ("tenant-a", "app", "endpoint-one"): (5, 3, 2, 2),
                ("tenant-b", "other", "endpoint-two"): (1, 0, 1, 0),
            }
            # Nothing is reported twice, and nothing that has not happened.
            assert await reports.report() == {}
            assert reports.control.events == []
            device.publish(f"kp1/{APP}/dcx/one/json/3", b"12")
            assert await reports.report() == {("tenant-a", "app", "endpoint-one"): (2, 0, 1, 0)}

    async def test_what_was_refused_or_has_no_endpoint_is_not_traffic(self) -> None:
        with WorkerDouble() as worker:
            reports = Traffic(worker)
            device = worker.device()
            device.publish(f"kp1/{APP}/tsx/time", b"1")
            device.publish(f"kp1/{APP}/nowhere/one/json", b"1")
            device.publish(f"kp1/{APP}/dcx/bad/json", b"1")
            worker.identify(lambda token: "")
            assert await reports.report() == {}

    async def test_endpoints_that_are_gone_are_reported(self) -> None:
        with WorkerDouble(route_cache=2) as worker:
            reports = Traffic(worker)
            for number in range(20):
                device = worker.device()
                device.publish(f"kp1/{APP}/dcx/{number % 10}/json", b"123")
                worker.identify()
                device.drop()
            assert len(worker.sessions.endpoints) < 10
            assert await reports.report() == {
                ("tenant-a", "app", f"endpoint-{number}"): (6, 0, 2, 0) for number in range(10)
            }

    async def test_an_endpoint_that_changes_its_application_is_reported_under_each(self) -> None:
        with WorkerDouble() as worker:
            reports = Traffic(worker)
            for version in (APP, OTHER_APP):
                device = worker.device()
                device.publish(f"kp1/{version}/dcx/one/json", b"123")
                worker.identify()
                device.drop()
            assert await reports.report() == {
                ("tenant-a", "app", "endpoint-one"): (3, 0, 1, 0),
                ("tenant-b", "other", "endpoint-one"): (3, 0, 1, 0),
            }

    async def test_many_that_are_gone_are_reported_before_their_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(traffic, "DEPARTED_MAX", 5)
        with WorkerDouble(route_cache=2) as worker:
            reports = Traffic(worker)
            reports.reports.start()
            for number in range(50):
                device = worker.device()
                device.publish(f"kp1/{APP}/dcx/{number}/json", b"123")
                worker.identify()
                device.drop()
                await asyncio.sleep(0)
            await until(lambda: len(reports.reported()) >= 45, "reports before the end of the period")
            await reports.reports.stop()
            assert reports.reported() == {
                ("tenant-a", "app", f"endpoint-{number}"): (3, 0, 1, 0) for number in range(50)
            }

    async def test_a_report_of_many_endpoints_is_several_events(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(traffic, "CHUNK", 7)
        with WorkerDouble(endpoints_per_session=1000, waiting=1000) as worker:
            reports = Traffic(worker)
            device = worker.device()
            reports.control.event_size_max = 1000
            for number in range(100):
                device.publish(f"kp1/{APP}/dcx/{number}/json", b"1")
                worker.identify()
            assert len(await reports.report()) == 100
            assert len(reports.control.events) >= 5
            assert reports.control.largest <= 1200
            assert len({(event["timeFrom"], event["timeTo"]) for _, event in reports.control.events}) == 1
