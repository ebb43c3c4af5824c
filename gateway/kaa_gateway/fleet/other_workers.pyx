"""The other workers of a service instance: they greet each other, and so a worker knows whether it is alone."""

from kaa_gateway.fleet.messages import Bye, Hello

cdef enum:
    WORKERS_MAX = 1_000            # other workers that sessions are offered to when this one stops

cdef double HELLO_PERIOD = 5.0     # seconds
cdef double TIMEOUT = 3 * HELLO_PERIOD  # seconds after its last greeting for which a worker counts as there


cdef class OtherWorkers:
    """Those that one worker knows of. Greetings go to `subject`, and other workers answer to `inbox`."""

    def __init__(
        self, Outbox outbox not None, ConnectNumbers numbers not None, str subject not None, str inbox not None
    ):
        self.loop = outbox.loop
        self.outbox = outbox
        self.numbers = numbers
        self.subject = subject
        self.inbox = inbox
        self.seen = {}

    cdef bint note(self, str inbox) except -1:
        """Note that another worker has greeted. Return False if there are too many."""
        self.alone = False
        if inbox not in self.seen and len(self.seen) >= WORKERS_MAX:
            return False
        self.seen[inbox] = self.loop.time()
        return True

    cdef int remove(self, str inbox) except -1:
        """Note that another worker stops."""
        self.seen.pop(inbox, None)
        return 0

    cdef int set_alone(self) except -1:
        """Note that nobody else is there."""
        self.seen.clear()
        self.alone = True
        return 0

    cdef int forget_all(self) except -1:
        """Note that it is not known who is there."""
        self.seen.clear()
        self.alone = False
        return 0

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
        self.outbox.publish(self.subject, self.inbox, Hello(self.numbers.next(), self.inbox))

    def say_goodbye(self):
        """Tell other workers that this one stops."""
        self.stopping = True
        self.outbox.publish(self.subject, None, Bye(self.numbers.next(), self.inbox))
