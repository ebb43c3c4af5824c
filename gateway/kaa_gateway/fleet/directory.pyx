"""Who has a session: the workers of a service instance, on all machines, agree over NATS.

Each session that its client may find again has a subject, to which the worker subscribes that has it. A CONNECT makes
its worker subscribe to the subject and publish a claim there. If nobody else subscribes, NATS says so at once (no
responders). A worker that has the session ends its connection, and answers with its state, or that there is none.

Each CONNECT has a number: the time, and which worker. The highest number wins everywhere: a worker with a higher number
does not give its session away, but answers with that number, and the other gives up its own. This decides between
CONNECTs at the same time, and between sessions that arose while NATS was away.

What lives here: the entries of a worker, and what its claims and those of others mean. Beside it are how long claims
wait (claims), the subscriptions (session_subjects), the numbers (connect_numbers), who else is there (other_workers),
what they are told without being asked (assertions), the state that moves (transfers), and the sessions of a worker that
stops (offers). What a session is, and its state as bytes, is in kaa_gateway.mqtt.

Source: MQTT 3.1.1 section 3.1.4 and MQTT 5 section 3.1.4 (a client is there once); NATS, "no responders".
"""

from functools import partial

from cpython.unicode cimport PyUnicode_DATA
from libc.stdint cimport uint8_t

from kaa_gateway.fleet.session_subjects cimport FIRST_SID
from kaa_gateway.fleet.transfers cimport COMPLETE, INCOMPLETE, MALFORMED, Progress
from kaa_gateway.wire.blake2b cimport blake2b
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.text cimport DECIMAL_DIGITS_MAX, put_decimal

from kaa_gateway.errors import UNDECODABLE
from kaa_gateway.fleet import messages
from kaa_gateway.fleet.messages import Assertion, Bye, Claim, Forwarded, Hello, Newer, Nothing, Notice, Offer, State

cdef extern from "<Python.h>":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept

cdef enum:
    NAME_BYTES = 16                # of the digest that is a session's name
    TEXT_KEEP = 1024               # bytes of memory that are kept for the text of the next one
    MAX_ASCII = 127

cdef const char* HEX_DIGITS = b"0123456789abcdef"
cdef Buffer text = Buffer()        # whose digest a name is, under construction


def session_name(str kind not None, *parts):
    """Return the name that a client's session has in the directory: a digest, since a client chooses the parts."""
    return name_of(kind, parts)


cdef str name_of(str kind, tuple parts):
    """Return what `session_name` does, for native code."""
    cdef uint8_t[NAME_BYTES] digest
    cdef str part
    cdef uint8_t* at
    cdef bint is_first = True
    text.size = 0  # an exception may have left something
    append_utf8(text, kind)
    for part in parts:
        at = text.reserve(1 + DECIMAL_DIGITS_MAX)
        at[0] = c" " if is_first else c","
        text.size = put_decimal(at + 1, len(part)) - text.data
        is_first = False
    text.append(b" ", 1)
    for part in parts:
        append_utf8(text, part)
    blake2b(text.data, text.size, digest, NAME_BYTES)
    text.clear(TEXT_KEEP)
    return hex_of(digest)


cdef str hex_of(const uint8_t* digest):
    """Return the hexadecimal digits of a name."""
    cdef object name = PyUnicode_New(2 * NAME_BYTES, MAX_ASCII)
    cdef uint8_t* at = <uint8_t*>PyUnicode_DATA(name)
    cdef int i
    for i in range(NAME_BYTES):
        at[2 * i] = <uint8_t>HEX_DIGITS[digest[i] >> 4]
        at[2 * i + 1] = <uint8_t>HEX_DIGITS[digest[i] & 15]
    return <str>name


cdef int append_utf8(Buffer out, str text) except -1:
    """Append a text in UTF-8. It may have surrogates, which a client of MQTT-SN can send."""
    cdef bytes encoded
    if PyUnicode_IS_COMPACT_ASCII(text):
        return out.append(PyUnicode_DATA(text), len(text))
    encoded = text.encode("utf-8", "surrogatepass")
    return out.append(<const char*>encoded, len(encoded))


