"""A configuration that changes: what is taken of it, what needs a restart, and what is refused. Files are real."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import structlog
from kaa_gateway.app import reload
from kaa_gateway.app.changes import APPLIED, MQTT_SN_APPLIED, applicable, differences
from kaa_gateway.app.reload import Reloader
from kaa_gateway.config import Config, load
from kaa_gateway.config.keys import Limits
from kaa_gateway.config.keys.mqtt_sn import MqttSn
from kaa_gateway.config.reference import reference
from msgspec.structs import fields, replace
from structlog.testing import capture_logs

from tests.support.esp import until

BASE = """
service.instance.replica.id: kpc-a
kaa:
  applications.app.versions:
    app_v1.allowed-extension-instances: [dcx]
  extension-instances:
    dcx:
  kpc:
    transports.mqtt.tcp.port: 1883
    limits.connections: 10
"""


def read(directory: Path, text: str) -> Config:
    file = directory / "config.yml"
    file.write_text(text)
    return load(file, {})


MQTT_SN_KEYS = {each.encode_name.replace("_", "-") for each in fields(MqttSn)}


class TestApplicable:
    def test_what_is_taken_and_what_is_not(self, tmp_path: Path) -> None:
        old = read(tmp_path, BASE)
        new = read(
            tmp_path,
            """
service: {instance.replica.id: kpc-b, graceful-shutdown: 5}
server.port: 9000
kaa:
  applications.app.versions:
    app_v1.allowed-extension-instances: [dcx, tsx]
    app_v2.allowed-extension-instances: [tsx]
  extension-instances:
    dcx.endpoint-aware: false
    tsx:
  kpc:
    transports.mqtt.tcp.port: 1884
    limits: {connections: 20, topic-length: 100}
    log: {level: debug, format: console}
""",
        )
        taken = applicable(old, new)
        assert sorted(differences(old, taken)) == [
            "kaa.applications.app.versions.app_v1",
            "kaa.applications.app.versions.app_v2",
            "kaa.extension-instances.dcx",
            "kaa.extension-instances.tsx",
            "kaa.kpc.limits.connections",
            "kaa.kpc.limits.topic-length",
            "kaa.kpc.log.level",
            "service.graceful-shutdown",
        ]
        assert sorted(differences(taken, new)) == [
            "kaa.kpc.log.format",
            "kaa.kpc.transports.mqtt.tcp.port",
            "server.port",
            "service.instance.replica.id",
        ]

    def test_durable_instances_need_a_restart(self, tmp_path: Path) -> None:
        old = read(tmp_path, BASE)
        new = read(
            tmp_path,
            BASE.replace("    dcx:\n", "    dcx.durable: true\n    new.durable: true\n").replace(
                "[dcx]", "[dcx, new]"
            ),
        )
        taken = applicable(old, new)
        assert taken == old
        assert sorted(differences(taken, new)) == [
            "kaa.applications.app.versions.app_v1",
            "kaa.extension-instances.dcx",
            "kaa.extension-instances.new",
        ]
        # And one that is durable stays so.
        assert applicable(new, old).extension_instances["dcx"].durable

    def test_the_same_is_no_difference_though_the_replica_id_is_random(self, tmp_path: Path) -> None:
        text = BASE.replace("service.instance.replica.id: kpc-a\n", "")
        assert list(differences(read(tmp_path, text), read(tmp_path, text))) == []

    def test_every_limit_is_taken(self, tmp_path: Path) -> None:
        old = read(tmp_path, BASE)
        for each in fields(Limits):
            changed = replace(old.limits, **{each.name: getattr(old.limits, each.name) + 1})
            taken = applicable(old, replace(old, limits=changed))
            assert list(differences(old, taken)) == [f"kaa.kpc.limits.{each.encode_name}"]

    def test_mqtt_sn_is_taken_but_for_its_listeners(self, tmp_path: Path) -> None:
        old = read(tmp_path, BASE)
        key = "    transports.mqtt-sn."
        new = read(
            tmp_path,
            f"{BASE}{key}port: 1999\n{key}peers: 99\n{key}topic-memory: 8KiB\n{key}predefined-topics: ['1=kp1/a']\n",
        )
        taken = applicable(old, new)
        assert sorted(differences(old, taken)) == [
            "kaa.kpc.transports.mqtt-sn.peers",
            "kaa.kpc.transports.mqtt-sn.predefined-topics",
            "kaa.kpc.transports.mqtt-sn.topic-memory",
        ]
        assert list(differences(taken, new)) == ["kaa.kpc.transports.mqtt-sn.port"]

    def test_quotas_are_taken(self, tmp_path: Path) -> None:
        old = read(tmp_path, BASE)
        new = read(tmp_path, BASE + "  tenants.acme.quota.messages-per-second: 5\n")
        assert applicable(old, new).tenants["acme"].messages_per_second == 5
        new = read(
            tmp_path,
            BASE.replace("[dcx]", "[dcx]\n    app_v1.endpoint-quota.bytes-per-second: 1KiB"),
        )
        assert applicable(old, new).app_versions["app_v1"].endpoint_quota.bytes_per_second == 1024

    def test_every_key_that_is_said_to_be_taken_exists(self) -> None:
        paths = [row.path for row in reference()]
        for key in APPLIED:
            assert any(path == key or path.startswith(f"{key}.") for path in paths), key

    def test_documentation_names_them(self) -> None:
        text = (Path(__file__).parents[3] / "docs" / "reloading.md").read_text(encoding="utf-8")
        assert [key for key in APPLIED if f"`{key}" not in text] == []
        [restart] = re.findall("Of MQTT-SN, these are (.+?)\\.", text, re.DOTALL)
        assert set(re.findall("`(.+?)`", restart)) == MQTT_SN_KEYS - {
            key.replace("_", "-") for key in MQTT_SN_APPLIED
        }


class Watched:
    """A reloader over a file in the place where Kubernetes puts that of a ConfigMap."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.path = directory / "service-config.yml"
        self.path.symlink_to("..data/service-config.yml")
        self.write(BASE)
        self.applied: list[Config] = []
        self.reloader = Reloader(self.path, partial(load, self.path, {}), load(self.path, {}), self._apply)

    async def _apply(self, config: Config) -> None:
        self.applied.append(config)

    def write(self, text: str) -> None:
        """Another version of the ConfigMap: a directory of its own, and a link to it put in the place of the old."""
        self._count += 1
        version = self._directory / f"..{self._count}"
        version.mkdir()
        (version / "service-config.yml").write_text(text)
        link = self._directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._directory / "..data")

    async def result(self, name: str, count: int = 1) -> None:
        await until(lambda: self.reloader.results[name] == count, f"{count} {name}: {self.reloader.results}")


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[Watched]:
    place = Watched(directory)
    place.reloader.start()
    try:
        yield place
    finally:
        await place.reloader.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "WATCH_PERIOD", 0.02)
    monkeypatch.setattr(reload, "COMPLETE_AFTER", 0.02)
    structlog.reset_defaults()


