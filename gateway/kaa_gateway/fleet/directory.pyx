"""Who has a session: the workers of a service instance, on all machines, agree over NATS.

Each session that its client may find again has a subject, to which the worker subscribes that has it. A CONNECT makes
its worker subscribe to the subject and publish a claim there. If nobody else subscribes, NATS says so at once (no
responders). A worker that has the session ends its connection, and answers with its state, or that there is none.

Each CONNECT has a number: the time, and which worker. The highest number wins everywhere: a worker with a higher number
does not give its session away, but answers with that number, and the other gives up its own. This decides between
CONNECTs at the same time, and between sessions that arose while NATS was away. The clocks of workers need not agree:
each adds what it has seen others to be ahead.

What this is not: what a session is, and its state as bytes (kaa_gateway.mqtt).

Source: MQTT 3.1.1 section 3.1.4 and MQTT 5 section 3.1.4 (a client is there once); NATS, "no responders".
"""

import asyncio
import hashlib
import secrets
from collections import OrderedDict, deque
from typing import NamedTuple

import msgspec
import structlog

from kaa_gateway.clock cimport monotonic, now_us
from kaa_gateway.wire.buffer cimport Slice, slice_of
from kaa_gateway.wire.nats cimport append_publication

from kaa_gateway.fleet import messages
from kaa_gateway.fleet.messages import Assertion, Bye, Claim, Forwarded, Hello, Newer, Nothing, Notice, Offer, State
from kaa_gateway.wire.nats import encode_publish_head, encode_subscribe

log = structlog.get_logger("gateway.fleet")

cdef enum:
    FIRST_SID = 1_000_000          # the link's own subscriptions have lower IDs
    TAG_BITS = 12
    MOVED_MAX = 20_000             # sessions whose new workers are remembered
    PEERS_MAX = 1_000              # other workers that sessions are offered to when this one stops
    SILENT_CLAIMS_MAX = 3          # in a row, after which claims do not wait for a while
    STATE_SIZE_MAX = 256 * 1024 * 1024  # bytes
    PART_OVERHEAD = 128            # bytes of a message beside the part of a state in it
    PART_SIZE_MIN = 512
    OFFERED_AT_ONCE = 100          # sessions of a worker that stops
    ASSERTED_BYTES_MAX = 4 * 1024 * 1024  # that wait for NATS before the next session is told of

cdef int64_t AHEAD_MAX = 3_600_000_000  # us; a number from later than that is not believed
cdef double HELLO_PERIOD = 5.0     # seconds
cdef double MOVED_TIME = 60.0      # seconds for which the new worker of a session is remembered
cdef double FOLLOWING_TIME = 1.0   # seconds for which a worker that stops sends messages after its last sessions
cdef double PEER_TIMEOUT = 3 * HELLO_PERIOD  # seconds after its last greeting for which a worker counts as there
cdef double GIVING_POLL = 0.01     # seconds between looks whether offered sessions are gone
cdef double OFFER_TIME = 1.0       # seconds after which an offer that is not taken is made to another worker
cdef double SPREADING_TIME = 3.0   # seconds in which the servers of a NATS cluster surely learn of subscriptions
cdef double ASSERTING_PAUSE = 0.05  # seconds
cdef double SILENCE = 10.0         # seconds for which claims do not wait
cdef double CHECK_MAX = 0.2        # seconds that one look at the time counts for at most

cdef Slice NOTHING = Slice(NULL, 0)


class Moved(NamedTuple):
    """Where a session has gone."""

    inbox: str
    until: float


def session_name(str kind not None, *parts):
    """Return the name that a client's session has in the directory: a digest, since a client chooses the parts."""
    sizes = ",".join([str(len(part)) for part in parts])
    text = f"{kind} {sizes} {''.join(parts)}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=messages.NAME_SIZE // 2).hexdigest()


cdef class PendingClaim:
    """A claim whose answer has not come yet."""


