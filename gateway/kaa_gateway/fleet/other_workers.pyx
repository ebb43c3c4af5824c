"""The other workers of a service instance: they greet each other, and so a worker knows whether it is alone."""

from kaa_gateway.fleet.messages import Bye, Hello

cdef enum:
    WORKERS_MAX = 1_000            # other workers that sessions are offered to when this one stops

cdef double HELLO_PERIOD = 5.0     # seconds
cdef double SETTLING_TIME = 3.0    # seconds in which workers surely are connected to another NATS server
cdef double TIMEOUT = 3 * HELLO_PERIOD  # seconds after its last greeting for which a worker counts as there


cdef class OtherWorkers:
    """Those that one worker knows of. Greetings go to `subject`, and other workers answer to `inbox`."""

    def __init__(
        self, Outbox outbox not None, ConnectNumbers numbers not None, str subject not None, str inbox not None
    ):
        self.loop = outbox.link.loop
        self.outbox = outbox
        self.numbers = numbers
        self.subject = subject
        self.inbox = inbox
        self.seen = {}
        self.awaited = set()

    cdef bint note(self, str inbox) except -1:
        """Note that another worker has greeted. Return False if there are too many."""
        self.alone = False
        self.awaited.discard(inbox)
        if inbox not in self.seen and len(self.seen) >= WORKERS_MAX:
            return False
        self.seen[inbox] = self.loop.time()
        return True

    cdef int remove(self, str inbox) except -1:
        """Note that another worker stops."""
        self.seen.pop(inbox, None)
        self.awaited.discard(inbox)
        return 0

    cdef int set_alone(self) except -1:
        """Note that nobody else is there, unless some are expected back: then ask again."""
        if not self.settled():
            self.next_hello = self.settled_at
            return 0
        self.seen.clear()
        self.alone = True
        return 0

    cdef int forget_all(self) except -1:
        """Note that it is not known who is there: this worker has a new connection to NATS."""
        self.wait_for_all()
        self.seen.clear()
        self.alone = False
        return 0

    cdef int wait_for_all(self) except -1:
        """Wait for a greeting of each worker: some may have lost their connections to NATS, and all subscriptions."""
        self.awaited.update(self.present())
        self.settled_at = self.loop.time() + SETTLING_TIME
        return 0

    cdef bint settled(self) except -1:
        """Return whether all workers have greeted since NATS was disturbed last, or had the time for it.

        Then the NATS server of this worker knows their subscriptions: they were on their way before the greeting.
        """
        if self.awaited and self.loop.time() >= self.settled_at:
            self.awaited.clear()
        return not self.awaited

    cdef int answer(self, str inbox) except -1:
        """Greet a worker that asks for it."""
        return self.outbox.publish(inbox, None, Hello(self.numbers.next(), self.inbox))

    def present(self):
        """Return where the workers are answered that have greeted lately."""
        now = self.loop.time()
        return [inbox for inbox, seen_at in self.seen.items() if now - seen_at < TIMEOUT]

    def check(self, double now):
        """Greet the others when it is time."""
        if now >= self.next_hello and not self.stopping:
            self.say_hello()

    def say_hello(self):
        """Tell other workers that this one is there, and learn whether there are any."""
        now = self.loop.time()
        self.next_hello = now + HELLO_PERIOD
        # Workers that died have said no goodbye.
        self.seen = {inbox: seen_at for inbox, seen_at in self.seen.items() if now - seen_at < TIMEOUT}
        self.outbox.publish(self.subject, self.inbox, Hello(self.numbers.next(), self.inbox, bool(self.awaited)))

    def say_goodbye(self):
        """Tell other workers that this one stops."""
        self.stopping = True
        self.outbox.publish(self.subject, None, Bye(self.numbers.next(), self.inbox))