cdef class SessionDirectory(Receiver):
    """A worker's part of the directory. `timeout` is the time in seconds that a CONNECT waits for another worker."""

    def __init__(
        self, Link link not None, slices, Counters counters not None, *, str instance not None, str replica_id not None,
        double timeout,
    ):
        self.link = link
        self.loop = link.loop
        self.counters = counters
        self.prefix = messages.session_prefix(instance)
        self.inbox = messages.inbox_prefix(replica_id)
        self.greetings = self.inbox + messages.HELLO
        self.entries = {}
        self.claims = Claims(timeout, self.loop.time())
        self.servers = frozenset()
        self.outbox = Outbox(link, counters)
        self.numbers = ConnectNumbers()
        self.others = OtherWorkers(self.outbox, self.numbers, self.prefix + messages.HELLO, self.greetings)
        self.subjects = SessionSubjects(self.outbox, self.prefix)
        self.assertions = Assertions(slices, self.outbox, self.others, self.entries, self.tell)
        self.transfers = Transfers(self.outbox, counters)
        link.subscribe(self.prefix + messages.HELLO, self)
        link.subscribe(self.inbox + "*", self)
        link.set_numbered(self, FIRST_SID)

    def set_storage(self, SessionStorage storage):
        """Set the stream in which sessions outlive their workers; once, before the start."""
        self.storage = storage

    def set_timeout(self, double timeout):
        """Set the time that CONNECTs wait from now on."""
        self.claims.timeout = timeout

    def entry_count(self):
        """Return the number of sessions that this worker has in the directory."""
        return len(self.entries)

    # ------------------------------------------------------------ for the sessions of this worker

    cdef bint begin(self, DirectoryEntry entry, bint resumes) except -1:
        """Give an entry the number of a new CONNECT, and claim it from other workers.

        Return whether to wait until the entry is `resolved`, `lost` or handed over.
        """
        if entry.claim is not None or entry.yielded_to is not None:
            entry.number = self.numbers.next()
            if entry.yielded_to is None:
                entry.claim.number = entry.number
                self.assertions.note(entry)
            return True  # if it is given away, it is claimed again then
        self.enter(entry)
        if not self.others.alone and self.link.ready and self.loop.time() >= self.claims.silent_until:
            self.claim(entry, resumes)
            return True
        result = "alone" if self.others.alone else "away"
        if self.may_be_stored(entry, resumes):
            self.look_up(self.claims.add(entry, resumes), result)
            return True
        self.transfers.came_back(entry.name)
        self.claims.count(result)
        return False

    cdef int claim(self, DirectoryEntry entry, bint resumes) except -1:
        """Claim an entry from other workers."""
        return self.send_claim(self.claims.add(entry, resumes))

    cdef bint may_be_stored(self, DirectoryEntry entry, bint resumes) except -1:
        """Return whether an entry that no worker has may be in the stream of sessions."""
        return self.storage is not None and resumes and self.link.ready and not entry.holds()

    cdef int look_up(self, PendingClaim claim, str result) except -1:
        """Look for the session of a claim in the stream: `result` says why other workers do not have it."""
        claim.result = result
        self.claims.wait_anew(claim)
        return self.storage.load(claim.entry.name, partial(self.found, claim))

    def found(self, PendingClaim claim not None, state, uint64_t number):
        """End a claim with what the stream has, unless it has ended."""
        if self.claims.get(claim.token) is claim:
            self.resolve(claim, claim.result if state is None else "stored", state, number)

    cdef int adopt(self, DirectoryEntry entry, uint64_t number) except -1:
        """Claim an entry from a worker that stops, whose session is from the CONNECT with this number."""
        entry.number = self.numbers.after(number)  # so that any CONNECT since then is newer
        self.join(entry)
        return self.claim(entry, True)

    cdef int send_claim(self, PendingClaim claim) except -1:
        """Publish a claim, to be answered on a subject of its own: to where the session went from here, or to all."""
        destination = None if claim.asks_all else self.transfers.destination(claim.entry.name)
        claim.direct_asks += destination is not None
        return self.publish(
            destination or self.prefix + claim.entry.name, self.inbox + claim.token, self.message_of(claim)
        )

    cdef object message_of(self, PendingClaim claim):
        """Return a claim as a message."""
        return Claim(
            claim.entry.name, claim.number, claim.resumes, claim.entry.holds(), self.inbox + claim.token
        )

    def tell(self, DirectoryEntry entry not None):
        """Tell other workers that this one has a session, or claims it.

        The claim may not have reached the worker that has the session, and that worker not us, if it got the session
        a moment ago.
        """
        if entry.claim is not None and entry.claim.result is None:
            self.publish(self.prefix + entry.name, None, self.message_of(entry.claim))
        else:
            self.publish(self.prefix + entry.name, None, Assertion(entry.name, entry.number, self.greetings))

    cdef int announce(self, DirectoryEntry entry) except -1:
        """Give an entry the number of a new CONNECT, and tell other workers, without waiting for an answer."""
        self.enter(entry)
        return self.notify(entry.name, entry.number)

    cdef int enter(self, DirectoryEntry entry) except -1:
        """Give an entry the number of a new CONNECT, and let other workers find it."""
        entry.number = self.numbers.next()
        self.assertions.note(entry)
        return self.join(entry)

    cdef int notify(self, str name, uint64_t number) except -1:
        """Tell the worker that has a session, if there is one, of a CONNECT that does not claim it."""
        if self.others.alone or not self.link.ready:
            return 0
        return self.publish(self.prefix + name, None, Notice(name, number, self.greetings))

    cdef int join(self, DirectoryEntry entry) except -1:
        """Put an entry into the directory, if it is not there."""
        if entry.sid == 0:
            entry.sid = self.subjects.join(entry.name)
            self.entries[entry.name] = entry
        return 0

    cdef int leave(self, DirectoryEntry entry) except -1:
        """Take an entry out of the directory: its session has ended."""
        cdef uint32_t sid = self.take_out(entry)
        return self.subjects.leave(sid) if sid else 0

    cdef uint32_t take_out(self, DirectoryEntry entry) except? 0:
        """Forget an entry. Return the ID of its subscription, or 0 if it is not in the directory."""
        cdef uint32_t sid = entry.sid
        if sid:
            if entry.claim is not None:
                self.claims.forget(entry.claim)
            del self.entries[entry.name]
            entry.sid = 0
        return sid

    cdef int give(self, DirectoryEntry entry, bytes state, uint64_t number) except -1:
        """Send the worker to which an entry has yielded what there is, and take the entry out of the directory.

        If a client waits here by now, it is claimed back.
        """
        cdef bint had = state is not None or not entry.yields_nothing
        cdef uint32_t sid = self.take_out(entry)
        inbox = entry.yielded_to
        entry.yielded_to = None
        if sid:
            if had:
                self.subjects.leave_later(entry.name, sid)
            else:
                self.subjects.leave(sid)
        self.transfers.give(entry.name, inbox, state, number, had)
        if not entry.is_wanted():
            return entry.left()
        return 0 if self.begin(entry, True) else entry.resolved(None, 0)

    cdef bint forward(self, message) except -1:
        """Send a message after the session that it is for, or deliver it if that is here.

        Return False if nobody knows where the session is, or does not take it.
        """
        cdef DirectoryEntry entry = self.entries.get(message.name)
        if entry is not None and entry.holds():
            self.transfers.messages["in"] += 1
            return entry.receive_forwarded(message)
        return self.transfers.forward(message)

    # ------------------------------------------------------------ from other workers

    cdef int on_message(self, const ServerMessage* message) except -1:
        """Handle a message of another worker, on the subject of a session or of answers."""
        cdef bytes subject = message.subject.data[:message.subject.size]
        try:
            received = messages.decode(message.payload.data[:message.payload.size])
        except UNDECODABLE:
            return self.counters.count("dropped", "session_message_malformed")
        kind = type(received)
        if kind is Claim:
            return self.receive_claim(received)
        if kind is Forwarded:
            if self.forward(received):
                return 0
            return self.counters.count("dropped", "no_session")
        if kind is State or kind is Nothing:
            return self.receive_state(subject.rpartition(b".")[2].decode("ascii", "replace"), received)
        self.numbers.observe(received.number)
        if kind is Hello:
            return self.receive_hello(received)
        if kind is Bye:
            return self.others.remove(received.inbox)
        if kind is Offer:
            if self.on_offer is not None and not self.others.stopping and self.link.ready:
                self.on_offer(received)
            return 0
        return self.receive_news(received)

    cdef int receive_hello(self, message) except -1:
        """Note that another worker is there.

        One that appears is told of all entries: it may have been there before, on the other side of a NATS cluster that
        had fallen apart.
        """
        cdef bint was_alone = self.others.alone
        if message.asks and not self.others.stopping:
            self.others.answer(message.inbox)
        if not self.others.note(message.inbox):
            self.counters.count("dropped", "too_many_workers")
        if not was_alone:
            return 0
        self.others.say_hello()
        return self.assertions.tell_all_twice()

    cdef int receive_news(self, message) except -1:
        """Handle a Notice, an Assertion or a Newer."""
        cdef DirectoryEntry entry = self.entries.get(message.name)
        if entry is None:
            return 0
        if message.number < (entry.number if entry.claim is None else entry.claim.number):
            if isinstance(message, Assertion) and entry.claim is not None and entry.claim.result is None:
                self.send_claim(entry.claim)  # which that worker has not heard of: it was not connected to NATS
            elif not isinstance(message, Newer):
                self.publish(message.inbox, None, Newer(entry.name, entry.number))
            elif entry.claim is not None:
                self.send_claim(entry.claim)  # for it was about an older CONNECT than the one that waits by now
        elif isinstance(message, Notice):
            entry.notice()
        elif entry.claim is not None:
            # It has lost to a session which is there already, and which has no use for another state.
            entry.lose()
            self.resolve(entry.claim, "lost", None, 0)
            if entry.sid and entry.yielded_to is None:
                entry.supersede()
        elif entry.yielded_to is None:
            entry.supersede()
        return 0

    cdef int receive_claim(self, message) except -1:
        """Give a session to the worker that claims it, unless the CONNECT here is newer."""
        cdef DirectoryEntry entry = self.entries.get(message.name)
        self.numbers.observe(message.number)
        if message.inbox.startswith(self.inbox):
            return self.receive_own_claim(message.inbox[len(self.inbox):])
        if entry is None:
            return self.transfers.answer(message)
        if entry.yielded_to is not None:
            return 0 if entry.yielded_to == message.inbox else self.transfers.pass_on(entry.yielded_to, message)
        if message.number < entry.number:
            if entry.claim is None:
                return self.publish(message.inbox, None, Newer(entry.name, entry.number))
            return self.publish(message.inbox, None, self.message_of(entry.claim))
        entry.lose()
        entry.yielded_to = message.inbox
        entry.yields_state = message.resumes
        entry.yields_nothing = entry.claim is not None and not entry.holds() and not message.held
        if entry.claim is None:
            return entry.hand_over(None, 0)
        if not entry.yields_nothing:
            return self.resolve(entry.claim, "lost", None, 0)
        # If neither has the session, a third worker may, which answers the one or the other.
        return self.claims.give_up_later(entry.claim)

    cdef int receive_own_claim(self, str token) except -1:
        """Handle a claim of this worker that has come back over others, from which the session went on to here."""
        cdef PendingClaim claim = self.claims.get(token)
        if claim is None or claim.result is not None:
            return 0
        return self.resolve(claim, "nobody", None, 0) if claim.entry.holds() else self.claims.ask_again(claim)

    cdef int receive_state(self, str token, message) except -1:
        """Receive the answer to a claim, or a part of it."""
        cdef PendingClaim claim = self.claims.get(token)
        cdef Progress progress
        if claim is None:
            return self.counters.count("dropped", "session_state_late") if isinstance(message, State) else 0
        if isinstance(message, Nothing):
            if message.unknown:
                return self.claims.ask_again(claim)
            return 0 if claim.result is not None else self.resolve(claim, "nothing", None, 0)
        progress = self.transfers.receive(claim, message)
        if progress == MALFORMED:
            return self.resolve(claim, "nothing", None, 0)
        if progress == COMPLETE:
            return self.resolve(claim, "state", b"".join(claim.parts), claim.state_number)
        if progress == INCOMPLETE:
            self.claims.wait_anew(claim)
        return 0

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        """Handle that no other worker has a session, or that there is no other worker."""
        cdef PendingClaim claim
        token = reply.data[:reply.size].decode("ascii", "replace").rpartition(".")[2]
        if token == messages.HELLO:
            self.others.set_alone()
            return True
        claim = self.claims.get(token)
        if claim is None or claim.result is not None:
            return True
        self.look_for_lost_server()
        if claim.direct_asks:
            claim.direct_asks -= 1
            claim.asks_all = True  # the worker to which the session went is not there any more
            self.send_claim(claim)
        elif self.others.settled():
            self.resolve(claim, "nobody", None, 0)
        else:
            self.claims.ask_again(claim)
        return True

    cdef int look_for_lost_server(self) except -1:
        """Notice that the cluster has lost a NATS server, and with it the subscriptions of the workers behind it."""
        cdef dict info = self.link.info
        if info is self.info or info is None:
            return 0
        self.info = info
        before, self.servers = self.servers, frozenset(info.get("connect_urls") or ())
        if before - self.servers and not self.others.alone:
            self.others.wait_for_all()
            self.others.say_hello()
        return 0

    cdef int repeat_claims(self) except -1:
        """Make claims again that have no answer, or one that said little."""
        cdef PendingClaim claim
        for claim in self.claims.take_unanswered():
            self.send_claim(claim)
        if self.claims.to_repeat and self.others.settled():
            for claim in self.claims.take_repeated():
                self.send_claim(claim)
        return 0

    cdef int resolve(self, PendingClaim claim, str result, bytes state, uint64_t number) except -1:
        """End a claim: go on with the CONNECT, or pass the state on to the worker with a newer one."""
        cdef DirectoryEntry entry = claim.entry
        if claim.result is None and result in ("nobody", "nothing", "timeout") \
                and self.may_be_stored(entry, claim.resumes):
            return self.look_up(claim, result)
        self.claims.end(claim, result)
        if entry.yielded_to is None and result != "lost":
            self.transfers.came_back(entry.name)
        if entry.yielded_to is not None:
            return entry.hand_over(state, number)
        return 0 if result == "lost" else entry.resolved(state, number)

    # ------------------------------------------------------------ time, and the connection to NATS

    def check(self):
        """End claims that nobody answers in time, and tell others of new entries; call this ten times a second."""
        cdef double now = self.loop.time()
        self.claims.note_time(now)
        self.end_claims(now)
        self.assertions.tell_new()
        self.subjects.leave_former(now)
        if self.link.ready:
            self.look_for_lost_server()
            self.repeat_claims()
            self.others.check(now)

    cdef int end_claims(self, double now) except -1:
        """End claims that nobody answers in time, or all of them if NATS is away."""
        cdef PendingClaim claim
        while not self.link.ready and self.claims.first() is not None:
            self.resolve(self.claims.first(), "away", None, 0)
        while (claim := self.claims.next_given_up()) is not None:
            self.resolve(claim, "nothing", None, 0)
        while (claim := self.claims.next_overdue(now)) is not None:
            self.resolve(claim, "timeout", None, 0)
        return 0

    cdef int on_connected(self) except -1:
        """Subscribe anew, ask again what was asked over the last connection, and tell others of all entries."""
        cdef PendingClaim claim
        self.others.forget_all()
        self.outbox.clear()
        self.subjects.join_again(self.entries)
        self.others.say_hello()
        for claim in self.claims.pending.values():
            if claim.result is None:
                self.send_claim(claim)
        if self.storage is not None:
            self.storage.on_connected()
        return self.assertions.tell_all_twice()

    cdef int publish(self, str subject, str reply, message) except -1:
        """Publish a message at the end of the tick."""
        return self.outbox.publish(subject, reply, message)
