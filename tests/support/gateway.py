"""The gateway as an operator runs it: `python -m kaa_gateway run` in a process of its own, with a configuration file.

What it does on NATS is looked at by tests/support/cluster.py, its MQTT side by tests/support/mqtt.py.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.nats import HOST, POLL_S, START_TIMEOUT_S, free_port

STOP_TIMEOUT_S = 20.0
ADMIN_TIMEOUT_S = 10.0
INSTANCE = "kpc"
REPLICA = "replica-1"
ROOT = Path(__file__).parents[2]

EXTENSIONS: dict[str, dict[str, Any]] = {
    **{name: {"endpoint-aware": True} for name in ("bcx", "cmx", "dcx", "echo", "slow", "tsx")},
    "unaware": {"endpoint-aware": False},
}
"""The extension instances of the test configuration."""

Metrics = dict[tuple[str, ...], float]


def configuration() -> dict[str, Any]:
    """Return the test configuration, with ports that are free now."""
    return {
        "service": {"instance": {"name": INSTANCE, "replica": {"id": REPLICA}}, "graceful-shutdown": 5},
        "server": {"port": free_port()},
        "kaa": {
            "applications": {
                "app": {
                    "versions": {
                        "app_v1": {"allowed-extension-instances": sorted(EXTENSIONS)},
                        "app_v2": {"allowed-extension-instances": ["echo"]},
                    }
                }
            },
            "extension-instances": dict(EXTENSIONS),
            "kpc": {
                "transports": {
                    "bind-address": HOST,
                    "mqtt": {"tcp": {"port": free_port()}},
                    "http": {"port": free_port()},
                    "coap": {"port": free_port()},
                    "udp": {"enabled": True, "port": free_port()},
                },
                "identity": {"provider": "open"},
            },
        },
    }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` put in, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        here = result.get(key)
        nested = isinstance(here, Mapping) and isinstance(value, Mapping)
        result[key] = merged(here, value) if nested else value  # type: ignore[arg-type]
    return result


class GatewayProcess:
    """One gateway on free loopback ports, connected to the NATS server(s) at `nats_url`.

    `changes` are put into the configuration, key by key; `tokens` ({application version: {token: endpoint ID}})
    makes the identity provider `static`, otherwise it is `open`. Ports stay the same over every restart.
    """

    command = "run"
    """The command of `kaa-gateway`."""

    def __init__(
        self,
        nats_url: str,
        changes: Mapping[str, Any] | None = None,
        *,
        tokens: Mapping[str, Mapping[str, str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-"))
        self._log = self._directory / "gateway.log"
        document = merged(configuration(), changes or {})
        if tokens is not None:
            path = self._directory / "tokens.yml"
            path.write_text(json.dumps({"endpoints": tokens}), encoding="utf-8")
            identity = {"provider": "static", "static": {"file": str(path)}}
            document = merged(document, {"kaa": {"kpc": {"identity": identity}}})
        # JSON is YAML.
        file = self.config_path = self._directory / "service-config.yml"
        self._document = document
        file.write_text(json.dumps(document), encoding="utf-8")
        transports = document["kaa"]["kpc"]["transports"]
        self._loopback = "::1" if ":" in transports["bind-address"] else HOST
        self.mqtt_port: int = transports["mqtt"]["tcp"]["port"]
        self.http_port: int = transports["http"]["port"]
        self.coap_port: int = transports["coap"]["port"]
        self.udp_port: int = transports["udp"]["port"]
        self.admin_port: int = document["server"]["port"]
        self._environment = {
            **os.environ,
            "APP_CONFIG_PATH": str(file),
            "NATS_URLS": nats_url,
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def document_with(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of its configuration, with changes put in; to be written to `config_path`."""
        changed: dict[str, Any] = json.loads(json.dumps(merged(self._document, changes)))
        return changed

    @property
    def log(self) -> str:
        """What the gateway has logged so far, over all its starts."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Process ID of the running gateway."""
        assert self._process is not None, "the gateway is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def rss(self) -> int:
        """Resident memory, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS in /proc/<pid>/status")

    def launch(self) -> None:
        """Start the process and return at once: without NATS, it is never ready."""
        assert self._process is None, "the gateway is already running"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kaa_gateway", self.command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Start the gateway and return when it serves devices."""
        self.launch()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the gateway did not start:\n{self.log}")
            time.sleep(POLL_S)

    def ready(self) -> bool:
        """Return whether it says that it serves devices."""
        try:
            return self._admin("/health/ready")[0] == 200
        except OSError:
            return False

    def metrics(self) -> Metrics:
        """Return the metrics now, by name without `kaa_gateway_` and `_total`, and by label values.

        Such as ("messages_in", "mqtt"), ("nats_up",), ("events", "closed", "mqtt_second_connect"); of several workers
        the sums.
        """
        sums: Metrics = {}
        for metrics in self.metrics_by_worker().values():
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def exposition(self) -> str:
        """Return the text of `/metrics`."""
        status, text = self._admin("/metrics")
        assert status == 200
        return text

    def metrics_by_worker(self) -> dict[str, Metrics]:
        """Return the metrics by the label `worker`, which is empty for those that are not of one worker.

        Those of several application versions are added up.
        """
        found: dict[str, Metrics] = defaultdict(lambda: defaultdict(float))
        for family in text_string_to_metric_families(self.exposition()):
            for sample in family.samples:
                labels = dict(sample.labels)
                worker = labels.pop("worker", "")
                labels.pop("app_version", None)
                name = sample.name.removeprefix("kaa_gateway_").removesuffix("_total")
                found[worker][name, *(labels[label] for label in sorted(labels))] += sample.value
        return found

    def count(self, *name: str) -> float:
        """Return one metric by its name in `metrics`; 0 if it has not happened yet."""
        return self.metrics().get(name, 0.0)

    def terminate(self) -> None:
        """Ask the gateway to drain and stop, with SIGTERM, and return at once."""
        assert self._process is not None, "the gateway is not running"
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int | None:
        """Stop as an operator does, with SIGTERM. Return the exit code, or None when it was not running."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not stop:\n{self.log}") from None
        self._process = None
        return code

    def kill(self) -> None:
        """End it as a crash does, with SIGKILL. Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start again, after stopping if it still runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the gateway and remove its files."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _admin(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._loopback, self.admin_port, timeout=ADMIN_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
