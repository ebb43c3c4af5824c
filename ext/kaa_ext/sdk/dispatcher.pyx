"""The way of one ClientData through an extension: decode it, find its handler, answer it.

A plain handler runs at once, without a task. The forms of handlers that need a task (async, streams, middleware) are in
execution.py, routing is in routes.py.

Source: 4/ESP "Extension Service Protocol".
"""

import asyncio
from collections import deque
from collections.abc import Awaitable
from types import CoroutineType

from libc.stdint cimport int64_t, uint8_t

from kaa_ext.sdk.request cimport Request, read_request
from kaa_ext.sdk.route cimport Route
from kaa_gateway.clock cimport monotonic, now_ms
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.esp cimport answer_size_max, put_answer

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from kaa_ext.sdk.errors import ExtensionError, NotDelivered, PayloadTooLarge
from kaa_ext.sdk.handlers import bind, is_stream, response_of
from kaa_ext.sdk.requests import INTERNAL_ERROR, NOT_FOUND, Response
from kaa_ext.sdk.routes import Routes
from kaa_gateway.bus.clock_skew import HELD_MAX_MS, TOLERANCE_MS
from kaa_gateway.errors import MalformedAvro

cdef enum:
    OK = 200
    BAD_REQUEST = 400     # the lowest status of an error
    SERVER_ERRORS = 500   # the first of the status codes for errors that are not the device's fault
    TURN = 256            # waiting requests that are begun in a turn of the event loop

cdef int64_t SKEW_TOLERANCE = TOLERANCE_MS  # milliseconds
cdef int64_t HELD_MAX = HELD_MAX_MS         # milliseconds


