# The legal moves between them are states.TRANSITIONS.
cdef enum State:
    # bytes are parsed as they come
    READING
    CONTINUE_DUE     # 100 Continue follows the responses before it
    # bytes are held
    PIPELINE_FULL    # as many requests as may wait for their responses
    AUTHENTICATING   # the client of the request in the parser is not known yet
    # bytes are dropped
    FINISHING        # closes after the last response
    REFUSING         # the last response refuses a request that its client may still be sending
    LINGERING        # that response is written, and the client has time to read it
    CLOSED
    STATE_COUNT


cdef int check_move(State before, State after) except -1
