/* The least that a server of MQTT over TLS can do: OpenSSL on each socket, and next to nothing between.
 *
 * A connection is accepted, its handshake done, its packets decrypted, and CONNECT, PUBLISH of QoS 1 and PINGREQ
 * answered, with one SSL_write for what one SSL_read has brought. Nothing is checked, remembered, counted or forwarded,
 * so this is no gateway: its cost is that of TLS and the kernel, under what no program with OpenSSL can come.
 *
 * Usage: tls_floor <port> <certificate> <key>, on the loopback address.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS_AT_ONCE = 512,
    CONNECTIONS = 1 << 16,   /* highest descriptor */
    RECORD_SIZE = 1 << 14,
    TAIL_SIZE = 1 << 12,     /* of an incomplete packet */
    CONNECT = 1, PUBLISH = 3, PINGREQ = 12, DISCONNECT = 14,
};

struct connection { SSL *tls; size_t tail_size; uint8_t *tail; };

static struct connection connections[CONNECTIONS];
static uint8_t input[RECORD_SIZE + TAIL_SIZE], output[1 << 18];
static size_t output_size;

static void check(int good, const char *what) {
    if (!good) { perror(what); ERR_print_errors_fp(stderr); exit(1); }
}

static void append(const uint8_t *data, size_t size) {
    memcpy(output + output_size, data, size);
    output_size += size;
}

static void end(int fd) {
    SSL_free(connections[fd].tls);
    free(connections[fd].tail);
    connections[fd] = (struct connection){0};
    close(fd);
}

/* Answer the packet at `at`; return its size, 0 if it is incomplete. */
static size_t answer(const uint8_t *at, size_t size, int *ended) {
    size_t length = 0, head = 1;
    int shift = 0;
    do {
        if (head >= size)
            return 0;
        length |= (size_t)(at[head] & 0x7F) << shift;
        shift += 7;
    } while (at[head++] & 0x80);
    if (size < head + length)
        return 0;
    switch (at[0] >> 4) {
    case CONNECT:
        append((uint8_t[]){0x20, 2, 0, 0}, 4);
        break;
    case PUBLISH:
        if (at[0] & 2) {
            const uint8_t *identifier = at + head + 2 + (at[head] << 8 | at[head + 1]);
            append((uint8_t[]){0x40, 2, identifier[0], identifier[1]}, 4);
        }
        break;
    case PINGREQ:
        append((uint8_t[]){0xD0, 0}, 2);
        break;
    case DISCONNECT:
        *ended = 1;
    }
    return head + length;
}

static void serve(int fd) {
    struct connection *connection = &connections[fd];
    int ended = 0;
    for (;;) {
        size_t at = 0, used, size = connection->tail_size;
        if (size)
            memcpy(input, connection->tail, size);
        int got = SSL_read(connection->tls, input + size, RECORD_SIZE);
        if (got <= 0) {
            if (SSL_get_error(connection->tls, got) != SSL_ERROR_WANT_READ)
                end(fd);
            return;
        }
        size += (size_t)got;
        output_size = 0;
        while ((used = answer(input + at, size - at, &ended)) != 0)
            at += used;
        connection->tail_size = size - at;
        check(connection->tail_size <= TAIL_SIZE, "packet");
        if (connection->tail_size) {
            if (connection->tail == NULL)
                connection->tail = malloc(TAIL_SIZE);
            memcpy(connection->tail, input + at, connection->tail_size);
        }
        if (output_size)
            SSL_write(connection->tls, output, (int)output_size);
        if (ended) {
            SSL_shutdown(connection->tls);
            end(fd);
            return;
        }
    }
}

int main(int count, char **arguments) {
    struct epoll_event events[EVENTS_AT_ONCE], event = {.events = EPOLLIN};
    check(count == 4, "usage: tls_floor <port> <certificate> <key>");
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    check(SSL_CTX_use_certificate_chain_file(context, arguments[2]) == 1, "certificate");
    check(SSL_CTX_use_PrivateKey_file(context, arguments[3], SSL_FILETYPE_PEM) == 1, "key");
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, epoll = epoll_create1(0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    check(bind(listening, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    check(listen(listening, 4096) == 0, "listen");
    event.data.fd = listening;
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event) == 0, "epoll_ctl");
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listening) {
                serve(fd);
                continue;
            }
            int accepted = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (accepted < 0 || accepted >= CONNECTIONS)
                continue;
            connections[accepted].tls = SSL_new(context);
            SSL_set_fd(connections[accepted].tls, accepted);
            SSL_set_accept_state(connections[accepted].tls);
            event.data.fd = accepted;
            check(epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event) == 0, "epoll_ctl");
        }
    }
}
