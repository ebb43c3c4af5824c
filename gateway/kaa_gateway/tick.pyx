"""The end of a tick: the moment at which everything writes the output that has come together.

A tick is one pass over sockets that are ready, or else what the event loop calls in one turn. A pass writes the outputs
itself when it has handled its sockets. Output that comes at another time is written by a callback, which costs an
object, a turn of the loop and a call of Python.
"""


cdef enum:
    ROUNDS_MAX = 8  # of one pass


cdef class TickOutput:
    """What may have output to write at the end of a tick; a base class whose method does nothing."""

    cdef int write_due(self) except -1:
        """Write the output; called at the end of a tick to which it was added. Hot path."""
        return 0


cdef class Tick:
    """The outputs of one event loop that are due at the end of its tick."""

    def __init__(self, loop):
        self.loop = loop
        self.callback = self.run

    cdef int add(self, TickOutput output) except -1:
        """Write an output at the end of this tick, once, however often it is added. Hot path."""
        if output.due:
            return 0
        output.due = True
        if self.first is None:
            self.first = output
        else:
            self.last.next_due = output
        self.last = output
        if not self.in_pass and not self.scheduled:
            self.write_later()
        return 0

    cdef int write_later(self) except -1:
        """Have the event loop call for what is due."""
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.callback)
        return 0

    cdef bint begin(self) noexcept:
        """Begin a pass. Return whether the caller has to end it: not if it is part of another pass. Hot path."""
        cdef bint begun = not self.in_pass
        self.in_pass = True
        return begun

    cdef int end(self) except -1:
        """Write what is due, and what becomes due meanwhile, and end the pass. Hot path.

        What becomes due meanwhile is the next round. After some rounds, the loop goes on, and calls for the others.
        """
        cdef TickOutput output, last_of_round = self.last
        cdef int rounds = 1
        try:
            while self.first is not None:
                output = self.first
                self.first = output.next_due
                output.next_due = None
                output.due = False
                try:
                    output.write_due()
                except Exception as error:
                    self.loop.call_exception_handler({"message": "output could not be written", "exception": error})
                if output is last_of_round and self.first is not None:
                    last_of_round = self.last
                    rounds += 1
                    if rounds > ROUNDS_MAX:
                        self.write_later()
                        return 0
            self.last = None
        finally:
            self.in_pass = False
        return 0

    def run(self):
        """Write what is due since the last pass; called by the event loop."""
        self.scheduled = False
        self.in_pass = True
        self.end()


cdef Tick last = None  # a process has one event loop at a time, except in tests


cdef Tick tick_of(loop):
    """Return the Tick of an event loop."""
    global last
    if last is None or last.loop is not loop:
        last = Tick(loop)
    return last
