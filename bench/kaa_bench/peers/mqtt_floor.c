/* The least that an MQTT gateway can do for a device that connects, is sent a push, or sends a message: the gateway's system calls, and
 * next to nothing between them.
 *
 * A connection is accepted and put into the epoll set, its CONNECT read and answered, its DISCONNECT read, and closed.
 * What NATS sends is read in one go, and each device gets what there is for it with one write. A PUBLISH of QoS 1 goes
 * to NATS in one write with a PING, and its PUBACK follows the PONG. A packet is taken to come whole and alone; nothing
 * is checked, counted, or remembered but whom to answer, so this is no gateway: its cost is the kernel's share of the
 * bench's rows `connect`, `push` and `lone`, under what no program with these system calls can come.
 *
 * Usage: mqtt_floor <port> <NATS port>, on the loopback address.
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
    EVENTS_AT_ONCE = 512,
    DEVICES = 1 << 16,      /* highest descriptor */
    TOPIC_SIZE = 256,
    OUTPUT_SIZE = 1 << 14,  /* of a device, between two reads from NATS */
    STREAM_SIZE = 1 << 20,
    UNANSWERED = 1 << 10,   /* a power of two */
    CONNECT = 0x10, PUBLISH = 0x32, SUBSCRIBE = 0x82, PINGREQ = 0xC0, DISCONNECT = 0xE0,
};

/* A device that has subscribed: the topic of what it is sent, and what waits for the end of the tick. */
struct device { uint16_t topic_size; uint8_t topic[TOPIC_SIZE]; size_t waiting; uint8_t output[OUTPUT_SIZE]; };

static struct device *devices[DEVICES];
static int awake[DEVICES], awake_count;
static uint8_t packet[1 << 18], stream[STREAM_SIZE + 1];
static size_t stream_size;

/* The PUBACKs that wait for PONG, in the order of their PINGs. */
static struct { int fd; uint8_t packet_id[2]; } unanswered[UNANSWERED];
static unsigned first_unanswered, next_unanswered;

static void check(int good, const char *what) {
    if (!good) { perror(what); exit(1); }
}

