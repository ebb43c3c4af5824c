from kaa_gateway.fleet.entry cimport DirectoryEntry
from kaa_gateway.fleet.other_workers cimport OtherWorkers
from kaa_gateway.fleet.outbox cimport Outbox


cdef class Assertions:
    # wiring
    cdef object loop
    cdef object slices
    cdef Outbox outbox
    cdef OtherWorkers others
    cdef dict entries          # name -> DirectoryEntry; the directory's own
    cdef object tell           # called with a DirectoryEntry
    # state
    cdef list new_entries      # (DirectoryEntry, number) since the last check

    cdef int note(self, DirectoryEntry entry) except -1
    cdef int tell_new(self) except -1
    cdef int tell_all_twice(self) except -1
