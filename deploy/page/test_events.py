"""A web page of another origin (localhost, not 127.0.0.1) gets pushes as events, by the EventSource of a browser."""

from deploy.page.chromium import needs_chromium, page_of
from tests.support.esp import until
from tests.support.http_gateway import running_gateway
from tests.support.nats import HOST, NatsServer
from tests.support.waiting import PATH, present, push

pytestmark = needs_chromium


async def test_an_event_source_connects_again_when_a_stream_is_over(nats_server: NatsServer) -> None:
    """The gateway ends the first stream after three seconds; the browser asks again a second later."""
    async with (
        running_gateway(nats_server, allowed_origins=("*",)) as gateway,
        page_of(f"http://localhost:{gateway.port}/") as page,
    ):
        url = f"http://{HOST}:{gateway.port}{PATH}"
        await page.value(
            f"""
            window.seen = [];
            window.source = new EventSource("{url}?wait=3");
            source.onmessage = event => seen.push([event.lastEventId, JSON.parse(event.data).payload]);
            true
            """
        )
        for number in range(2):
            await gateway.extension.request()
            await until(lambda: present(gateway) > 1, "the stream to begin", 60)
            await push(gateway, payload=f"{number}".encode(), push_id=f"push-{number}")
            await page.until(f"seen.length == {number + 1}")
            await until(lambda: present(gateway) == 1, "the stream to end", 60)
        assert await page.value("seen") == [["push-0", "0"], ["push-1", "1"]]
        await page.value("source.close()")
