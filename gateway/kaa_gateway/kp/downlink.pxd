from libc.stdint cimport int64_t, uint32_t, uint64_t

from kaa_gateway.bus.durable cimport DurableLanes
from kaa_gateway.bus.listener cimport Listener
from kaa_gateway.kp.correlation cimport Correlation, Correlator, Service
from kaa_gateway.counters cimport Counters, ReasonCounter
from kaa_gateway.kp.departures cimport Departures
from kaa_gateway.kp.receipts cimport ReceiptRequest
from kaa_gateway.kp.recent_keys cimport RecentKeys
from kaa_gateway.kp.router cimport Router
from kaa_gateway.kp.session cimport Delivery, Endpoint, Session
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.esp cimport ClientDataView, ExtensionDataView
from kaa_gateway.wire.nats cimport Publication, ServerMessage


cdef class Downlink(Listener):
    # wiring
    cdef Uplink uplink
    cdef Router router
    cdef Sessions sessions
    cdef Correlator correlator
    cdef DurableLanes durable
    cdef Counters counters
    # state
    cdef readonly Departures departures   # sessions that have gone to other workers
    cdef Buffer scratch
    cdef RecentKeys pushed        # hashes of a push and the session that it reached
    cdef readonly object clock_skew   # ClockSkew of the extensions
    cdef ReceiptRequest wanted    # receipts of the message that came last, or None
    cdef ReasonCounter unknown_endpoints  # pushes to endpoints of other workers, or of nobody
    cdef dict traces              # correlation ID -> trace of a message that is under way; None: tracing is off

    cdef uint64_t hash_of_push(self, Slice correlation_id, const ExtensionDataView* push) except? 0
    cdef bint push(self, Delivery* delivery, Endpoint endpoint, uint64_t hashed, bint online) except -1
    cdef bint deliver_push(self, Session session, Delivery* delivery, Endpoint endpoint) except -1
    cdef int refuse_receipt(self, str outcome, str reason) except -1
    cdef bint push_to(self, Session session, Delivery* delivery, Endpoint endpoint, uint64_t hashed) except -1
    cdef int dispatch(
        self, Delivery* delivery, Slice correlation_id, Session session, Endpoint endpoint
    ) except -1
    cdef bint send_after(
        self, const ServerMessage* message, const Delivery* delivery, uint64_t key, Session session, Endpoint endpoint
    ) except -1
    cdef bint deliver_forwarded(
        self, Session session, const ServerMessage* message, bint correlated, Service service, uint32_t sequence
    ) except -1
    cdef int on_dropped(self, const Publication* publication, str reason, str phrase) except -1
    cdef int count_out(self, Session session, const Delivery* delivery, Endpoint endpoint) except -1
    cdef int report(
        self, Session session, const Correlation* correlation, const ClientDataView* view, bytes extension,
        Endpoint endpoint, int status, str phrase,
    ) except -1
    cdef int send_again(self, bytes head, const Publication* publication, Slice correlation_id) except -1
    cdef int fail_trace(self, Slice correlation_id, str reason) except -1
    cdef int drop_expired(self, const ExtensionDataView* view) except -1
    cdef int check_clock(self, const ExtensionDataView* view, int64_t earliest) except -1
    cdef int drop(self, str reason) except -1
    cdef int drop_message(self, str reason, Slice correlation_id) except -1
