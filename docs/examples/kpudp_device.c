/* A device that speaks KP over UDP (docs/kp-over-udp.md, version 1) in plain POSIX C.
 *
 *   cc -Wall -Wextra -std=c11 -o kpudp_device kpudp_device.c
 *   ./kpudp_device 127.0.0.1 5686 kp1/app_v1/dcx/token/json 3
 *
 * It sends samples that it wants acknowledged, asks one question, and then waits for a push. It works on one message
 * at a time, so it needs memory for one datagram each way, one alias, and the last message IDs of the server. */
#define _POSIX_C_SOURCE 200809L
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONFIRMED_DATA = 2, REQUEST = 3, ACK = 4, RESPONSE = 5, PUSH = 6, PING = 7, PONG = 8, RESET = 9 };
enum { HAS_LENGTH = 0x80, HAS_PATH = 0x40, UNKNOWN_ALIAS = 3, ALIAS = 1 };
enum { DATAGRAM_MAX = 1200, TRANSMISSIONS = 6, ACK_TIMEOUT_MS = 2000, RESPONSE_TIMEOUT_MS = 60000 };
enum { PING_PERIOD_MS = 25000, REMEMBERED = 32 };

static int sock;
static uint8_t epoch;                  /* of this life; a real device keeps the last one in flash and adds one */
static uint16_t last_id;
static const char *path;
static int registered;                 /* the server knows our alias */
static uint16_t seen[REMEMBERED];      /* message IDs of the server */
static unsigned seen_count;
static uint8_t challenge[8];           /* data of the server's last PING */

static struct { uint8_t type; uint16_t id; const char *payload; int done; int taken; } now; /* the message under way */

static int64_t clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint16_t get_16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

/* A datagram of one frame, without length: the body reaches to its end. */
static void send_frame(uint8_t flags, uint16_t id, const uint8_t *body, size_t size) {
    uint8_t out[DATAGRAM_MAX] = {0xB1, epoch, flags, (uint8_t)(id >> 8), (uint8_t)id};
    if (size > sizeof out - 5)
        return;
    if (size)
        memcpy(out + 5, body, size);
    (void)!send(sock, out, 5 + size, 0);   /* what is lost is sent again */
}

static void send_message(void) {
    uint8_t body[DATAGRAM_MAX];
    size_t size = 0, path_size = strlen(path), payload_size = strlen(now.payload);
    uint8_t flags = now.type;
    if (path_size > 255 || payload_size > 900)
        return;
    if (now.type == PING || !registered) {
        flags |= HAS_PATH;
        body[size++] = ALIAS;
        body[size++] = (uint8_t)path_size;
        memcpy(body + size, path, path_size);
        size += path_size;
    } else {
        body[size++] = ALIAS;
    }
    memcpy(body + size, now.payload, payload_size);
    send_frame(flags, now.id, body, size + payload_size);
}

static int seen_before(uint16_t id) {
    for (unsigned i = 0; i < seen_count && i < REMEMBERED; i++)
        if (seen[i] == id)
            return 1;
    seen[seen_count++ % REMEMBERED] = id;
    return 0;
}

static void conclude(uint16_t id) {
    if (id == now.id && !now.done) {
        now.done = 1;
        registered = 1;
    }
}

