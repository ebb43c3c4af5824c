"""The events that an extension counts, by name."""

STATS = (
    "requests",  # ClientData that reached a handler
    "responses",  # ExtensionData sent as answers
    "pushes",  # ExtensionData sent by `push`
    "messages",  # messages of other services, events among them, that reached a subscriber
    "unanswered",  # results that were not sent, because the request had no request ID
    "retried",  # requests of a stream that are delivered again because their handler failed
    "failed",  # requests and messages whose handler raised something other than ExtensionError
    "not_found",  # requests for a resource path without handler
    "expired",  # ClientData and other messages dropped because their timeout was over
    "clock_skew",  # messages whose timestamps the clock of this machine contradicts, expired or not
    "malformed",  # ClientData dropped because it is not the Avro of 4/ESP
    "overrun",  # messages dropped because they arrived faster than they were handled
    "undelivered",  # answers that NATS did not take
    "abandoned",  # requests that `stop` no longer waited for
)
