"""The other workers of a service instance. See other_workers.pyx."""

class OtherWorkers:
    alone: bool
    stopping: bool
