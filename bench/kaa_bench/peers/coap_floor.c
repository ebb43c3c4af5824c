/* The least that a CoAP gateway in front of NATS can do: the gateway's system calls, and next to nothing between them.
 *
 * A readable UDP socket is emptied with recvmmsg; each request becomes one publication, a template with a number in
 * it; those of a tick leave in one write behind which a PING follows; what NATS sends is read and the answers leave
 * with sendmmsg. Nothing is checked, remembered or counted, so this is no gateway: its cost is the kernel's share of
 * the bench's row `coap`, under what no program with these system calls can come.
 *
 * Usage: coap_floor <port> <NATS port> <subject of the answers> <template file> <offset>, on the loopback address.
 * The template is a whole PUB; eight digits of its correlation ID, from the offset on, take the number.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    AT_ONCE = 64,           /* datagrams of a system call, as in the gateway */
    DATAGRAM_SIZE = 2048,
    REQUESTS = 1 << 16,     /* outstanding at most */
    SOCKET_BUFFER = 4 << 20,
    STREAM_SIZE = 1 << 20,
    TOKEN_SIZE = 4,         /* of the bench's requests */
    RESPONSE_SIZE = 8,
    NUMBER_DIGITS = 8,
};

static struct { struct sockaddr_in source; uint8_t response[RESPONSE_SIZE]; } requests[REQUESTS];
static struct mmsghdr in[AT_ONCE], out[AT_ONCE];
static struct iovec in_vectors[AT_ONCE], out_vectors[AT_ONCE];
static struct sockaddr_in sources[AT_ONCE];
static uint8_t datagrams[AT_ONCE][DATAGRAM_SIZE], template[DATAGRAM_SIZE];
static uint8_t published[AT_ONCE * DATAGRAM_SIZE], stream[STREAM_SIZE];
static size_t template_size, number_offset, stream_size;
static uint32_t next_request;

static void check(int good, const char *what) {
    if (!good) { perror(what); exit(1); }
}

static void write_all(int fd, const void *data, size_t size) {
    while (size) {
        ssize_t count = write(fd, data, size);
        check(count > 0, "write");
        data = (const uint8_t *)data + count;
        size -= (size_t)count;
    }
}

static int bound_socket(uint16_t port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = SOCKET_BUFFER;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    check(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    return fd;
}

static int nats_connection(uint16_t port, const char *inbox) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char hello[256];
    check(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    write_all(fd, hello, (size_t)snprintf(hello, sizeof hello, "CONNECT {\"verbose\":false}\r\nSUB %s 1\r\n", inbox));
    return fd;
}

/* Take every datagram that is there, and publish them with one write. */
static void receive(int udp, int nats) {
    int count = recvmmsg(udp, in, AT_ONCE, MSG_DONTWAIT, NULL);
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        const uint8_t *datagram = datagrams[i];
        uint32_t number = next_request++ % REQUESTS;
        uint8_t *at = published + size;
        if (datagram[1] == 0) {  /* a ping */
            const uint8_t reset[] = {0x70, 0, datagram[2], datagram[3]};
            sendto(udp, reset, sizeof reset, 0, (struct sockaddr *)&sources[i], sizeof sources[i]);
            continue;
        }
        requests[number].source = sources[i];
        memcpy(requests[number].response, (uint8_t[]){0x60 | TOKEN_SIZE, 0x44, datagram[2], datagram[3]}, 4);
        memcpy(requests[number].response + 4, datagram + 4, TOKEN_SIZE);
        memcpy(at, template, template_size);
        for (int digit = 0; digit < NUMBER_DIGITS; digit++)
            at[number_offset + digit] = (uint8_t)"0123456789abcdef"[number >> 4 * (NUMBER_DIGITS - 1 - digit) & 15];
        size += template_size;
    }
    if (size) {
        memcpy(published + size, "PING\r\n", 6);
        write_all(nats, published, size + 6);
    }
}

static void flush(int udp, int count) {
    for (int done = 0; done < count;) {
        int sent = sendmmsg(udp, out + done, (unsigned)(count - done), MSG_DONTWAIT);
        check(sent > 0, "sendmmsg");
        done += sent;
    }
}

/* Read once, and answer every request whose ExtensionData is complete. */
static void answer(int nats, int udp) {
    ssize_t count = read(nats, stream + stream_size, sizeof stream - stream_size);
    uint8_t *at = stream, *end;
    int outgoing = 0;
    check(count > 0, "read");
    stream_size += (size_t)count;
    while ((end = memchr(at, '\n', (size_t)(stream + stream_size - at))) != NULL) {
        if (at[0] == 'M') {
            uint8_t *digits = end;
            while (digits[-1] != ' ') digits--;
            size_t size = strtoul((char *)digits, NULL, 10) + 2;
            if ((size_t)(stream + stream_size - end - 1) < size) break;
            uint32_t number = 0;
            for (int digit = 0; digit < NUMBER_DIGITS; digit++) {
                uint8_t c = end[2 + digit];  /* behind the length of the correlation ID */
                number = number << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
            }
            number %= REQUESTS;
            out_vectors[outgoing] = (struct iovec){requests[number].response, RESPONSE_SIZE};
            out[outgoing].msg_hdr.msg_name = &requests[number].source;
            if (++outgoing == AT_ONCE) { flush(udp, outgoing); outgoing = 0; }
            end += size;
        } else if (at[0] == 'P' && at[1] == 'I') {
            write_all(nats, "PONG\r\n", 6);
        }
        at = end + 1;
    }
    flush(udp, outgoing);
    stream_size -= (size_t)(at - stream);
    memmove(stream, at, stream_size);
}

int main(int argc, char **argv) {
    check(argc == 6, "usage: coap_floor <port> <NATS port> <subject of the answers> <template file> <offset>");
    FILE *file = fopen(argv[4], "rb");
    check(file != NULL, argv[4]);
    template_size = fread(template, 1, sizeof template, file);
    number_offset = strtoul(argv[5], NULL, 10);
    for (int i = 0; i < AT_ONCE; i++) {
        in_vectors[i] = (struct iovec){datagrams[i], DATAGRAM_SIZE};
        in[i].msg_hdr = (struct msghdr){
            .msg_name = &sources[i], .msg_namelen = sizeof sources[i], .msg_iov = &in_vectors[i], .msg_iovlen = 1};
        out[i].msg_hdr = (struct msghdr){
            .msg_namelen = sizeof sources[i], .msg_iov = &out_vectors[i], .msg_iovlen = 1};
    }
    int udp = bound_socket((uint16_t)atoi(argv[1])), nats = nats_connection((uint16_t)atoi(argv[2]), argv[3]);
    int poll = epoll_create1(0);
    struct epoll_event events[2] = {{.events = EPOLLIN, .data = {.fd = udp}}, {.events = EPOLLIN, .data = {.fd = nats}}};
    epoll_ctl(poll, EPOLL_CTL_ADD, udp, &events[0]);
    epoll_ctl(poll, EPOLL_CTL_ADD, nats, &events[1]);
    for (;;) {
        int count = epoll_wait(poll, events, 2, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == udp) receive(udp, nats);
            else answer(nats, udp);
        }
    }
}
