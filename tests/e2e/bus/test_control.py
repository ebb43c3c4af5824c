"""The control connection to a real nats-server that wants a user name and a password."""

from kaa_gateway.bus.connector import TlsFiles
from kaa_gateway.bus.control import Control
from structlog.testing import capture_logs

from tests.support.esp import until
from tests.support.nats import HOST, NatsServer

ENCODED = "nats://us%40er:p%3As%2Fs@{}:{}"
AUTHORIZATION = 'authorization { user: "us@er", password: "p:s/s" }'


def control_of(*urls: str) -> Control:
    return Control(urls, name="test control", tls=TlsFiles(), credentials_file=None)


async def test_the_control_connection_takes_percent_encoded_names() -> None:
    with NatsServer(config=AUTHORIZATION) as server:
        control = control_of(ENCODED.format(HOST, server.port))
        control.start()
        try:
            await until(lambda: control.connected, "the control connection")
            assert control.last_error == ""
        finally:
            await control.stop()


async def test_a_control_connection_that_cannot_come_up_is_logged_once() -> None:
    with NatsServer(config=AUTHORIZATION) as server, capture_logs() as logs:
        control = control_of(f"nats://me:wr0ng@{HOST}:{server.port}")
        control.start()
        try:
            await until(lambda: control.last_error != "", "the failure")
            await until(lambda: server.log.count("authentication error") >= 2, "two attempts")
            assert not control.connected
        finally:
            await control.stop()
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert len({entry["error"] for entry in errors}) == len(errors) >= 1