cdef class Dispatcher:
    """Handles the requests of one extension.

    At most `concurrency` requests are in progress. Further ones wait, in order; beyond `waiting_max` requests or
    `waiting_bytes_max` bytes they are dropped and counted.
    """

    def __init__(
        self, extension, dict stats not None, limited, str affinity not None, Py_ssize_t concurrency,
        Py_ssize_t waiting_max, Py_ssize_t waiting_bytes_max,
    ):
        from kaa_ext.sdk import execution  # it imports this module

        self.extension = extension
        self.execution = execution
        self.middleware = []
        self.traced = []
        self.observers = []
        self.routes = Routes()
        self.stats = stats
        self.limited = limited
        self.instance = extension.name.encode()
        self.affinity = affinity
        self.concurrency = concurrency
        self.waiting_max = waiting_max
        self.waiting_bytes_max = waiting_bytes_max
        self.tasks = set()
        self.queue = deque()

    def connect(self, send, room):
        """Set where answers go: `send(subject, datum, reply)`, and `room()`, awaited while they are held up."""
        self.send = send
        self.room = room

    def add(self, str resource_path not None, function, str respond not None):
        """Register a handler. Raise ValueError for a wrong pattern, TypeError for wrong parameters."""
        self.routes.add(resource_path, bind(function), respond, streams=is_stream(function))

    def add_batch(self, str resource_path not None, function, str respond not None):
        """Register a handler of lists of requests. Raise ValueError for a wrong pattern."""
        self.routes.add(resource_path, function, respond, batch=True)

    def add_middleware(self, function, bint only_traced):
        """Put a function around handlers, inside those that were added before."""
        self.traced.append(function)
        if not only_traced:
            self.middleware.append(function)

    def observe(self, observer):
        """Call a function with request, status code and reason phrase of each response that is an error."""
        self.observers.append(observer)

    @property
    def waiting(self):
        """Return how many requests wait for others to end."""
        return len(self.queue)

    def counts(self):
        """Return all that the extension has counted, by the names in stats.py."""
        return {
            **self.stats, "requests": self.requests, "responses": self.responses, "unanswered": self.unanswered,
        }

    # ------------------------------------------------------------ the hot path

    def take(self, bytes datum not None, str reply not None="", str trace_parent=None, stored=None):
        """Handle one ClientData. `reply` is the subject of the answer; `stored` is the StoredMessage that has it."""
        self.receive(datum, reply, trace_parent, stored)

    cdef int receive(self, bytes datum, str reply, str trace_parent, object stored) except -1:
        """Handle one ClientData, or let it wait."""
        cdef Request request
        try:
            request = read_request(datum, reply, trace_parent, stored)
        except MalformedAvro as error:
            self.stats["malformed"] += 1
            self.limited.warning(error.reason, "ClientData is malformed and dropped")
            if stored is not None:
                stored.done()
            return 0
        request.received_at = monotonic()
        if self.running < self.concurrency and not self.held and not self.queue:
            return self.begin(request)
        if len(self.queue) >= self.waiting_max or self.queued_bytes + len(datum) > self.waiting_bytes_max:
            self.stats["overrun"] += 1
            self.limited.warning("overrun", "messages come in faster than they are handled and are dropped")
            return 0
        self.queue.append(request)
        self.queued_bytes += len(datum)
        self.held_at = now_ms()
        return 0

    cdef int begin(self, Request request) except -1:
        """Find the handler of a request and run it."""
        cdef Route route
        cdef int64_t now = now_ms()
        if request.view.timestamp > now + SKEW_TOLERANCE:
            self.note_skew(request.view.timestamp - now)
        if request.view.timeout > 0 and request.view.timestamp + request.view.timeout < now:
            self.stats["expired"] += 1
            # Else it may have expired behind those that wait or have waited.
            if request.stored is None and not self.queue and now - self.held_at >= HELD_MAX:
                self.note_skew(request.view.timestamp - now)
            return self.done(request)
        found = self.routes.find(request.resource_path)
        if found is None:
            self.stats["not_found"] += 1
            self.answer(None, request, NOT_FOUND.status_code, None, NOT_FOUND.reason_phrase)
            return self.done(request)
        route, request.parameters = found
        request.route = route.pattern
        self.requests += 1
        if self.middleware or route.streams or (request.trace_parent is not None and self.traced):
            self.running += 1
            self.start(self.execution.handle(self, route, request))
            return 0
        if route.batch:
            self.running += 1
            return self.gather(route, request, None)
        return self.run(route, request)

    cdef int note_skew(self, int64_t difference) except -1:
        """Note a message whose timestamp the clock of this machine contradicts. `difference` is in milliseconds."""
        self.stats["clock_skew"] += 1
        self.limited.warning(
            "clock_skew",
            "the timestamp of a request is wrong: the clocks of two machines differ, or NATS held it up",
            seconds=difference / 1000.0,
        )
        return 0

    cdef int run(self, Route route, Request request) except -1:
        """Call a handler. Its result is the answer, or is awaited in a task."""
        try:
            result = route.handler(request)
            if isinstance(result, CoroutineType) or is_awaitable(result):
                self.running += 1
                self.start(self.execution.finish(self, route, request, result))
                return 0
            return self.conclude(route, request, result)
        except Exception as error:  # one bad handler must not take the service down
            self.fail(route, request, error)
            return 0

    cdef int conclude(self, Route route, Request request, object result) except -1:
        """Answer a request with the result of its handler. Raise what makes the result an error."""
        if type(result) is bytes:
            self.answer(route, request, OK, <bytes>result, None)
        else:
            if type(result) is not Response:
                result = response_of(result)
            self.answer(route, request, result.status_code, result.payload, result.reason_phrase)
        return self.done(request)

    cdef int answer(self, Route route, Request request, int status_code, bytes payload, str reason_phrase) except -1:
        """Send the answer to a request, unless nobody waits for it; `route` is None if there is no handler."""
        cdef str respond = "requested"
        if route is not None:
            route.count(status_code, monotonic() - request.received_at)
            respond = route.respond
        if status_code >= BAD_REQUEST and self.observers:
            self.tell(request, status_code, reason_phrase)
        if not request.view.has_request_id and respond != "always" \
                and not (respond == "errors" and status_code >= BAD_REQUEST):
            self.unanswered += 1
            return 0
        try:
            try:
                self.publish(request, status_code, payload, reason_phrase)
            except PayloadTooLarge:
                self.limited.warning("response_too_large", "response is larger than NATS takes")
                self.publish(request, INTERNAL_ERROR.status_code, None, INTERNAL_ERROR.reason_phrase)
        except NotDelivered as error:
            self.stats["undelivered"] += 1
            self.limited.warning("undelivered", "response was not delivered", error=str(error))
        except Exception as error:  # a fault of ours must not end the connection
            self.stats["failed"] += 1
            self.limited.warning(f"{type(error).__name__} of a response", "response was not sent", exc_info=error)
        else:
            self.responses += 1
        return 0

    cdef int tell(self, Request request, int status_code, str reason_phrase) except -1:
        """Call the observers of errors."""
        for observer in self.observers:
            try:
                observer(request, status_code, reason_phrase)
            except Exception as error:
                self.stats["failed"] += 1
                self.limited.warning(f"{type(error).__name__} of an observer", "observer failed", exc_info=error)
        return 0

    cdef int publish(self, Request request, int status_code, bytes payload, str reason_phrase) except -1:
        self.send(
            request.reply or self.extension.push_subject(),
            self.encode(request, status_code, payload, reason_phrase),
            self.affinity,
        )
        return 0

    cdef bytes encode(self, Request request, int status_code, bytes payload, str reason_phrase):
        """Return the ExtensionData of an answer."""
        cdef bytes reason = None if reason_phrase is None else reason_phrase.encode(errors="replace")
        cdef Slice instance = slice_of(self.instance), body = slice_of(payload), phrase = slice_of(reason)
        cdef bytes datum = PyBytes_FromStringAndSize(NULL, answer_size_max(&request.view, instance, body, phrase))
        cdef uint8_t* start = <uint8_t*>PyBytes_AS_STRING(datum)
        cdef uint8_t* end = put_answer(start, &request.view, now_ms(), instance, body, status_code, phrase)
        return datum[:end - start]

    # ------------------------------------------------------------ batches

    cdef int gather(self, Route route, Request request, object future) except -1:
        """Add a request to the batch of this turn; `future` gets its result, or None if it is the answer."""
        if not route.gathered:
            asyncio.get_running_loop().call_soon(self.run_batch, route)
        route.gathered.append((request, future))
        return 0

    def join(self, Route route not None, Request request not None):
        """Add a request to the batch of this turn. Return a future of its result."""
        future = asyncio.get_running_loop().create_future()
        self.gather(route, request, future)
        return future

    def run_batch(self, Route route not None):
        """Call a batch handler with the requests of this turn."""
        cdef list gathered = route.gathered
        route.gathered = []
        try:
            results = route.handler([request for request, _ in gathered])
            if isinstance(results, CoroutineType) or is_awaitable(results):
                self.start_batch(route, gathered, results)
                return
        except Exception as error:
            results = error
        self.finish_batch(route, gathered, results)

    def start_batch(self, Route route, list gathered, results):
        """Await the results of a batch in a task."""
        async def finish():
            try:
                found = await results
            except Exception as error:
                found = error
            await self.until_room()
            self.finish_batch(route, gathered, found)

        self.spawn(finish())

    def finish_batch(self, Route route not None, list gathered not None, results):
        """Answer the requests of a batch; `results` may be an error that is that of all."""
        cdef Request request
        cdef Py_ssize_t slots = 0
        if not isinstance(results, Exception) and results is not None and len(results) != len(gathered):
            results = TypeError(f"batch handler returned {len(results)} results for {len(gathered)} requests")
        for place in range(len(gathered)):
            request, future = gathered[place]
            result = results if results is None or isinstance(results, Exception) else results[place]
            if future is None:
                slots += 1
                try:
                    if isinstance(result, Exception):
                        raise result
                    self.conclude(route, request, result)
                except Exception as error:
                    self.fail(route, request, error)
            elif not future.done():
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self.release_slots(slots)

    # ------------------------------------------------------------ tasks

    def spawn(self, work):
        """Run a coroutine that a drain waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def start(self, work):
        """Run a request in its own task, which releases its slot at the end."""
        self.spawn(work).add_done_callback(self.release)

    def release(self, task):
        """Let the next requests begin, because one has ended."""
        self.release_slots(1)

    cdef int release_slots(self, Py_ssize_t count) except -1:
        self.running -= count
        if self.queue:
            self.resume()
        return 0

    def hold(self, bint full):
        """Begin no further requests while NATS does not take the answers."""
        self.held = full
        if not full and self.queue:
            self.resume_later()

    def resume(self):
        """Begin requests that wait, as many as may run."""
        cdef Request request
        cdef int begun = 0
        self.resuming = False
        while self.queue and self.running < self.concurrency and not self.held:
            if begun == TURN:
                self.resume_later()
                return
            begun += 1
            request = self.queue.popleft()
            self.queued_bytes -= len(request.datum)
            self.held_at = now_ms()
            self.begin(request)

    def resume_later(self):
        """Begin waiting requests in the next turn of the event loop."""
        if not self.resuming:
            self.resuming = True
            asyncio.get_running_loop().call_soon(self.resume)

    async def until_room(self):
        """Return when NATS takes answers, at once if it does."""
        if self.held:
            await self.room()

    # ------------------------------------------------------------ outcomes, for handlers with tasks too

    def finish(self, Route route not None, Request request not None, response not None):
        """Answer a request, and acknowledge it if it came from a stream."""
        self.answer(route, request, response.status_code, response.payload, response.reason_phrase)
        self.done(request)

    def fail(self, Route route not None, Request request not None, error not None):
        """Answer a request whose handler has failed, or have it delivered again."""
        response = self.failure(route, error)
        if not self.retried(request, error):
            self.finish(route, request, response)

    def respond(self, Route route not None, error not None):
        """Return the response for an error, which is counted and logged if it is not an ExtensionError."""
        return self.failure(route, error)

    def retry(self, Request request not None, error not None):
        """Have a request of a stream delivered again. Return False if that is no use."""
        return self.retried(request, error)

    cdef object failure(self, Route route, error):
        if isinstance(error, ExtensionError):
            return Response.of_error(error)
        self.stats["failed"] += 1
        self.limited.warning(f"{type(error).__name__} at {route.pattern}", "handler failed", exc_info=error)
        return INTERNAL_ERROR

    cdef int done(self, Request request) except -1:
        """Acknowledge a request that came from a stream."""
        if request.stored is not None:
            try:
                request.stored.done()
            except NotDelivered as error:
                self.limited.warning("unacknowledged", "a message will come again", error=str(error))
        return 0

    cdef bint retried(self, Request request, error) except -1:
        """Have a request of a stream delivered again after its handler failed. Return False if that is no use.

        A request that the device got wrong would fail again; only errors of ours may pass.
        """
        refused = isinstance(error, ExtensionError) and error.status_code < SERVER_ERRORS
        if request.stored is None or refused or request.stored.is_last_try:
            return False
        self.stats["retried"] += 1
        try:
            request.stored.retry()
        except NotDelivered as failure:
            self.limited.warning("unacknowledged", "a message will come again", error=str(failure))
        return True


cdef bint is_awaitable(result) except -1:
    """Return whether a result that is no coroutine is to be awaited. The usual results are not looked at twice."""
    kind = type(result)
    if kind is bytes or result is None or kind is Response or kind is dict or kind is list:
        return False
    return isinstance(result, Awaitable)