static struct sockaddr_in local(const char *port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static int listening_socket(const char *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in address = local(port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    check(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    check(listen(fd, 4096) == 0, "listen");
    return fd;
}

static int connected_to_nats(const char *port) {
    static const char hello[] = "CONNECT {\"verbose\":false}\r\n";
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = local(port);
    check(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    check(read(fd, stream, STREAM_SIZE) > 0, "INFO");
    check(write(fd, hello, sizeof hello - 1) > 0, "CONNECT");
    return fd;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

/* The one topic of a SUBSCRIBE, and a subscription of NATS to it whose number is the device's descriptor. */
static void subscribe(int fd, int nats) {
    struct device *device = devices[fd] = calloc(1, sizeof *device);
    char line[TOPIC_SIZE + 32];
    check(device != NULL, "calloc");
    device->topic_size = (uint16_t)(packet[4] << 8 | packet[5]);
    check(device->topic_size < TOPIC_SIZE, "topic");
    memcpy(device->topic, packet + 6, device->topic_size);
    int size = snprintf(line, sizeof line, "SUB %.*s %d\r\n", device->topic_size, (char *)device->topic, fd);
    for (char *at = line; (at = strchr(at, '/')) != NULL;)
        *at = '.';
    check(write(nats, line, (size_t)size) == size, "SUB");
    check(send(fd, (uint8_t[]){0x90, 3, packet[2], packet[3], 0}, 5, MSG_NOSIGNAL) == 5, "SUBACK");
}

/* The message of a PUBLISH with QoS 1, its topic as subject, and the PING whose PONG will confirm it. */
static void publish(int fd, int nats, size_t size) {
    static char line[1 << 19];
    size_t at = packet[1] < 0x80 ? 2 : 3, topic_size = (size_t)(packet[at] << 8 | packet[at + 1]);
    uint8_t *topic = packet + at + 2, *payload = topic + topic_size + 2;
    check(at + 4 + topic_size <= size && next_unanswered - first_unanswered < UNANSWERED, "PUBLISH");
    size_t payload_size = size - (size_t)(payload - packet);
    for (size_t i = 0; i < topic_size; i++)
        topic[i] = topic[i] == '/' ? '.' : topic[i];
    size_t line_size = (size_t)sprintf(line, "PUB %.*s %zu\r\n", (int)topic_size, (char *)topic, payload_size);
    memcpy(line + line_size, payload, payload_size);
    memcpy(line + line_size + payload_size, "\r\nPING\r\n", 8);
    unanswered[next_unanswered % UNANSWERED].fd = fd;
    memcpy(unanswered[next_unanswered++ % UNANSWERED].packet_id, payload - 2, 2);
    check(write(nats, line, line_size + payload_size + 8) > 0, "PUB");
}

static void acknowledge(void) {
    unsigned place = first_unanswered++ % UNANSWERED;
    check(first_unanswered <= next_unanswered, "PONG");
    uint8_t *id = unanswered[place].packet_id;
    send(unanswered[place].fd, (uint8_t[]){0x40, 2, id[0], id[1]}, 4, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void from_device(int fd, int nats) {
    ssize_t size = recv(fd, packet, sizeof packet, 0);
    if (size > 0 && packet[0] == CONNECT) {
        send(fd, (uint8_t[]){0x20, 2, 0, 0}, 4, MSG_NOSIGNAL);
    } else if (size > 0 && packet[0] == SUBSCRIBE) {
        subscribe(fd, nats);
    } else if (size > 0 && packet[0] == PUBLISH) {
        publish(fd, nats, (size_t)size);
    } else if (size > 0 && packet[0] == PINGREQ) {
        send(fd, (uint8_t[]){0xD0, 0}, 2, MSG_NOSIGNAL);
    } else if (size <= 0 || packet[0] == DISCONNECT) {
        free(devices[fd]);
        devices[fd] = NULL;
        close(fd);
    }
}

/* A message as PUBLISH of QoS 0, behind what already waits for the device. */
static void push(int fd, const uint8_t *payload, size_t size) {
    struct device *device = devices[fd];
    size_t body = device == NULL ? 0 : 2u + device->topic_size + size;
    if (device == NULL || device->waiting + body + 3 > OUTPUT_SIZE)
        return;
    uint8_t *at = device->output + device->waiting;
    *at++ = 0x30;
    if (body > 127)
        *at++ = (uint8_t)(body | 0x80);
    *at++ = (uint8_t)(body > 127 ? body >> 7 : body);
    *at++ = (uint8_t)(device->topic_size >> 8);
    *at++ = (uint8_t)device->topic_size;
    memcpy(at, device->topic, device->topic_size);
    memcpy(at + device->topic_size, payload, size);
    if (device->waiting == 0)
        awake[awake_count++] = fd;
    device->waiting = (size_t)(at - device->output) + device->topic_size + size;
}

static void from_nats(int nats) {
    ssize_t count = read(nats, stream + stream_size, STREAM_SIZE - stream_size);
    uint8_t *at = stream, *end;
    check(count > 0, "NATS");
    stream_size += (size_t)count;
    for (uint8_t *last = stream + stream_size; (end = memchr(at, '\n', (size_t)(last - at))) != NULL;) {
        if (*at == 'M') {
            char *field = memchr(at + 4, ' ', (size_t)(end - at));
            int fd = (int)strtol(field, &field, 10);
            size_t size = strtoul(field, NULL, 10);
            if (end + 1 + size + 2 > last)
                break;
            push(fd, end + 1, size);
            end += size + 2;
        } else if (*at == 'P' && at[1] == 'I') {
            check(write(nats, "PONG\r\n", 6) == 6, "PONG");
        } else if (*at == 'P' && at[1] == 'O') {
            acknowledge();
        }
        at = end + 1;
    }
    stream_size -= (size_t)(at - stream);
    memmove(stream, at, stream_size);
    while (awake_count) {
        struct device *device = devices[awake[--awake_count]];
        send(awake[awake_count], device->output, device->waiting, MSG_NOSIGNAL | MSG_DONTWAIT);
        device->waiting = 0;
    }
}

int main(int count, char **arguments) {
    struct epoll_event events[EVENTS_AT_ONCE];
    check(count == 3, "usage: mqtt_floor <port> <NATS port>");
    int nats = connected_to_nats(arguments[2]), listening = listening_socket(arguments[1]);
    int epoll = epoll_create1(0);
    watch(epoll, nats);
    watch(epoll, listening);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == nats) {
                from_nats(nats);
            } else if (fd == listening) {
                int accepted = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (accepted >= 0 && accepted < DEVICES)
                    watch(epoll, accepted);
            } else {
                from_device(fd, nats);
            }
        }
    }
}
