"""Keeps sessions in a JetStream stream, so that they outlive the worker that has them.

A session that has changed is written a moment later, so that several changes are one message. Only one message of a
session is under way at a time. Each is stored only after the one that its worker wrote or read last. A worker that has
been overtaken learns this way that another one has the session by now: of two, the one from the newer CONNECT remains.

What this is not: who has a session (directory.pyx), what a session is (kaa_gateway.mqtt), and the form of the messages
(stored_messages.py).

Source: NATS documentation, "JetStream wire API reference"; header Nats-Expected-Last-Subject-Sequence.
"""

import asyncio
import secrets
from collections import OrderedDict

import structlog

from kaa_gateway.clock cimport now_ms
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.nats cimport ServerMessage, append_publication

from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import STREAM_NOT_FOUND
from kaa_gateway.errors import UNDECODABLE
from kaa_gateway.fleet import stored_messages
from kaa_gateway.fleet.storage_report import StorageReport
from kaa_gateway.fleet.stored_messages import Addition, Removal, Snapshot
from kaa_gateway.wire.nats import encode_publish_head

log = structlog.get_logger("gateway.fleet")

cdef enum:
    WRITES_MAX = 1000          # under way
    WRITES_PER_CALL = 50
    ADDITIONS_MAX = 50         # after which a Snapshot is written, so that a session is loaded with few requests
    ADDITIONS_LOADED_MAX = 2000  # a large queue makes more than that of a session's last write
    REMOVALS_MAX = 10_000      # of sessions that this worker does not have
    LOST_PER_CALL = 1000       # sessions that the stream has lost
    REMOVAL_SECONDS = 3600     # for which the stream says that a session has ended
    OVERHEAD = 1024            # bytes of a message beside the state in it
    WRONG_LAST_SEQUENCE = 10071  # JetStream error code

cdef double WINDOW = 0.1         # seconds for which changes of a session are gathered
cdef double ANSWER_TIMEOUT = 5.0  # seconds
cdef double RETRY_PAUSE = 1.0    # seconds until another attempt after a failure
cdef double RENEWAL = 1800.0     # seconds after which a session that does not change is written again
cdef double FINISH_POLL = 0.01   # seconds

cdef str MISSING = "the stream is not there, or has no leader"
cdef str SILENT = "JetStream does not answer"


cdef class StoredSession:
    """A session in the stream; a base class whose methods do nothing."""

    cdef bytes take(self, Py_ssize_t size_max):
        """Return the state of at most so many bytes that a Snapshot is to have; None if none is to be written.

        Set `unsent` to what is to be written behind it, each of at most so many bytes. The session counts as written.
        """
        return None

    cdef int64_t ends(self) except -1:
        """Return when the session expires, in ms since the epoch; 0 while its client is online."""
        return 0

    cdef int64_t seconds(self) except -1:
        """Return for how many seconds the stream keeps what is written now."""
        return REMOVAL_SECONDS

    cdef int on_stored(self) except -1:
        """Note that the stream has what was taken."""
        return 0

    cdef int on_not_stored(self) except -1:
        """Note that all is to be written again."""
        return 0

    cdef int supersede(self) except -1:
        """Discard the session: the stream has a newer one."""
        return 0


cdef class StorageRequest:
    """A request to JetStream whose answer has not come yet."""


