/* The least that an HTTP gateway in front of NATS can do: the gateway's system calls, and next to nothing between them.
 *
 * A readable connection is read once, and what is there is taken for one request; it becomes one publication, a template
 * with a number in it; those of a tick leave in one write behind which a PING follows; what NATS sends is read, and each
 * answer leaves with one send. Nothing is parsed, checked, remembered or counted, so this is no gateway: its cost is the
 * kernel's share of the bench's row `http`, under what no program with these system calls can come.
 *
 * Usage: http_floor <port> <NATS port> <subject of the answers> <template file> <offset>, on the loopback address.
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
    EVENTS = 256,           /* of a tick */
    REQUEST_SIZE = 1 << 16,
    TEMPLATE_SIZE = 2048,
    STREAM_SIZE = 1 << 20,
    NUMBER_DIGITS = 8,
};

static const char response[] =
    "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
static uint8_t request[REQUEST_SIZE], template[TEMPLATE_SIZE];
static uint8_t published[EVENTS * TEMPLATE_SIZE], stream[STREAM_SIZE];
static size_t template_size, number_offset, published_size, stream_size;

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

static struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static int listening_socket(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in address = loopback(port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    check(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    check(listen(fd, SOMAXCONN) == 0, "listen");
    return fd;
}

static int nats_connection(uint16_t port, const char *inbox) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = loopback(port);
    char hello[256];
    check(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    write_all(fd, hello, (size_t)snprintf(hello, sizeof hello, "CONNECT {\"verbose\":false}\r\nSUB %s 1\r\n", inbox));
    return fd;
}

static void watch(int poll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    check(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void accept_all(int listener, int poll) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(poll, fd);
    }
}

/* Read once, and write a publication whose number is the connection's descriptor. */
static void receive(int fd) {
    ssize_t count = recv(fd, request, sizeof request, MSG_DONTWAIT);
    uint8_t *at = published + published_size;
    if (count <= 0) { close(fd); return; }
    memcpy(at, template, template_size);
    for (int digit = 0; digit < NUMBER_DIGITS; digit++)
        at[number_offset + digit] = (uint8_t)"0123456789abcdef"[fd >> 4 * (NUMBER_DIGITS - 1 - digit) & 15];
    published_size += template_size;
}

static void flush(int nats) {
    if (published_size == 0) return;
    memcpy(published + published_size, "PING\r\n", 6);
    write_all(nats, published, published_size + 6);
    published_size = 0;
}

/* Read once, and answer every request whose ExtensionData is complete. */
static void answer(int nats) {
    ssize_t count = read(nats, stream + stream_size, sizeof stream - stream_size);
    uint8_t *at = stream, *end;
    check(count > 0, "read");
    stream_size += (size_t)count;
    while ((end = memchr(at, '\n', (size_t)(stream + stream_size - at))) != NULL) {
        if (at[0] == 'M') {
            uint8_t *digits = end;
            while (digits[-1] != ' ') digits--;
            size_t size = strtoul((char *)digits, NULL, 10) + 2;
            if ((size_t)(stream + stream_size - end - 1) < size) break;
            uint32_t fd = 0;
            for (int digit = 0; digit < NUMBER_DIGITS; digit++) {
                uint8_t c = end[2 + digit];  /* behind the length of the correlation ID */
                fd = fd << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
            }
            send((int)fd, response, sizeof response - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            end += size;
        } else if (at[0] == 'P' && at[1] == 'I') {
            write_all(nats, "PONG\r\n", 6);
        }
        at = end + 1;
    }
    stream_size -= (size_t)(at - stream);
    memmove(stream, at, stream_size);
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    check(argc == 6, "usage: http_floor <port> <NATS port> <subject of the answers> <template file> <offset>");
    FILE *file = fopen(argv[4], "rb");
    check(file != NULL, argv[4]);
    template_size = fread(template, 1, sizeof template, file);
    check(template_size < sizeof template, "a template of less than 2048 bytes");
    number_offset = strtoul(argv[5], NULL, 10);
    int nats = nats_connection((uint16_t)atoi(argv[2]), argv[3]), poll = epoll_create1(0);
    int listener = listening_socket((uint16_t)atoi(argv[1]));
    watch(poll, nats);
    watch(poll, listener);
    for (;;) {
        int count = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == nats) answer(nats);
            else if (events[i].data.fd == listener) accept_all(listener, poll);
            else receive(events[i].data.fd);
        }
        flush(nats);
    }
}
