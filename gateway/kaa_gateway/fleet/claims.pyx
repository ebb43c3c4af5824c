"""The claims of a worker that have not been answered yet, and how long each may wait.

What lives here: time and counts. What a claim asks, and what its answers mean, is in directory.pyx.
"""

import secrets
from collections import OrderedDict, deque

import structlog

from kaa_gateway.clock cimport monotonic

log = structlog.get_logger("gateway.fleet")

RESULTS = ("nobody", "state", "stored", "nothing", "lost", "timeout", "away", "alone")

cdef enum:
    SILENT_MAX = 3                 # claims in a row without an answer, after which claims do not wait for a while
    ASKED_AT_LEAST = 4             # times in the time that a claim waits, if nobody answers

cdef double SILENCE = 10.0         # seconds for which claims do not wait
cdef double CHECK_MAX = 0.2        # seconds that one look at the time counts for at most
cdef double ANSWER_MAX = 1.0       # seconds without an answer after which a claim is made again
cdef double YIELDED_MAX = 1.0      # seconds for which a claim waits that a newer CONNECT elsewhere waits for


cdef class Claims:
    """The claims of one worker. `timeout` is the time in seconds that each waits, `now` the loop time."""

    def __init__(self, double timeout, double now):
        self.timeout = timeout
        self.pending = OrderedDict()
        self.yielded = deque()
        self.to_repeat = []
        self.last_token = secrets.randbits(60)
        self.checked_at = now
        self.counted = {result: ReasonCounter() for result in RESULTS}
        self.time = Histogram()

    def __len__(self):
        return len(self.pending)

    @property
    def results(self):
        """The number of claims by their result."""
        cdef ReasonCounter counter
        return {result: counter.count for result, counter in self.counted.items()}

    cdef PendingClaim add(self, DirectoryEntry entry, bint resumes):
        """Return a new claim of an entry."""
        cdef PendingClaim claim
        self.last_token += 1
        claim = PendingClaim()
        claim.entry = entry
        claim.number = entry.number
        claim.token = f"{self.last_token:x}"
        claim.resumes = resumes
        claim.started_at = monotonic()
        claim.sent_at = claim.asked_at = self.waited
        claim.deadline = self.waited + self.timeout
        entry.claim = claim
        self.pending[claim.token] = claim
        return claim

    cdef PendingClaim get(self, str token):
        """Return the claim that is answered on a subject with this last token, or None if it has ended."""
        return self.pending.get(token)

    cdef PendingClaim first(self):
        """Return the claim that is overdue next, or None."""
        return next(iter(self.pending.values()), None)

    cdef int wait_anew(self, PendingClaim claim) except -1:
        """Give a claim its whole time once more: a part of the answer has come, or somebody else is asked."""
        claim.deadline = self.waited + self.timeout
        self.pending.move_to_end(claim.token)
        return 0

    cdef int forget(self, PendingClaim claim) except -1:
        """Forget a claim that nobody waits for any more."""
        self.pending.pop(claim.token, None)
        claim.entry.claim = None
        return 0

    cdef int end(self, PendingClaim claim, str result) except -1:
        """Forget a claim that has a result, and count it."""
        self.forget(claim)
        self.count(result)
        self.time.observe(monotonic() - claim.started_at)
        if result != "timeout":
            self.silent = 0
            self.answered_at = self.waited
        return 0

    cdef int count(self, str result) except -1:
        """Count a result."""
        (<ReasonCounter>self.counted[result]).count += 1
        return 0

    # ------------------------------------------------------------ time

    cdef int note_time(self, double now) except -1:
        """Note the loop time, ten times a second.

        A worker that was busy for long has not read the answers yet: its own delay does not count as time in which
        others did not answer.
        """
        self.waited += min(now - self.checked_at, CHECK_MAX)
        self.checked_at = now
        return 0

    cdef PendingClaim next_overdue(self, double now):
        """Return a claim that nobody has answered in time, or None. After some in a row, no claim waits for a while."""
        cdef PendingClaim claim = self.first()
        if claim is None or claim.deadline > self.waited:
            return None
        self.silent += claim.result is None
        if self.silent >= SILENT_MAX and self.answered_at <= claim.sent_at:
            self.silent = 0
            self.silent_until = now + SILENCE
            log.warning("other workers do not answer: sessions are not looked for there", seconds=SILENCE)
        return claim

    cdef int give_up_later(self, PendingClaim claim) except -1:
        """Give a claim up soon if it is not answered: the session is for another worker by now, which waits for us."""
        self.yielded.append((claim, self.waited + YIELDED_MAX))
        return 0

    cdef PendingClaim next_given_up(self):
        """Return a claim that is given up now, or None."""
        cdef PendingClaim claim
        while self.yielded and self.yielded[0][1] <= self.waited:
            claim, _ = self.yielded.popleft()
            if claim.result is None and claim.parts is None and self.get(claim.token) is claim:
                return claim
        return None

    # ------------------------------------------------------------ claims that are made again

    cdef int ask_again(self, PendingClaim claim) except -1:
        """Make a claim again, to all workers, with the next check: what has answered it said little."""
        claim.asks_all = True
        if not claim.is_repeated:
            claim.is_repeated = True
            self.to_repeat.append(claim)
        return 0

    cdef list take_repeated(self):
        """Return the claims that are made again now."""
        cdef PendingClaim claim
        claims = []
        for claim in self.to_repeat:
            claim.is_repeated = False
            if claim.result is None and self.get(claim.token) is claim:
                claims.append(claim)
        self.to_repeat = []
        return claims

    cdef list take_unanswered(self):
        """Return the claims that have no answer for a while; they are made again, to all workers.

        A worker that ended may have got them without reading them. NATS does not say so.
        """
        cdef double longest = min(ANSWER_MAX, self.timeout / ASKED_AT_LEAST)
        cdef PendingClaim claim
        claims = []
        for claim in self.pending.values():
            if claim.sent_at + longest > self.waited:
                break
            if claim.asked_at + longest <= self.waited and claim.result is None and claim.parts is None:
                claim.asked_at = self.waited
                claim.asks_all = True
                claims.append(claim)
        return claims
