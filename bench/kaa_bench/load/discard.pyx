"""A server that answers every message at once and discards it, to measure the limit of the load generator.

It sends only what a load needs: CONNACK, PUBACK and PINGRESP for MQTT, 200 for HTTP, 2.04 for CoAP, ACK for KP/UDP. A
violation closes the connection, or is ignored.

Source: the documents that mqtt.pyx, http.pyx and datagram.pyx name.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from posix.unistd cimport close

from kaa_bench.load.loop cimport EPOLLIN, MSG_DONTWAIT, MSG_NOSIGNAL, recv, send
from kaa_gateway.wire.coap cimport ACK as COAP_ACK, CON, EMPTY, HEADER_SIZE as COAP_HEADER_SIZE, RST
from kaa_gateway.wire.mqtt_sn cimport (
    CONNACK as SN_CONNACK, CONNECT as SN_CONNECT, PUBACK as SN_PUBACK, PUBLISH as SN_PUBLISH, REGACK as SN_REGACK,
    REGISTER as SN_REGISTER,
)
from kaa_gateway.wire.kpudp cimport (
    CONFIRMED_DATA, HEAD_SIZE, HEADER_SIZE as KPUDP_HEADER_SIZE, WELL_FORMED, Frame, put_ack, put_header, read_frame,
)
from kaa_gateway.wire.text cimport memmem

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
        POLLOUT

    struct pollfd:
        int fd
        short events
        short revents

    int poll(pollfd* fds, unsigned long count, int timeout_ms)

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD

    ctypedef union epoll_data_t:
        void* ptr

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr_storage:
        pass
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    enum:
        SOCK_NONBLOCK
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size)
    int accept4(int fd, void* address, unsigned int* size, int flags)
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags)

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef enum:
    RECEIVE_SIZE = 65536      # bytes a read
    EVENTS_SIZE = 256
    BATCH = 64                # datagrams a system call
    DATAGRAM_SIZE = 2048      # bytes
    ADDRESS_SIZE = 8          # bytes of an IPv4 address that identify a peer: family, port, address
    CHANGED = 2 << 5 | 4      # code 2.04
    VERSION_OFFSET = 6        # bytes of a CONNECT before the protocol version
    BROKEN = -1               # result for bytes that are not a message

cdef dict PROTOCOLS = {"mqtt": MQTT, "http": HTTP, "coap": COAP, "kpudp": KPUDP, "mqtt-sn": MQTT_SN}
cdef bytes RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
cdef const uint8_t* response = RESPONSE
cdef Py_ssize_t response_size = len(RESPONSE)
cdef uint8_t[4] connack = [0x20, 2, 0, 0]
cdef uint8_t[5] connack_5 = [0x20, 3, 0, 0, 0]  # of MQTT 5, without properties
cdef uint8_t[2] pingresp = [0xD0, 0]


cdef class DiscardServer:
    """Serves `protocol` on a bound socket, which listens for TCP."""

    def __cinit__(self, socket, str protocol):
        cdef epoll_event event
        self.epoll = -1
        self.socket = socket
        self.socket.setblocking(False)
        self.fd = socket.fileno()
        self.protocol = PROTOCOLS[protocol]
        self.received = <uint8_t*>malloc(TAIL_SIZE + max(RECEIVE_SIZE, BATCH * DATAGRAM_SIZE))
        self.out = <uint8_t*>malloc(OUT_SIZE)
        if self.received == NULL or self.out == NULL:
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        event.events = EPOLLIN
        event.data.ptr = NULL
        if self.epoll < 0 or epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.fd, &event) < 0:
            raise OSError(errno, "epoll")

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)
        free(self.received)
        free(self.out)

    def serve(self, int control):
        """Serve until the file descriptor `control` is readable."""
        cdef epoll_event events[EVENTS_SIZE]
        cdef pollfd ready[2]
        cdef Peer* peer
        cdef int index, count
        ready[0] = pollfd(self.epoll, POLLIN, 0)
        ready[1] = pollfd(control, POLLIN, 0)
        while True:
            with nogil:
                poll(ready, 2, -1)
            if ready[1].revents:
                return
            count = epoll_wait(self.epoll, events, EVENTS_SIZE, 0)
            for index in range(count):
                peer = <Peer*>events[index].data.ptr
                if peer == NULL:
                    if self.protocol == COAP or self.protocol == KPUDP or self.protocol == MQTT_SN:
                        self.read_datagrams()
                    else:
                        self.accept_peer()
                elif not self.read_stream(peer):
                    close(peer.fd)
                    free(peer)

    # ---------------------------------------------------------------- streams

    cdef int accept_peer(self) except -1:
        cdef epoll_event event
        cdef Peer* peer
        cdef int enabled = 1
        cdef int fd = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK)
        if fd < 0:
            return 0
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &enabled, sizeof(enabled))
        peer = <Peer*>calloc(1, sizeof(Peer))
        if peer == NULL:
            raise MemoryError
        peer.fd = fd
        event.events = EPOLLIN
        event.data.ptr = peer
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, "epoll_ctl")
        return 0

    cdef bint read_stream(self, Peer* peer) noexcept nogil:
        """Read once and answer. Return whether the connection stays open. Hot path."""
        cdef Py_ssize_t size, at = 0, used
        cdef ssize_t count
        memcpy(self.received, peer.tail, <size_t>peer.tail_size)
        count = recv(peer.fd, self.received + peer.tail_size, RECEIVE_SIZE, MSG_DONTWAIT)
        if count <= 0:
            return count < 0 and (errno == EAGAIN or errno == EINTR)
        size = peer.tail_size + count
        self.out_size = 0
        while at < size:
            if self.protocol == MQTT:
                used = self.take_mqtt(self.received + at, size - at)
            else:
                used = self.take_http(self.received + at, size - at)
            if used == 0:
                break
            if used == BROKEN:
                return False
            at += used
        if size - at > TAIL_SIZE:
            return False
        peer.tail_size = size - at
        memcpy(peer.tail, self.received + at, <size_t>peer.tail_size)
        return self.write(peer.fd)

    cdef Py_ssize_t take_mqtt(self, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Take a packet. Return its size, 0 if more bytes are needed. Hot path."""
        cdef Py_ssize_t length = 0, at = 1, identifier
        cdef int shift = 0, kind = data[0] >> 4
        cdef uint8_t[4] puback
        while True:
            if at == size:
                return 0
            length |= <Py_ssize_t>(data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 0x80:
                break
            if shift > 21:
                return BROKEN
        if size < at + length:
            return 0
        if kind == 1:
            # The version follows the protocol name, which is MQTT.
            if length > VERSION_OFFSET and data[at + VERSION_OFFSET] == 5:
                self.put(connack_5, sizeof(connack_5))
            else:
                self.put(connack, sizeof(connack))
        elif kind == 12:
            self.put(pingresp, sizeof(pingresp))
        elif kind == 3:
            self.messages += 1
            if data[0] & 0x06:
                identifier = at + 2 + (data[at] << 8 | data[at + 1])
                if length < 4 or identifier + 2 > at + length:
                    return BROKEN
                puback = [0x40, 2, data[identifier], data[identifier + 1]]
                self.put(puback, sizeof(puback))
        return at + length

    cdef Py_ssize_t take_http(self, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Take a request. Return its size, 0 if more bytes are needed. Hot path."""
        cdef const uint8_t* end = <const uint8_t*>memmem(data, <size_t>size, b"\r\n\r\n", 4)
        cdef const uint8_t* at
        cdef Py_ssize_t length = 0
        if end == NULL:
            return 0
        at = <const uint8_t*>memmem(data, <size_t>(end - data), b"Content-Length: ", 16)
        if at == NULL:
            return BROKEN
        at += 16
        while at < end and c"0" <= at[0] <= c"9" and length < TAIL_SIZE:
            length = length * 10 + at[0] - c"0"
            at += 1
        if size < end + 4 + length - data:
            return 0
        self.messages += 1
        self.put(response, response_size)
        return end + 4 + length - data

    cdef void put(self, const void* data, Py_ssize_t size) noexcept nogil:
        """Append to the answers, which have room for those to one read."""
        if self.out_size + size <= OUT_SIZE:
            memcpy(self.out + self.out_size, data, <size_t>size)
            self.out_size += size

    cdef bint write(self, int fd) noexcept nogil:
        """Send the answers. Wait for a client that does not read."""
        cdef Py_ssize_t at = 0
        cdef ssize_t sent
        cdef pollfd waiting = pollfd(fd, POLLOUT, 0)
        while at < self.out_size:
            sent = send(fd, self.out + at, <size_t>(self.out_size - at), MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent >= 0:
                at += sent
            elif errno == EAGAIN:
                poll(&waiting, 1, -1)
            elif errno != EINTR:
                return False
        return True

    # ---------------------------------------------------------------- datagrams

    cdef int read_datagrams(self) except -1 nogil:
        """Answer a batch of datagrams. Hot path."""
        cdef mmsghdr[BATCH] incoming
        cdef mmsghdr[BATCH] outgoing
        cdef iovec[BATCH] incoming_at
        cdef iovec[BATCH] outgoing_at
        cdef sockaddr_storage[BATCH] addresses
        cdef Py_ssize_t before
        cdef int index, count, answers = 0
        cdef bint joined
        memset(incoming, 0, sizeof(incoming))
        memset(outgoing, 0, sizeof(outgoing))
        for index in range(BATCH):
            incoming_at[index] = iovec(self.received + index * DATAGRAM_SIZE, DATAGRAM_SIZE)
            incoming[index].msg_hdr.msg_iov = &incoming_at[index]
            incoming[index].msg_hdr.msg_iovlen = 1
            incoming[index].msg_hdr.msg_name = &addresses[index]
            incoming[index].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
        count = recvmmsg(self.fd, incoming, BATCH, MSG_DONTWAIT, NULL)
        self.out_size = 0
        for index in range(count):
            before = self.out_size
            if self.protocol == COAP:
                self.take_coap(<const uint8_t*>incoming_at[index].iov_base, incoming[index].msg_len)
            elif self.protocol == MQTT_SN:
                self.take_mqtt_sn(<const uint8_t*>incoming_at[index].iov_base, incoming[index].msg_len)
            else:
                # As in the gateway, one datagram acknowledges all messages that a device has sent at once.
                joined = answers > 0 and memcmp(
                    incoming[index].msg_hdr.msg_name, outgoing[answers - 1].msg_hdr.msg_name, ADDRESS_SIZE
                ) == 0
                self.take_kpudp(<const uint8_t*>incoming_at[index].iov_base, incoming[index].msg_len, joined)
                if joined:
                    outgoing_at[answers - 1].iov_len += <size_t>(self.out_size - before)
                    continue
            if self.out_size == before:
                continue
            outgoing_at[answers] = iovec(self.out + before, <size_t>(self.out_size - before))
            outgoing[answers].msg_hdr = incoming[index].msg_hdr
            outgoing[answers].msg_hdr.msg_iov = &outgoing_at[answers]
            outgoing[answers].msg_hdr.msg_flags = 0
            answers += 1
        if answers:
            sendmmsg(self.fd, outgoing, <unsigned int>answers, MSG_DONTWAIT)
        return 0

    cdef void take_coap(self, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Answer a ping with a reset, and another confirmable message with 2.04. Hot path."""
        cdef int token_size
        cdef uint8_t[COAP_HEADER_SIZE] head
        if size < COAP_HEADER_SIZE or data[0] >> 6 != 1 or (data[0] >> 4 & 3) != CON:
            return
        token_size = data[0] & 0x0F
        if token_size > 8 or size < COAP_HEADER_SIZE + token_size:
            return
        if data[1] == EMPTY:
            head = [0x40 | <uint8_t>RST << 4, EMPTY, data[2], data[3]]
        else:
            self.messages += 1
            head = [<uint8_t>(0x40 | <uint8_t>COAP_ACK << 4 | token_size), CHANGED, data[2], data[3]]
        self.put(head, sizeof(head))
        if data[1] != EMPTY:
            self.put(data + COAP_HEADER_SIZE, token_size)

    cdef void take_mqtt_sn(self, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Answer CONNECT, REGISTER with topic ID 1, and PUBLISH. Hot path."""
        cdef uint8_t[3] connack = [3, SN_CONNACK, 0]
        cdef uint8_t[7] answer
        if size < 7 or data[0] != size:
            return
        if data[1] == SN_CONNECT:
            self.put(connack, sizeof(connack))
        elif data[1] == SN_REGISTER:
            answer = [7, SN_REGACK, 0, 1, data[4], data[5], 0]
            self.put(answer, sizeof(answer))
        elif data[1] == SN_PUBLISH:
            self.messages += 1
            answer = [7, SN_PUBACK, data[3], data[4], data[5], data[6], 0]
            self.put(answer, sizeof(answer))

    cdef void take_kpudp(self, const uint8_t* data, Py_ssize_t size, bint joined) noexcept nogil:
        """Answer every CONFIRMED DATA with ACK, after a datagram header unless it is `joined` to others. Hot path."""
        cdef uint8_t[KPUDP_HEADER_SIZE] header
        cdef uint8_t[HEAD_SIZE] ack
        cdef Frame frame
        cdef Py_ssize_t at = KPUDP_HEADER_SIZE, consumed
        if size < KPUDP_HEADER_SIZE:
            return
        while at < size and read_frame(data + at, size - at, &frame, &consumed) == WELL_FORMED:
            at += consumed
            if frame.type != CONFIRMED_DATA:
                continue
            self.messages += 1
            if not joined:
                joined = True
                put_header(header, data[1])
                self.put(header, sizeof(header))
            put_ack(ack, frame.message_id)
            self.put(ack, sizeof(ack))
