"""The forms of handlers that need a task: async ones, streams, and those with middleware around them."""

from collections.abc import AsyncIterator, Awaitable

from kaa_ext.sdk.dispatcher import Dispatcher
from kaa_ext.sdk.errors import NotDelivered
from kaa_ext.sdk.handlers import chain, first_of, response_of
from kaa_ext.sdk.requests import Request, Response, Result
from kaa_ext.sdk.route import Route


async def finish(dispatcher: Dispatcher, route: Route, request: Request, result: Awaitable[Result]) -> None:
    """Await the result of an async handler, and answer."""
    try:
        response = response_of(await result)
    except Exception as error:  # noqa: BLE001 - one bad handler must not take the service down
        await dispatcher.until_room()
        dispatcher.fail(route, request, error)
        return
    await dispatcher.until_room()
    dispatcher.finish(route, request, response)


async def handle(dispatcher: Dispatcher, route: Route, request: Request) -> None:
    """Handle a request whose handler has middleware around it, or streams."""
    stream: AsyncIterator[Result] | None = None
    failure: Exception | None = None

    async def innermost(request: Request) -> Response:
        nonlocal stream, failure
        try:
            if route.batch:
                return response_of(await dispatcher.join(route, request))
            result = route.handler(request)
            if route.streams:
                stream = result
                result = first_of(result)
            if isinstance(result, Awaitable):
                result = await result
            return response_of(result)
        except Exception as error:  # noqa: BLE001 - as above
            failure = error
            return dispatcher.respond(route, error)

    try:
        layers = dispatcher.middleware if request.trace_parent is None else dispatcher.traced
        response = response_of(await chain(layers, innermost)(request))
    except Exception as error:  # noqa: BLE001 - middleware may fail as well
        failure = error
        response = dispatcher.respond(route, error)
    if failure is not None and dispatcher.retry(request, failure):
        return
    await dispatcher.until_room()
    dispatcher.finish(route, request, response)
    if stream is not None:
        await _push_rest(dispatcher, stream, route, request)


async def _push_rest(
    dispatcher: Dispatcher, stream: AsyncIterator[Result], route: Route, request: Request
) -> None:
    """Push the items of a stream after the first, until it ends or the service drains."""
    try:
        async for item in stream:
            response = response_of(item)
            if request.endpoint_id is not None:
                await dispatcher.extension.push(
                    request.endpoint_id,
                    request.resource_path,
                    response.payload or b"",
                    app_version_name=request.app_version_name,
                    status_code=response.status_code,
                )
            if dispatcher.draining:
                break
    except NotDelivered as error:
        dispatcher.stats["undelivered"] += 1
        dispatcher.limited.warning("undelivered", "push was not delivered", error=str(error))
    except Exception as error:  # noqa: BLE001 - as above
        dispatcher.respond(route, error)