cdef class SessionStorage(Receiver):
    """A worker's access to the stream."""

    def __init__(
        self, Link link not None, Counters counters not None, restore not None, *, str instance not None,
        str replica_id not None, str domain=None,
    ):
        self.link = link
        self.loop = link.loop
        self.counters = counters
        self.restore = restore
        self.instance = instance
        self.inbox = stored_messages.inbox_prefix(replica_id)
        self.lookup_subject = subjects.jetstream(domain, f"STREAM.MSG.GET.{stored_messages.stream_of(instance)}")
        self.changed = {}
        self.removals = {}
        self.pending = OrderedDict()
        self.written_at = OrderedDict()
        self.last_token = secrets.randbits(60)
        self.out = Buffer()
        self.report = StorageReport(stored_messages.stream_of(instance))
        self.lost = []
        self.loads = dict.fromkeys(("found", "nothing", "expired", "malformed", "failed"), 0)
        link.subscribe(self.inbox + "*", self)

    def waiting(self):
        """Return the number of sessions whose last change is not stored yet."""
        return len(self.changed) + self.writes

    # ------------------------------------------------------------ for the sessions of this worker

    cdef int mark(self, StoredSession stored) except -1:
        """Note that a session has changed. Hot path."""
        if stored.changed or stored.closed:
            return 0
        stored.changed = True
        return 0 if stored.writing else self.wait(stored)

    cdef int wait(self, StoredSession stored) except -1:
        """Let a session wait to be written."""
        self.changed[stored] = None
        return self.schedule(RETRY_PAUSE if self.failing else WINDOW)

    cdef int schedule(self, double pause) except -1:
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_later(pause, self.flush)
        return 0

    cdef int forget(self, StoredSession stored) except -1:
        """Write nothing more of a session: another worker has it."""
        stored.closed = True
        self.changed.pop(stored, None)
        self.written_at.pop(stored, None)
        return 0

    cdef int remove(self, StoredSession stored) except -1:
        """Write that a session has ended."""
        self.forget(stored)
        stored.gone = stored.changed = True
        return 0 if stored.writing else self.wait(stored)

    cdef int remove_older(self, str name, uint64_t number) except -1:
        """Remove a session from before the CONNECT with this number, if the stream has one."""
        cdef StoredSession stored = self.removals.get(name)
        if stored is not None:
            stored.number = max(number, stored.number)
            return 0
        if len(self.removals) >= REMOVALS_MAX:
            return self.counters.count("dropped", "session_removal")
        stored = StoredSession()
        stored.name = name
        stored.number = number
        self.removals[name] = stored
        return self.remove(stored)

    def write_all_again(self):
        """Write all sessions again, because the stream has lost them; a part of them with each `check`."""
        self.lost = list(self.written_at)
        self.last_sequence = 0
        return len(self.lost)

    cdef int write_lost(self) except -1:
        """Write some of the sessions again that the stream has lost."""
        cdef StoredSession stored
        cdef int _
        for _ in range(LOST_PER_CALL):
            if not self.lost:
                return 0
            stored = self.lost.pop()
            if stored.closed:
                continue
            if not stored.writing:
                stored.revision = 0
            stored.on_not_stored()
            self.mark(stored)
        return 0

    cdef int load(self, str name, done) except -1:
        """Look for a session. Call `done` with its state and the number of its CONNECT, or with None and 0."""
        cdef StorageRequest request = self.new_request(name)
        request.done = done
        request.question = stored_messages.last_request(request.subject)
        return self.ask(request)

    # ------------------------------------------------------------ writing

    def flush(self):
        """Write what has changed, as much as may be under way, and no more than a slice at once."""
        cdef StoredSession stored
        cdef int _
        self.flush_scheduled = False
        for _ in range(WRITES_PER_CALL):
            if not (self.link.ready and self.changed and self.writes < WRITES_MAX):
                return
            stored = next(iter(self.changed))
            del self.changed[stored]
            self.write(stored)
        self.schedule(0)

    cdef int write(self, StoredSession stored) except -1:
        """Write a session, or its removal."""
        cdef Py_ssize_t size_max = self.link.payload_max - OVERHEAD
        cdef bytes state = None
        stored.changed = False
        if stored.gone:
            return self.compare(stored) if stored.revision == 0 else self.publish_removal(stored)
        if stored.additions >= ADDITIONS_MAX:
            stored.base = 0
        state = stored.take(size_max)
        if state is None and not stored.unsent:
            return stored.on_stored()
        if state is not None and len(state) > size_max:
            return self.withdraw(stored, len(state))
        stored.writing = True
        self.writes += 1
        return self.send(stored, state)

    cdef int withdraw(self, StoredSession stored, Py_ssize_t size) except -1:
        """Remove a session from the stream until its state fits, so that no older state of it comes back."""
        stored.base = 0
        stored.unsent = None
        stored.on_not_stored()
        self.counters.count("dropped", "session_state_too_large")
        if stored.withdrawn:
            return 0
        stored.withdrawn = True
        log.warning("a session is too large to be stored", client=stored.client, size=size)
        return self.publish_removal(stored)

    cdef int publish_removal(self, StoredSession stored) except -1:
        stored.writing = True
        self.writes += 1
        return self.publish(stored, Removal(stored.number), True)

    cdef int send(self, StoredSession stored, bytes state) except -1:
        """Write a Snapshot with this state, or the next Addition if that is None."""
        if state is not None:
            stored.base = 0
            stored.withdrawn = False
            return self.publish(stored, Snapshot(stored.number, stored.ends(), state), True)
        stored.additions += 1
        return self.publish(
            stored, Addition(stored.number, stored.base, stored.ends(), stored.unsent.pop(0)), False
        )

    cdef int publish(self, StoredSession stored, message, bint replaces) except -1:
        """Publish a message of a session's subject."""
        cdef StorageRequest request = self.new_request(stored.name)
        request.stored = stored
        return self.put(
            request, request.subject,
            stored_messages.header(
                stored.revision, REMOVAL_SECONDS if stored.gone else stored.seconds(), replaces=replaces
            ),
            stored_messages.encode(message),
        )

    cdef int compare(self, StoredSession stored) except -1:
        """Ask what the stream has of a session, before it is written."""
        cdef StorageRequest request = self.new_request(stored.name)
        stored.writing = True
        self.writes += 1
        request.stored = stored
        request.compares = True
        request.question = stored_messages.last_request(request.subject)
        return self.ask(request)

    cdef int ask(self, StorageRequest request) except -1:
        """Ask JetStream for a message of the stream."""
        return self.put(request, self.lookup_subject, b"", request.question)

    cdef StorageRequest new_request(self, str name):
        cdef StorageRequest request = StorageRequest()
        self.last_token += 1
        request.token = f"{self.last_token:x}"
        request.subject = stored_messages.stream_subject(self.instance, name)
        return request

    cdef int put(self, StorageRequest request, str subject, bytes header, bytes payload) except -1:
        """Publish a request at the end of the tick."""
        request.deadline = self.loop.time() + ANSWER_TIMEOUT
        self.pending[request.token] = request
        self.pending.move_to_end(request.token)
        append_publication(
            self.out, encode_publish_head(subject, self.inbox + request.token), slice_of(header), slice_of(payload)
        )
        if not self.send_scheduled:
            self.send_scheduled = True
            self.loop.call_soon(self.send_all)
        return 0

    def send_all(self):
        """Write the requests of this tick. If NATS is lost, they are made again."""
        self.send_scheduled = False
        if self.link.ready and self.out.size:
            self.link.write_beside(self.out.copy())
        self.out.size = 0

    # ------------------------------------------------------------ what JetStream says

    cdef int on_message(self, const ServerMessage* message) except -1:
        cdef bytes subject = message.subject.data[:message.subject.size]
        cdef bytes answer = message.payload.data[:message.payload.size]
        cdef StorageRequest request = self.pending.pop(subject.rpartition(b".")[2].decode("ascii", "replace"), None)
        if request is None:
            return 0  # it was given up
        if request.stored is not None and not request.compares:
            return self.receive_ack(request, answer)
        try:
            found = stored_messages.read_lookup(answer)
        except UNDECODABLE:
            found = stored_messages.Lookup()
        if request.compares:
            return self.receive_comparison(request, found)
        return self.receive_loaded(request, found)

    cdef int receive_ack(self, StorageRequest request, bytes answer) except -1:
        """Handle that the stream has stored a message, or has not."""
        cdef StoredSession stored = request.stored
        if stored.closed and not stored.gone:
            stored.writing = False
            self.writes -= 1
            return 0
        try:
            ack = stored_messages.read_ack(answer)
        except UNDECODABLE:
            ack = stored_messages.PubAck()
        if ack.error is not None and ack.error.get("err_code") == WRONG_LAST_SEQUENCE:
            self.writes -= 1
            stored.unsent = None
            stored.on_not_stored()
            return self.compare(stored)
        if ack.error is not None or ack.seq == 0:
            return self.fail(stored, ack.trouble)
        self.written += 1
        self.failing = False
        self.last_sequence = max(self.last_sequence, <uint64_t>ack.seq)
        stored.revision = ack.seq
        if stored.closed or stored.withdrawn:
            return self.end_write(stored)
        if stored.base == 0:
            stored.base = ack.seq
            stored.additions = 0
            self.written_at[stored] = self.loop.time()
            self.written_at.move_to_end(stored)
        if stored.unsent:
            return self.send(stored, None)
        self.end_write(stored)
        return stored.on_stored()

    cdef int end_write(self, StoredSession stored) except -1:
        """Note that nothing of a session is under way any more. What has changed meanwhile is written next."""
        stored.writing = False
        self.writes -= 1
        if stored.changed:
            return self.wait(stored)
        if stored.gone and self.removals.get(stored.name) is stored:
            del self.removals[stored.name]
        return self.schedule(WINDOW) if self.changed else 0

    cdef int fail(self, StoredSession stored, str trouble) except -1:
        """Write a session again in a while."""
        self.counters.count("dropped", "session_not_stored")
        self.failing = True
        self.report.fail(trouble, self.loop.time())
        return self.write_later(stored, RETRY_PAUSE)

    cdef int write_later(self, StoredSession stored, double pause) except -1:
        """Write all of a session again, because it is not known what of it the stream has."""
        stored.writing = False
        self.writes -= 1
        stored.base = 0
        stored.withdrawn = False
        stored.unsent = None
        if stored.closed and not stored.gone:
            return 0
        stored.on_not_stored()
        stored.changed = True
        self.changed[stored] = None
        return self.schedule(pause)

    cdef int receive_comparison(self, StorageRequest request, found) except -1:
        """Write a session whose last message the stream did not expect, unless the stream has a newer session."""
        cdef StoredSession stored = request.stored
        if found.message is None and not found.is_nothing:
            return self.fail(stored, found.trouble)
        stored.base = stored.revision = 0
        stored.withdrawn = False
        stored.changed = True
        if found.message is not None:
            message = stored_messages.decode(found.message.data)
            stored.revision = found.message.seq
            if message is not None and message.number > stored.number:
                stored.changed = False
            elif stored.gone and type(message) is Removal:
                stored.changed = False
        elif stored.gone:
            stored.changed = False
        if stored.closed and not stored.gone:
            stored.changed = False
        self.end_write(stored)
        return 0 if stored.changed or stored.closed else stored.supersede()

    # ------------------------------------------------------------ loading

    cdef int receive_loaded(self, StorageRequest request, found) except -1:
        """Handle a message of a session that is loaded: first its last one, then the Snapshot and what follows it."""
        if found.message is None:
            if found.is_nothing:
                return self.end_load(request, "nothing", None, 0)
            self.report_missing(found)
            return self.end_load(request, "failed", None, 0)
        message = stored_messages.decode(found.message.data)
        if request.last == 0:
            request.last = found.message.seq
            if type(message) is Removal:
                return self.end_load(request, "nothing", None, 0)
            if type(message) is Addition:
                return self.ask_from(request, message.base)
        if request.snapshot is None and type(message) is Snapshot:
            request.snapshot = message
            request.base = found.message.seq
            request.additions = []
        elif request.snapshot is not None and type(message) is Addition and message.base == request.base \
                and found.message.seq >= request.next and len(request.additions) < ADDITIONS_LOADED_MAX:
            request.additions.append(message.data)
        else:
            return self.end_load(request, "malformed", None, 0)
        if found.message.seq < request.last:
            return self.ask_from(request, found.message.seq + 1)
        if 0 < message.ends < now_ms():
            return self.end_load(request, "expired", None, 0)
        state = self.restore(request.snapshot.state, request.additions, found.message.seq)
        return self.end_load(request, "malformed" if state is None else "found", state, message.number)

    cdef int ask_from(self, StorageRequest request, uint64_t sequence) except -1:
        """Ask for the next message of a session that is loaded."""
        request.next = sequence
        request.question = stored_messages.next_request(request.subject, sequence)
        return self.ask(request)

    cdef int end_load(self, StorageRequest request, str result, bytes state, uint64_t number) except -1:
        """End the search for a session."""
        self.loads[result] += 1
        request.done(state, 0 if state is None else number)
        return 0

    # ------------------------------------------------------------ time, and the connection to NATS

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        """Handle that the stream is not there, or JetStream."""
        cdef str token = reply.data[:reply.size].decode("ascii", "replace").rpartition(".")[2]
        cdef StorageRequest request = self.pending.pop(token, None)
        if request is not None:
            self.give_up(request, MISSING)
            self.call_missing()
        return True

    cdef int give_up(self, StorageRequest request, str trouble) except -1:
        """End a request that is not answered."""
        if request.stored is None:
            return self.end_load(request, "failed", None, 0)
        return self.fail(request.stored, trouble)

    cdef int report_missing(self, found) except -1:
        """Have the stream made if an answer says that it is not there."""
        if (found.error or {}).get("err_code") == STREAM_NOT_FOUND:
            return self.call_missing()
        return 0

    cdef int call_missing(self) except -1:
        if self.on_missing is not None:
            self.on_missing()
        return 0

    def check(self):
        """Give up what is not answered, and write sessions again before the stream drops them; call ten times a second.
        """
        cdef StorageRequest request
        cdef StoredSession stored
        cdef double now = self.loop.time()
        while self.pending:
            request = next(iter(self.pending.values()))
            if request.deadline > now:
                break
            del self.pending[request.token]
            self.give_up(request, SILENT)
        if not self.failing:
            self.report.check(now)
        self.write_lost()
        while self.written_at:
            stored, written_at = next(iter(self.written_at.items()))
            if now - written_at < RENEWAL:
                break
            self.written_at[stored] = now
            self.written_at.move_to_end(stored)
            if stored.ends() == 0:
                stored.on_not_stored()
                self.mark(stored)

    cdef int on_connected(self) except -1:
        """Ask again what was asked over the last connection."""
        cdef StorageRequest request
        pending, self.pending = self.pending, OrderedDict()
        self.out.size = 0
        self.call_missing()  # it may have been lost with a server
        for request in pending.values():
            if request.stored is None:
                self.ask(request)
            else:
                self.write_later(request.stored, WINDOW)
        return self.schedule(WINDOW) if self.changed else 0

    async def finish(self, double deadline):
        """Return when all changes are stored, NATS is away, or at `deadline`, a loop time."""
        while self.link.ready and self.waiting() and self.loop.time() < deadline:
            await asyncio.sleep(FINISH_POLL)
        if self.waiting():
            log.warning("the last changes of sessions are not stored", sessions=self.waiting())