class TestReloader:
    async def test_a_new_configmap_is_applied(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            for count, limit in enumerate((20, 30), 1):
                place.write(BASE.replace("connections: 10", f"connections: {limit}"))
                await place.result("applied", count)
                assert place.applied[-1].limits.connections == limit
            assert place.reloader.config == place.applied[-1]
            assert len(place.applied) == 2

    async def test_a_wrong_one_is_refused_whole_with_every_problem(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            with capture_logs() as logs:
                place.write(
                    BASE.replace("connections: 10", "connections: 20\n    workerz: 2\n    log.level: loud")
                )
                await place.result("refused")
            errors = [str(each["problem"]) for each in logs if each["log_level"] == "error"]
            assert len(errors) == 2
            assert any(
                'kaa.kpc.workerz: unknown key; did you mean "kaa.kpc.workers"?' in each for each in errors
            )
            assert any("kaa.kpc.log.level: expected one of" in each for each in errors)
            assert all(str(place.path) in each for each in errors)
            assert place.applied == []
            place.write(BASE.replace("connections: 10", "connections: 20"))
            await place.result("applied")
            assert place.reloader.results["refused"] == 1

    async def test_a_file_that_has_become_empty_is_refused(self, tmp_path: Path) -> None:
        """As one that its writer has truncated, and not written yet."""
        async with watched(tmp_path) as place:
            for count, text in enumerate(("", "---\n# generated\n"), 1):
                place.write(text)
                await place.result("refused", count)
            assert place.applied == []
            place.write(BASE.replace("connections: 10", "connections: 20"))
            await place.result("applied")

    async def test_a_file_is_read_when_it_is_complete(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However its writer cuts it: what it has written so far may be a configuration too."""
        monkeypatch.setattr(reload, "COMPLETE_AFTER", 0.3)
        text = BASE.replace("connections: 10", "connections: 20")
        async with watched(tmp_path) as place:
            file = (tmp_path / "..data").resolve() / "service-config.yml"
            for end in range(0, len(text) + 1, max(1, len(text) // 20)):
                file.write_text(text[:end])
                place.reloader.request("SIGHUP")
                await asyncio.sleep(0.05)
            file.write_text(text)
            await place.result("applied")
            assert [config.limits.connections for config in place.applied] == [20]
            assert place.reloader.results["refused"] == 0
            assert place.applied[0].app_versions == load(place.path, {}).app_versions

    async def test_a_file_that_is_gone_is_refused_once(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            (tmp_path / "..data").unlink()
            await place.result("refused")
            await asyncio.sleep(10 * reload.WATCH_PERIOD)
            assert place.reloader.results == {"applied": 0, "refused": 1, "unchanged": 0}

    async def test_keys_that_need_a_restart_are_named(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            with capture_logs() as logs:
                place.write(BASE.replace("port: 1883", "port: 1884"))
                await place.result("unchanged")
            (warning,) = [each for each in logs if each["log_level"] == "warning"]
            assert warning["keys"] == ["kaa.kpc.transports.mqtt.tcp.port"]
            assert "restart" in str(warning["event"])
            assert place.applied == []

    async def test_a_request_reads_it_though_it_has_not_changed(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            for count in range(1, 3):
                place.reloader.request("SIGHUP")
                await place.result("unchanged", count)
            assert place.applied == []

    async def test_requests_that_come_together_are_one(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            for _ in range(1000):
                place.reloader.request("17/SCMP")
            await place.result("unchanged", 1)
            await asyncio.sleep(10 * reload.WATCH_PERIOD)
            assert place.reloader.results["unchanged"] == 1

    async def test_what_cannot_be_applied_does_not_end_it(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as place:
            place.applied = None  # type: ignore[assignment]
            place.write(BASE.replace("connections: 10", "connections: 20"))
            await until(lambda: place.reloader.config.limits.connections == 20, "the attempt")
            place.applied = []
            place.write(BASE.replace("connections: 10", "connections: 30"))
            await place.result("applied")
            assert place.applied[0].limits.connections == 30
