"""The example protocols of docs/examples/protocols, played by the driver, and the harness itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kaa_gateway.plugins import DeviceProtocol, Violation
from kaa_gateway.plugins.driver import Driver
from kaa_gateway.plugins.fuzzing import FuzzFailure, fuzz
from kaa_gateway.plugins.scaffold import write

from tests.support.example_protocols import gt06, modbus

LOGIN = bytes.fromhex("78780D01012345678901234500018CDD0D0A")
LOGIN_ANSWER = bytes.fromhex("787805010001D9DC0D0A")
POSITION = bytes.fromhex("78781F120B081D112E10CF027AC7EB0C46584900148F01CC00287D001FB8000380810D0A")
"""The examples of the protocol's document."""


def tracker() -> Driver:
    driver = Driver(gt06.Gt06)
    driver.feed(LOGIN)
    assert driver.asked == ["123456789012345"]
    assert driver.sent == []
    driver.accept_token()
    assert driver.sent.pop() == LOGIN_ANSWER
    driver.answer(b"[]")
    driver.published.clear()
    return driver


class TestGt06:
    def test_login_is_answered_when_the_imei_is_known(self) -> None:
        tracker()

    def test_a_position(self) -> None:
        driver = tracker()
        driver.feed(gt06.encode(gt06.HEARTBEAT, bytes([0x44, 6, 4, 0, 2]), 7))
        assert driver.sent.pop() == gt06.encode(gt06.HEARTBEAT, b"", 7)
        driver.feed(POSITION)
        (message,) = driver.published
        assert message.path == "dcx/json"
        assert json.loads(message.payload) == {
            "time": "2011-08-29T17:46:16+00:00", "latitude": 23.111668, "longitude": 114.409285,
            "speed": 0, "course": 143, "fixed": True, "battery": 6,
        }  # fmt: skip
        driver.confirm()
        assert driver.sent == []

    def test_an_alarm_is_answered_when_it_is_taken(self) -> None:
        driver = tracker()
        content = POSITION[4:-6] + bytes([8]) + bytes(8) + bytes([0x44, 6, 4, 1, 2])
        driver.feed(gt06.encode(gt06.ALARM, content, 9))
        assert json.loads(driver.published[-1].payload)["alarm"] == "sos"
        assert driver.sent == []
        driver.confirm()
        assert driver.sent == [gt06.encode(gt06.ALARM, b"", 9)]

    @pytest.mark.parametrize("path", ["/command/oil", "/command"])
    def test_a_command_and_its_result(self, path: str) -> None:
        driver = tracker()
        command: dict[str, Any] = {"id": 5, "payload": {"command": "DYD#"}}
        if path == "/command":
            command["type"] = "oil"
        assert driver.push(path, json.dumps([command]).encode())
        assert driver.sent.pop() == gt06.encode(gt06.COMMAND, b"\x08\0\0\0\x01DYD#\0\x01", 1)
        driver.feed(gt06.encode(gt06.REPLY, b"\x0c\0\0\0\x01DYD=OK!!\0\x02", 11))
        (result,) = driver.published
        assert result.path == "cex/result/oil"
        assert json.loads(result.payload) == [{"id": 5, "statusCode": 200, "payload": {"reply": "DYD=OK!!"}}]

    def test_commands_that_cannot_be_sent(self) -> None:
        driver = tracker()
        for payload in (b"", b"{}", b'[{"id": 1}]', b'[{"id":1,"payload":{"command":"\xc3\xbc"}}]', b"[1]"):
            assert not driver.push("/command/oil", payload)
        assert not driver.push("/config/json", b"[]")
        one = b'{"id":1,"payload":{"command":"A"}}'
        assert not driver.push("/command/oil", b"[" + b",".join([one] * 9) + b"]")
        assert driver.sent == []

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (LOGIN[:-4] + b"\0\0\r\n", "wrong_crc"),
            (b"ab" + LOGIN[2:], "no_start"),
            (LOGIN[:-1] + b"x", "no_stop"),
            (POSITION, "not_logged_in"),
            (gt06.encode(gt06.LOGIN, b"\xab" * 8, 1), "malformed_login"),
        ],
    )
    def test_violations(self, data: bytes, reason: str) -> None:
        driver = Driver(gt06.Gt06)
        driver.feed(data)
        assert driver.closed_by == reason


class TestModbus:
    def registered(self, **options: Any) -> Driver:
        driver = Driver(modbus.Modbus, options)
        driver.feed(modbus.encode(0, 1, modbus.REGISTRATION, b"meter-1"))
        assert driver.asked == ["meter-1"]
        driver.accept_token()
        return driver

    def test_registers_are_read_and_published(self) -> None:
        driver = self.registered(first=100, count=2, interval=5.0)
        assert driver.sent.pop() == bytes.fromhex("000100000006010300640002")
        assert driver.timer == 5.0
        driver.feed(modbus.encode(1, 1, modbus.READ_HOLDING_REGISTERS, bytes.fromhex("0400070102")))
        assert json.loads(driver.published[-1].payload) == {"r100": 7, "r101": 258}
        driver.run_timer()
        assert driver.sent.pop() == bytes.fromhex("000200000006010300640002")

    def test_a_register_is_written(self) -> None:
        driver = self.registered()
        driver.sent.clear()
        assert driver.push("/registers/5", b"258")
        assert driver.sent == [bytes.fromhex("000200000006010600050102")]
        for path, payload in (("/registers/x", b"1"), ("/registers/5", b"70000"), ("/command/x", b"1")):
            assert not driver.push(path, payload)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (bytes.fromhex("0001000100020103"), "not_modbus"),
            (bytes.fromhex("000100000000"), "wrong_length"),
            (modbus.encode(9, 1, modbus.READ_HOLDING_REGISTERS, b"\0"), "unexpected_response"),
        ],
    )
    def test_violations(self, data: bytes, reason: str) -> None:
        driver = self.registered()
        driver.feed(data)
        assert driver.closed_by == reason


class TestHarness:
    @pytest.mark.parametrize("protocol", [gt06.Gt06, modbus.Modbus])
    def test_good_protocols_pass(self, protocol: type[DeviceProtocol]) -> None:
        assert fuzz(protocol, runs_max=200, seed=7) == 200

    def test_a_fault_is_found_and_its_input_told(self) -> None:
        class Broken(gt06.Gt06):  # type: ignore[misc]
            def log_in(self, content: bytes, serial: int) -> None:
                raise KeyError(serial)

        with pytest.raises(FuzzFailure, match="KeyError") as failure:
            fuzz(Broken, runs_max=200)
        assert failure.value.stream

    def test_a_protocol_that_depends_on_the_cuts_is_found(self) -> None:
        class Cut(DeviceProtocol):
            reasons = ("odd",)

            def receive(self, message: bytes) -> None:
                if len(message) % 2:
                    raise Violation("odd")

        with pytest.raises(FuzzFailure, match="cut otherwise"):
            fuzz(Cut, runs_max=200)


class TestScaffold:
    def test_its_tests_pass(self, tmp_path: Path) -> None:
        directory = tmp_path / "my-tracker"
        names = [path.name for path in write("my-tracker", directory)]
        assert names == ["my_tracker.py", "test_my_tracker.py", "pyproject.toml", "README.md"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert "4 passed" in done.stdout

    @pytest.mark.parametrize("name", ["", "A", "mqtt", "class", "a b", "../x", "1a"])
    def test_names_that_cannot_be(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            write(name, tmp_path / "x")

    def test_a_directory_that_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is there already"):
            write("tracker", tmp_path)