static void on_frame(uint8_t type, uint16_t id, const uint8_t *body, size_t size) {
    if (type == ACK) {
        now.taken |= id == now.id;
        if (now.type != REQUEST)
            conclude(id);
    } else if (type == PONG) {
        conclude(id);
    } else if (type == PING && size <= sizeof challenge) {
        if (memcmp(challenge, body, size) != 0)
            seen_count = 0;                /* the server has forgotten us, and numbers anew */
        memcpy(challenge, body, size);
        send_frame(PONG, id, body, size);
    } else if (type == RESET && size >= 2) {
        registered = 0;
        if (id == now.id && get_16(body) == UNKNOWN_ALIAS)
            send_message();                /* again, with its path */
        else if (id == now.id && !now.done) {
            printf("refused %u\n", get_16(body));
            now.done = 1;
        }
    } else if (type == RESPONSE && size >= 5 && size >= 5u + body[4]) {
        send_frame(ACK, id, NULL, 0);
        if (!seen_before(id) && get_16(body) == now.id && !now.done) {
            printf("response %u %.*s\n", get_16(body + 2), (int)(size - 5 - body[4]), (const char *)body + 5 + body[4]);
            conclude(now.id);
        }
    } else if (type == PUSH && size >= 4) {
        size_t at = 3u + body[2];          /* of the path length */
        send_frame(ACK, id, NULL, 0);
        if (at < size && at + 1 + body[at] <= size && !seen_before(id))
            printf("push %.*s %.*s\n", body[at], (const char *)body + at + 1, (int)(size - at - 1 - body[at]),
                   (const char *)body + at + 1 + body[at]);
    }
}

static void on_datagram(const uint8_t *in, size_t size) {
    size_t at = 2;
    if (size < 2 || in[0] != 0xB1 || in[1] != epoch)
        return;
    while (size - at >= 3) {
        uint8_t type = in[at] & 0x0F;
        size_t body = at + 3, length = size - body;
        if (in[at] & HAS_LENGTH) {
            if (length < 2 || length - 2 < get_16(in + body))
                return;
            length = get_16(in + body);
            body += 2;
        } else if (type == ACK || type == RESET) {
            size_t fixed = type == RESET ? 2 : 0;
            if (length < fixed)
                return;
            length = fixed;
        }
        on_frame(type, get_16(in + at + 1), in + body, length);
        at = body + length;
    }
}

static void receive_until(int64_t deadline) {
    uint8_t in[DATAGRAM_MAX];
    struct pollfd wait = {.fd = sock, .events = POLLIN};
    int64_t left;
    while (!now.done && (left = deadline - clock_ms()) > 0)
        if (poll(&wait, 1, (int)left) > 0) {
            ssize_t size = recv(sock, in, sizeof in, 0);
            if (size > 0)
                on_datagram(in, (size_t)size);
            fflush(stdout);
        }
}

/* Send a confirmable message until it is answered; whether it was. */
static int exchange(uint8_t type, const char *payload) {
    int64_t wait = ACK_TIMEOUT_MS + rand() % (ACK_TIMEOUT_MS / 2);
    now.type = type, now.id = ++last_id, now.payload = payload, now.done = now.taken = 0;
    for (int i = 0; i < TRANSMISSIONS && !now.done && !now.taken; i++, wait *= 2) {
        send_message();
        receive_until(clock_ms() + wait);
    }
    if (now.taken)
        receive_until(clock_ms() + RESPONSE_TIMEOUT_MS);
    return now.done;
}

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *address;
    char sample[32];
    if (argc != 5 || getaddrinfo(argv[1], argv[2], &hints, &address) != 0)
        return fprintf(stderr, "usage: kpudp_device HOST PORT PATH SAMPLES\n"), 2;
    sock = socket(address->ai_family, SOCK_DGRAM, 0);
    if (sock < 0 || connect(sock, address->ai_addr, address->ai_addrlen) != 0)
        return perror("kpudp_device"), 1;
    srand((unsigned)clock_ms() ^ (unsigned)getpid());
    epoch = (uint8_t)rand();
    last_id = (uint16_t)rand();
    path = argv[3];
    for (int i = 0; i < atoi(argv[4]); i++) {
        snprintf(sample, sizeof sample, "{\"sample\":%d}", i);
        printf(exchange(CONFIRMED_DATA, sample) ? "sample %d\n" : "sample %d failed\n", i);
    }
    if (!exchange(REQUEST, "{}"))
        puts("request failed");
    while (exchange(PING, "pingdata")) {   /* an announcement; pushes are printed as they come */
        puts("announced");
        fflush(stdout);
        now.done = 0, now.type = 0, now.id = ++last_id;
        receive_until(clock_ms() + PING_PERIOD_MS);
    }
    puts("the server is gone");
    return 1;
}