cdef class DirectoryEntry:
    """A session in the directory; a base class whose methods do nothing."""

    cdef bint is_wanted(self) noexcept:
        """Return whether a client waits for the session on this worker, or has it."""
        return False

    cdef bint holds(self) noexcept:
        """Return whether there is a session on this worker."""
        return False

    cdef int lose(self) except -1:
        """End the connection that waits for the claim: the client has made another one, on another worker."""
        return 0

    cdef int hand_over(self, bytes state, uint64_t number) except -1:
        """End the session here, and call SessionDirectory.give, now or soon: its client has connected elsewhere.

        `state` is None, or has come from a third worker while the entry was claimed here.
        """
        return 0

    cdef int resolved(self, bytes state, uint64_t number) except -1:
        """Go on with the CONNECT: the state is what another worker had, from a CONNECT with this number, or None."""
        return 0

    cdef int supersede(self) except -1:
        """Discard the session: another worker has a newer one."""
        return 0

    cdef bint receive_forwarded(self, message) except -1:
        """Deliver a message that has come to a former worker of the session. Return whether it was taken."""
        return False

    cdef int notice(self) except -1:
        """Note that the client has connected elsewhere, without a claim."""
        return 0

    cdef int left(self) except -1:
        """Note that the entry has been given away, and nobody wants it here."""
        return 0


cdef class SessionDirectory(Receiver):
    """A worker's part of the directory. `timeout` is the time in seconds that a CONNECT waits for another worker."""

    def __init__(
        self, Link link not None, slices, Counters counters not None, *, str instance not None, str replica_id not None,
        double timeout,
    ):
        self.link = link
        self.loop = link.loop
        self.slices = slices
        self.counters = counters
        self.prefix = messages.session_prefix(instance)
        self.inbox = messages.inbox_prefix(replica_id)
        self.timeout = timeout
        self.entries = {}
        self.claims = OrderedDict()
        self.moved = OrderedDict()
        self.new_entries = []
        self.free_sids = []
        self.last_sid = FIRST_SID - 1
        self.tag = secrets.randbits(TAG_BITS)
        self.last_token = secrets.randbits(60)
        self.checked_at = self.loop.time()
        self.given_at = -FOLLOWING_TIME
        self.out = Buffer()
        self.claim_results = dict.fromkeys(("nobody", "state", "nothing", "lost", "timeout", "away", "alone"), 0)
        self.sessions_moved = {"in": 0, "out": 0}
        self.messages_forwarded = {"in": 0, "out": 0}
        self.claim_time = Histogram()
        self.peers = {}
        link.subscribe(self.prefix + messages.HELLO, self)
        link.subscribe(self.inbox + "*", self)
        link.set_numbered(self, FIRST_SID)

    def set_timeout(self, double timeout):
        """Set the time that CONNECTs wait from now on."""
        self.timeout = timeout

    def pending_count(self):
        """Return the number of claims that wait for an answer."""
        return len(self.claims)

    def entry_count(self):
        """Return the number of sessions that this worker has in the directory."""
        return len(self.entries)

    # ------------------------------------------------------------ for the sessions of this worker

    cdef uint64_t next_number(self) noexcept:
        """Return the number of a new CONNECT, which is higher than all that are known."""
        cdef uint64_t number = <uint64_t>(now_us() + self.ahead) << TAG_BITS | self.tag
        if number <= self.last_number:
            number = self.last_number + (1 << TAG_BITS)
        self.last_number = number
        return number

    cdef int observe(self, uint64_t number) except -1:
        """Note the number of another worker, so that ours are higher from now on."""
        cdef int64_t ahead = <int64_t>(number >> TAG_BITS) - now_us()
        if self.ahead < ahead <= AHEAD_MAX:
            self.ahead = ahead
        return 0

    cdef bint begin(self, DirectoryEntry entry, bint resumes) except -1:
        """Give an entry the number of a new CONNECT, and claim it from other workers.

        Return whether to wait until the entry is `resolved`, `lost` or handed over.
        """
        if entry.claim is not None or entry.yielded_to is not None:
            entry.number = self.next_number()
            self.new_entries.append((entry, entry.number))
            return True  # it is claimed again when it has been given away
        self.enter(entry)
        if self.alone:
            self.count_result("alone")
            return False
        if not self.link.ready or self.loop.time() < self.silent_until:
            self.count_result("away")
            return False
        self.claim(entry, resumes)
        return True

    cdef int claim(self, DirectoryEntry entry, bint resumes) except -1:
        """Claim an entry from other workers."""
        cdef PendingClaim claim
        self.last_token += 1
        claim = PendingClaim()
        claim.entry = entry
        claim.token = f"{self.last_token:x}"
        claim.resumes = resumes
        claim.started_at = monotonic()
        claim.sent_at = self.waited
        claim.deadline = self.waited + self.timeout
        entry.claim = claim
        self.claims[claim.token] = claim
        return self.send_claim(claim)

    cdef int adopt(self, DirectoryEntry entry, uint64_t number) except -1:
        """Claim an entry from a worker that stops, whose session is from the CONNECT with this number."""
        entry.number = number + 1  # so that any CONNECT since then is newer
        self.join(entry)
        return self.claim(entry, True)

    cdef int send_claim(self, PendingClaim claim) except -1:
        """Publish a claim, to be answered on a subject of its own."""
        inbox = self.inbox + claim.token
        return self.publish(
            self.prefix + claim.entry.name, inbox,
            Claim(claim.entry.name, claim.entry.number, claim.resumes, claim.entry.holds(), inbox),
        )

    cdef int announce(self, DirectoryEntry entry) except -1:
        """Give an entry the number of a new CONNECT, and tell other workers, without waiting for an answer."""
        self.enter(entry)
        return self.notify(entry.name, entry.number)

    cdef int enter(self, DirectoryEntry entry) except -1:
        """Give an entry the number of a new CONNECT, and let other workers find it."""
        entry.number = self.next_number()
        self.new_entries.append((entry, entry.number))
        return self.join(entry)

    cdef int notify(self, str name, uint64_t number) except -1:
        """Tell the worker that has a session, if there is one, of a CONNECT that does not claim it."""
        if self.alone or not self.link.ready:
            return 0
        return self.publish(self.prefix + name, None, Notice(name, number, self.inbox + messages.HELLO))

    cdef int join(self, DirectoryEntry entry) except -1:
        """Put an entry into the directory, if it is not there."""
        if entry.sid:
            return 0
        if self.free_sids:
            entry.sid = self.free_sids.pop()
        else:
            self.last_sid += 1
            entry.sid = self.last_sid
        self.entries[entry.name] = entry
        self.moved.pop(entry.name, None)
        self.subscribe(entry)
        return self.schedule_flush()

    cdef int subscribe(self, DirectoryEntry entry) except -1:
        """Write the SUB line of an entry."""
        cdef bytes line = encode_subscribe(self.prefix + entry.name, entry.sid)
        return self.out.append(<const char*>line, len(line))

    cdef int leave(self, DirectoryEntry entry) except -1:
        """Take an entry out of the directory: its session has ended."""
        cdef bytes line
        if entry.sid == 0:
            return 0
        if entry.claim is not None:
            self.claims.pop(entry.claim.token, None)
            entry.claim = None
        del self.entries[entry.name]
        line = b"UNSUB %d\r\n" % entry.sid
        self.out.append(<const char*>line, len(line))
        self.free_sids.append(entry.sid)
        entry.sid = 0
        return self.schedule_flush()

    cdef int give(self, DirectoryEntry entry, bytes state, uint64_t number) except -1:
        """Send the worker to which an entry has yielded what there is, and take the entry out of the directory.

        If a client waits here by now, it is claimed back.
        """
        inbox = entry.yielded_to
        entry.yielded_to = None
        self.leave(entry)
        self.forget_moved(self.loop.time())
        self.moved[entry.name] = Moved(inbox, self.loop.time() + MOVED_TIME)
        self.given_at = self.loop.time()
        if state is None:
            self.publish(inbox, None, Nothing())
        else:
            self.send_state(inbox, state, number)
        if not entry.is_wanted():
            return entry.left()
        return 0 if self.begin(entry, True) else entry.resolved(None, 0)

    cdef bint forward(self, message) except -1:
        """Send a message after the session that it is for, or deliver it if that is here.

        Return False if nobody knows where the session is, or does not take it.
        """
        cdef DirectoryEntry entry = self.entries.get(message.name)
        if entry is not None and entry.holds():
            self.messages_forwarded["in"] += 1
            return entry.receive_forwarded(message)
        moved = self.moved.get(message.name)
        if moved is None or message.hops >= messages.HOPS_MAX or not self.link.ready:
            return False
        if len(message.datum) + len(message.header) + PART_OVERHEAD > self.link.payload_max:
            return False
        self.messages_forwarded["out"] += 1
        self.publish(moved.inbox, None, msgspec.structs.replace(message, hops=message.hops + 1))
        return True

    cdef int send_state(self, str inbox, bytes state, uint64_t number) except -1:
        """Send a state, in parts as large as NATS takes."""
        cdef Py_ssize_t size = max(<Py_ssize_t>PART_SIZE_MIN, self.link.payload_max - PART_OVERHEAD), part
        cdef Py_ssize_t parts = messages.part_count(len(state), size)
        if parts > messages.PARTS_MAX:
            log.error("the state of a session is too large to be moved, and is discarded", bytes=len(state))
            self.counters.count("dropped", "session_state_too_large")
            return self.publish(inbox, None, Nothing())
        for part in range(parts):
            self.publish(inbox, None, State(number, part, parts, state[part * size:(part + 1) * size]))
        self.sessions_moved["out"] += 1
        return 0

    # ------------------------------------------------------------ from other workers

    cdef int on_message(self, const ServerMessage* message) except -1:
        """Handle a message of another worker, on the subject of a session or of answers."""
        cdef bytes subject = message.subject.data[:message.subject.size]
        try:
            received = messages.decode(message.payload.data[:message.payload.size])
        except (msgspec.DecodeError, RecursionError):
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
        self.observe(received.number)
        if kind is Hello:
            if received.inbox in self.peers or len(self.peers) < PEERS_MAX:
                self.peers[received.inbox] = self.loop.time()
            else:
                self.counters.count("dropped", "too_many_workers")
            return self.set_alone(False)
        if kind is Bye:
            self.peers.pop(received.inbox, None)
            return 0
        if kind is Offer:
            if self.on_offer is not None and not self.stopping and self.link.ready:
                self.on_offer(received)
            return 0
        return self.receive_news(received)

    cdef int receive_news(self, message) except -1:
        """Handle a Notice, an Assertion or a Newer."""
        cdef DirectoryEntry entry = self.entries.get(message.name)
        if entry is None:
            return 0
        if message.number < entry.number:
            if not isinstance(message, Newer):
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
        self.observe(message.number)
        if entry is None:
            moved = self.moved.get(message.name)
            if moved is None or moved.until < self.loop.time():
                return self.publish(message.inbox, None, Nothing())
            return 0 if moved.inbox == message.inbox else self.publish(moved.inbox, None, message)
        if message.number < entry.number:
            if entry.claim is None:
                return self.publish(message.inbox, None, Newer(entry.name, entry.number))
            return self.publish(
                message.inbox, None,
                Claim(
                    entry.name, entry.number, entry.claim.resumes, entry.holds(), self.inbox + entry.claim.token
                ),
            )
        entry.lose()
        if entry.yielded_to is not None:
            return 0 if entry.yielded_to == message.inbox else self.publish(entry.yielded_to, None, message)
        entry.yielded_to = message.inbox
        entry.yields_state = message.resumes
        if entry.claim is None:
            return entry.hand_over(None, 0)
        # If neither has the session, a third worker may, which answers the one or the other.
        return self.resolve(entry.claim, "lost", None, 0) if entry.holds() or message.held else 0

    cdef int receive_state(self, str token, message) except -1:
        """Receive the answer to a claim, or a part of it."""
        cdef PendingClaim claim = self.claims.get(token)
        if claim is None:
            return self.counters.count("dropped", "session_state_late") if isinstance(message, State) else 0
        if isinstance(message, Nothing):
            return self.resolve(claim, "nothing", None, 0)
        if claim.parts is not None and message.number < claim.number:
            return 0
        if claim.parts is None or message.number > claim.number:
            claim.parts = []
            claim.number = message.number
            claim.part_count = message.parts
            claim.size = 0
        claim.size += len(message.data)
        if message.part != len(claim.parts) or message.parts != claim.part_count or claim.size > STATE_SIZE_MAX:
            self.counters.count("dropped", "session_state_malformed")
            return self.resolve(claim, "nothing", None, 0)
        claim.parts.append(message.data)
        if len(claim.parts) < claim.part_count:
            claim.deadline = self.waited + self.timeout
            self.claims.move_to_end(token)
            return 0
        self.sessions_moved["in"] += 1
        return self.resolve(claim, "state", b"".join(claim.parts), claim.number)

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        """Handle that no other worker has a session, or that there is no other worker."""
        cdef PendingClaim claim
        token = reply.data[:reply.size].decode("ascii", "replace").rpartition(".")[2]
        if token == messages.HELLO:
            self.set_alone(True)
            return True
        claim = self.claims.get(token)
        if claim is not None:
            self.resolve(claim, "nobody", None, 0)
        return True

    cdef int resolve(self, PendingClaim claim, str result, bytes state, uint64_t number) except -1:
        """End a claim: go on with the CONNECT, or pass the state on to the worker with a newer one."""
        cdef DirectoryEntry entry = claim.entry
        self.claims.pop(claim.token, None)
        entry.claim = None
        self.count_result(result)
        self.claim_time.observe(monotonic() - claim.started_at)
        if result != "timeout":
            self.silent_claims = 0
            self.answered_at = self.waited
        if entry.yielded_to is not None:
            return entry.hand_over(state, number)
        return 0 if result == "lost" else entry.resolved(state, number)

    # ------------------------------------------------------------ time, and the connection to NATS

    def check(self):
        """End claims that nobody answers in time, and tell other workers of new entries; call this ten times a second.

        An entry is told of a moment after its claim: two claims at the same time, over two servers of a NATS cluster,
        may not find each other.

        A worker that was busy for long has not read the answers yet: its own delay does not count as time in which
        others did not answer.
        """
        cdef PendingClaim claim
        cdef DirectoryEntry entry
        cdef double now = self.loop.time()
        self.waited += min(now - self.checked_at, CHECK_MAX)
        self.checked_at = now
        if not self.link.ready:
            self.new_entries.clear()  # all are told of with the next connection
            while self.claims:
                self.resolve(next(iter(self.claims.values())), "away", None, 0)
            return
        while self.claims:
            claim = next(iter(self.claims.values()))
            if claim.deadline > self.waited:
                break
            self.silent_claims += 1
            if self.silent_claims >= SILENT_CLAIMS_MAX and self.answered_at <= claim.sent_at:
                self.silent_claims = 0
                self.silent_until = now + SILENCE
                log.warning("other workers do not answer: sessions are not looked for there", seconds=SILENCE)
            self.resolve(claim, "timeout", None, 0)
        new, self.new_entries = self.new_entries, []
        if not self.alone:
            for entry, number in new:
                if entry.sid and entry.number == number:
                    self.assert_entry(entry)
        if now >= self.next_hello and not self.stopping:
            self.say_hello()

    def say_hello(self):
        """Tell other workers that this one is there, and learn whether there are any."""
        now = self.loop.time()
        self.next_hello = now + HELLO_PERIOD
        # Workers that died have said no goodbye.
        self.peers = {inbox: seen for inbox, seen in self.peers.items() if now - seen < PEER_TIMEOUT}
        self.publish(
            self.prefix + messages.HELLO, self.inbox + messages.HELLO,
            Hello(self.next_number(), self.inbox + messages.HELLO),
        )

    cdef int set_alone(self, bint alone) except -1:
        """Note whether there are other workers. One that appears is told of all entries: it may have been there before,
        on the other side of a NATS cluster that had fallen apart."""
        if self.alone and not alone:
            self.say_hello()
            self.assert_now_and_again()
        if alone:
            self.peers.clear()
        self.alone = alone
        return 0

    async def give_away(self, offers not None, double deadline):
        """Offer sessions to other workers, in turn, because this one stops.

        Return when they are gone, when no other worker is there, or at `deadline`, a loop time.
        """
        cdef DirectoryEntry entry
        self.stopping = True
        self.publish(self.prefix + messages.HELLO, None, Bye(self.next_number(), self.inbox + messages.HELLO))
        waiting = deque(offers)
        offered = {}
        turn = 0
        while self.loop.time() < deadline and self.link.ready and (waiting or offered):
            now = self.loop.time()
            peers = [inbox for inbox, seen in self.peers.items() if now - seen < PEER_TIMEOUT]
            if not peers:
                break
            for name, (offer, offered_at) in list(offered.items()):
                entry = self.entries.get(name)
                if entry is None:
                    del offered[name]
                elif entry.yielded_to is None and now - offered_at > OFFER_TIME:
                    del offered[name]
                    waiting.append(offer)  # to another worker: that one may stop too, or be busy
            while waiting and len(offered) < OFFERED_AT_ONCE:
                offer = waiting.popleft()
                self.publish(peers[turn % len(peers)], None, offer)
                turn += 1
                offered[offer.name] = (offer, now)
            await asyncio.sleep(GIVING_POLL)
        while self.link.ready and self.loop.time() < min(self.given_at + FOLLOWING_TIME, deadline):
            await asyncio.sleep(GIVING_POLL)
        if waiting or offered:
            log.warning("sessions of offline clients end with this worker", sessions=len(waiting) + len(offered))

    def assert_all(self):
        """Tell other workers of all entries, so that of two sessions of a client the newer one remains."""
        return self.assert_each(iter(list(self.entries.values())))

    def assert_each(self, entries not None):
        """Tell other workers of these entries, and wait while NATS takes the messages more slowly than they come."""
        cdef DirectoryEntry entry
        for entry in entries:
            if entry.sid and not self.alone and self.link.ready:
                self.assert_entry(entry)
                if self.link.transport.get_write_buffer_size() > ASSERTED_BYTES_MAX:
                    self.loop.call_later(ASSERTING_PAUSE, self.go_on_asserting, entries)
                    return
            yield 1

    def go_on_asserting(self, entries not None):
        """Tell other workers of the remaining entries."""
        self.slices.run(self.assert_each(entries))

    def assert_entry(self, DirectoryEntry entry not None):
        """Tell other workers that this one has a session."""
        self.publish(
            self.prefix + entry.name, None, Assertion(entry.name, entry.number, self.inbox + messages.HELLO)
        )

    cdef int on_connected(self) except -1:
        """Subscribe anew, ask again what was asked over the last connection, and tell others of all entries."""
        cdef PendingClaim claim
        cdef DirectoryEntry entry
        self.alone = False
        self.peers.clear()
        self.out.size = 0
        for entry in self.entries.values():
            self.subscribe(entry)
        self.say_hello()
        for claim in self.claims.values():
            self.send_claim(claim)
        if self.entries:
            self.assert_now_and_again()
        return 0

    def assert_now_and_again(self):
        """Tell other workers of all entries, and once more when the subscriptions of all workers have spread.

        After the death of a NATS server, several workers subscribe anew at other servers. Until these have told each
        other, neither of two workers that have a session of the same client hears the other.
        """
        self.slices.run(self.assert_all())
        self.loop.call_later(SPREADING_TIME, self.assert_again)

    def assert_again(self):
        """Tell other workers of all entries once more."""
        self.slices.run(self.assert_all())

    cdef int forget_moved(self, double now) except -1:
        """Forget where sessions have gone some time ago."""
        while self.moved:
            name, moved = next(iter(self.moved.items()))
            if moved.until > now and len(self.moved) < MOVED_MAX:
                break
            del self.moved[name]
        return 0

    cdef int count_result(self, str result) except -1:
        self.claim_results[result] += 1
        return 0

    cdef int publish(self, str subject, str reply, message) except -1:
        """Publish a message at the end of the tick. It is not kept: if NATS is lost, it is."""
        cdef bytes payload = messages.encode(message)
        append_publication(self.out, encode_publish_head(subject, reply), NOTHING, slice_of(payload))
        return self.schedule_flush()

    cdef int schedule_flush(self) except -1:
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_soon(self.flush)
        return 0

    def flush(self):
        """Write what this tick has for other workers, behind the messages of devices, wills among them."""
        self.flush_scheduled = False
        if self.link.ready and self.out.size:
            self.link.flush()
            self.link.transport.write(self.out.copy())
        self.out.size = 0
