/* A device that speaks encrypted KP over UDP (docs/kp-over-udp-secure.md) in plain POSIX C, without a library.
 *
 *   cc -Wall -Wextra -std=c11 -O2 -o kpudp_secure_device kpudp_secure_device.c
 *   ./kpudp_secure_device 127.0.0.1 5687 device-1 000102030405060708090a0b0c0d0e0f kp1/app_v1/dcx/token/json 3
 *   ./kpudp_secure_device vectors 000102...1f
 *
 * It sends samples that it wants acknowledged, moves to another port before each, resumes its session as after a
 * restart, and sends one sample more. `vectors` prints datagrams of the specification. One message is under way at a
 * time; kpudp_device.c shows requests and pushes. ChaCha20-Poly1305 and SHA-256 are written for size; a device with
 * hardware for them uses that. */
#define _DEFAULT_SOURCE
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------- SHA-256, HMAC and HKDF (FIPS 180-4, RFC 2104, 5869) */

typedef struct { uint32_t state[8]; uint64_t size; uint8_t block[64]; } Sha256;

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t right(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(Sha256 *s) {
    uint32_t w[64], v[8], t1, t2;
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)s->block[4 * i] << 24 | s->block[4 * i + 1] << 16 | s->block[4 * i + 2] << 8 | s->block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (right(w[i - 15], 7) ^ right(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7]
             + (right(w[i - 2], 17) ^ right(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->state, sizeof v);
    for (int i = 0; i < 64; i++) {
        t1 = v[7] + (right(v[4], 6) ^ right(v[4], 11) ^ right(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + ROUND[i] + w[i];
        t2 = (right(v[0], 2) ^ right(v[0], 13) ^ right(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        s->state[i] += v[i];
}

static void sha256_begin(Sha256 *s) {
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->state, first, sizeof first);
    s->size = 0;
}

static void sha256_add(Sha256 *s, const void *data, size_t size) {
    for (const uint8_t *at = data; size; size--) {
        s->block[s->size++ % 64] = *at++;
        if (s->size % 64 == 0)
            sha256_block(s);
    }
}

static void sha256_end(Sha256 *s, uint8_t out[32]) {
    uint64_t bits = 8 * s->size;
    uint8_t size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(s, "\x80", 1);
    while (s->size % 64 != 56)
        sha256_add(s, "", 1);
    sha256_add(s, size, 8);
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
}

/* Of a key of at most 64 bytes. */
static void hmac(const uint8_t *key, size_t key_size, const uint8_t *data, size_t size, uint8_t out[32]) {
    uint8_t pad[64] = {0}, inner[32];
    Sha256 s;
    memcpy(pad, key, key_size);
    for (int i = 0; i < 64; i++)
        pad[i] ^= 0x36;
    sha256_begin(&s), sha256_add(&s, pad, 64), sha256_add(&s, data, size), sha256_end(&s, inner);
    for (int i = 0; i < 64; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    sha256_begin(&s), sha256_add(&s, pad, 64), sha256_add(&s, inner, 32), sha256_end(&s, out);
}

static void hkdf_expand(const uint8_t secret[32], const uint8_t *info, size_t info_size, uint8_t *out, size_t size) {
    uint8_t data[32 + 64 + 1], block[32];
    size_t before = 0;
    for (uint8_t number = 1; size; number++) {
        size_t part = size < 32 ? size : 32;
        memcpy(data, block, before);
        memcpy(data + before, info, info_size);
        data[before + info_size] = number;
        hmac(secret, 32, data, before + info_size + 1, block);
        memcpy(out, block, part);
        out += part, size -= part, before = 32;
    }
}

/* ---------------------------------------------------------------- ChaCha20-Poly1305 (RFC 8439) */

static uint32_t get_32_le(const uint8_t *at) { return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24; }
static void put_32_le(uint8_t *at, uint32_t x) { at[0] = (uint8_t)x, at[1] = (uint8_t)(x >> 8), at[2] = (uint8_t)(x >> 16), at[3] = (uint8_t)(x >> 24); }
static uint32_t left(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void quarter(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
    *a += *b, *d = left(*d ^ *a, 16), *c += *d, *b = left(*b ^ *c, 12);
    *a += *b, *d = left(*d ^ *a, 8), *c += *d, *b = left(*b ^ *c, 7);
}

static void chacha20_block(const uint8_t key[32], const uint8_t nonce[12], uint32_t counter, uint8_t out[64]) {
    uint32_t first[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];
    for (int i = 0; i < 8; i++)
        first[4 + i] = get_32_le(key + 4 * i);
    first[12] = counter;
    for (int i = 0; i < 3; i++)
        first[13 + i] = get_32_le(nonce + 4 * i);
    memcpy(x, first, sizeof x);
    for (int i = 0; i < 10; i++) {
        for (int j = 0; j < 4; j++)
            quarter(x + j, x + 4 + j, x + 8 + j, x + 12 + j);
        for (int j = 0; j < 4; j++)
            quarter(x + j, x + 4 + (j + 1) % 4, x + 8 + (j + 2) % 4, x + 12 + (j + 3) % 4);
    }
    for (int i = 0; i < 16; i++)
        put_32_le(out + 4 * i, x[i] + first[i]);
}

static void chacha20(const uint8_t key[32], const uint8_t nonce[12], const uint8_t *in, size_t size, uint8_t *out) {
    uint8_t stream[64];
    for (size_t i = 0; i < size; i++) {
        if (i % 64 == 0)
            chacha20_block(key, nonce, (uint32_t)(i / 64 + 1), stream);
        out[i] = in[i] ^ stream[i % 64];
    }
}

typedef struct { uint32_t r[5], h[5]; } Poly1305; /* limbs of 26 bits */

/* Take a block of 16 bytes: here each is whole, because the parts of the message are padded. */
static void poly1305_block(Poly1305 *p, const uint8_t *m) {
    uint64_t d[5], carry = 0;
    p->h[0] += get_32_le(m) & 0x3ffffff;
    p->h[1] += get_32_le(m + 3) >> 2 & 0x3ffffff;
    p->h[2] += get_32_le(m + 6) >> 4 & 0x3ffffff;
    p->h[3] += get_32_le(m + 9) >> 6 & 0x3ffffff;
    p->h[4] += get_32_le(m + 12) >> 8 | 1 << 24;
    for (int i = 0; i < 5; i++) {
        d[i] = 0;
        for (int j = 0; j < 5; j++)
            d[i] += (uint64_t)p->h[j] * (j <= i ? p->r[i - j] : 5 * p->r[5 + i - j]);
    }
    for (int i = 0; i < 5; i++) {
        d[i] += carry;
        carry = d[i] >> 26;
        p->h[i] = (uint32_t)d[i] & 0x3ffffff;
    }
    p->h[0] += (uint32_t)carry * 5;
    p->h[1] += p->h[0] >> 26;
    p->h[0] &= 0x3ffffff;
}

static void poly1305_padded(Poly1305 *p, const uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i += 16) {
        uint8_t block[16] = {0};
        memcpy(block, data + i, size - i < 16 ? size - i : 16);
        poly1305_block(p, block);
    }
}

/* The tag of a header and of encrypted bytes. */
static void tag_of(const uint8_t key[32], const uint8_t nonce[12], const uint8_t *header, size_t header_size,
                   const uint8_t *sealed, size_t size, uint8_t tag[16]) {
    uint8_t k[64], sizes[16] = {0};
    uint32_t carry = 0, g[5], mask;
    uint64_t sum = 0;
    chacha20_block(key, nonce, 0, k);
    Poly1305 p = {{get_32_le(k) & 0x3ffffff, get_32_le(k + 3) >> 2 & 0x3ffff03, get_32_le(k + 6) >> 4 & 0x3ffc0ff,
                   get_32_le(k + 9) >> 6 & 0x3f03fff, get_32_le(k + 12) >> 8 & 0x00fffff}, {0}};
    poly1305_padded(&p, header, header_size);
    poly1305_padded(&p, sealed, size);
    put_32_le(sizes, (uint32_t)header_size);
    put_32_le(sizes + 8, (uint32_t)size);
    poly1305_block(&p, sizes);
    for (int i = 1; i <= 6; i++) { /* carry all the way round, and once more */
        p.h[i % 5] += carry;
        carry = p.h[i % 5] >> 26;
        p.h[i % 5] &= 0x3ffffff;
        if (i % 5 == 4)
            carry *= 5;
    }
    p.h[2] += carry;
    carry = 5;
    for (int i = 0; i < 5; i++) { /* g = h + 5 - 2^130 */
        g[i] = p.h[i] + carry;
        carry = g[i] >> 26;
        g[i] &= 0x3ffffff;
    }
    mask = 0 - carry; /* all ones if h is at least 2^130 - 5 */
    for (int i = 0; i < 5; i++)
        p.h[i] = (p.h[i] & ~mask) | (g[i] & mask);
    for (int i = 0; i < 4; i++) {
        uint32_t word = (uint32_t)((uint64_t)p.h[i] >> (6 * i) | (uint64_t)p.h[i + 1] << (26 - 6 * i));
        sum = (uint64_t)word + get_32_le(k + 16 + 4 * i) + (sum >> 32);
        put_32_le(tag + 4 * i, (uint32_t)sum);
    }
}

/* ---------------------------------------------------------------- the session */

enum { HELLO = 1, CHALLENGE, OPEN, SEALED, RESUME, UNKNOWN_SESSION, PATH_CHECK, PATH_PROOF };
enum { CONFIRMED_DATA = 2, ACK = 4, PING = 7, PONG = 8, RESET = 9, HAS_LENGTH = 0x80, HAS_PATH = 0x40, ALIAS = 1, UNKNOWN_ALIAS = 3 };
enum { HELLO_SIZE = 48, CHALLENGE_SIZE = 47, HEADER_SIZE = 14, TAG_SIZE = 16, DATAGRAM_MAX = 1228, OPENING_MAX = 200 };
enum { TRANSMISSIONS = 6, OPENS_MAX = 3, ACK_TIMEOUT_MS = 2000 };

static int sock = -1;
static struct addrinfo *server;
static uint8_t psk[64];
static size_t psk_size;
static const char *identity;

static uint8_t client_random[16];
static int opening_sent;               /* HELLO was sent and not answered */
static int begun;                      /* there is a session */
static int confirmed;                  /* and the server has answered in this generation */
static uint8_t connection_id[8], secret[32];
static uint16_t generation;            /* a real device keeps it in flash with the two above, and adds one before it resumes */
static uint8_t opening[OPENING_MAX];   /* what stands before the counter until the server has answered */
static size_t opening_size;
static uint8_t keys[88];               /* key and IV of the device, key and IV of the server */
static uint32_t sent, newest;          /* counters; `newest` of the server's, plus one */
static uint64_t seen;                  /* the 64 counters of the server below it */

static void put_32(uint8_t *at, uint32_t x) { at[0] = (uint8_t)(x >> 24), at[1] = (uint8_t)(x >> 16), at[2] = (uint8_t)(x >> 8), at[3] = (uint8_t)x; }
static uint32_t get_32(const uint8_t *at) { return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]; }
static uint16_t get_16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static void nonce_of(const uint8_t *iv, uint32_t counter, uint8_t nonce[12]) {
    uint8_t number[4];
    put_32(number, counter);
    memcpy(nonce, iv, 12);
    for (int i = 0; i < 4; i++)
        nonce[8 + i] ^= number[i];
}

static void begin_generation(uint16_t number, const uint8_t resume_random[8]) {
    uint8_t info[14] = {'k', 'e', 'y', 's', (uint8_t)(number >> 8), (uint8_t)number};
    memcpy(info + 6, resume_random, 8);
    hkdf_expand(secret, info, sizeof info, keys, sizeof keys);
    generation = number, confirmed = 0, begun = 1, sent = 0, newest = 0, seen = 0;
}

static void on_challenge(const uint8_t *in) {
    static const uint8_t zeros[8];
    uint8_t prk[32], info[7 + 32] = "session";
    Sha256 s;
    size_t size = strlen(identity);
    memcpy(connection_id, in + 2, 8);
    memcpy(opening, (uint8_t[]){0xB2, OPEN}, 2);
    memcpy(opening + 2, connection_id, 8);
    opening[10] = 1;                   /* the suites that we have */
    memcpy(opening + 11, in + 10, 1 + 16 + 4 + 16);
    opening[48] = (uint8_t)size;
    memcpy(opening + 49, identity, size);
    opening_size = 49 + size;
    hmac((const uint8_t *)"kaa kp/udp 2", 12, psk, psk_size, prk);
    sha256_begin(&s), sha256_add(&s, opening, opening_size), sha256_end(&s, info + 7);
    hkdf_expand(prk, info, sizeof info, secret, 32);
    begin_generation(0, zeros);
    opening_sent = 0;
}

/* Continue the session as after a restart: with the three values that were kept, and nothing else. */
static void resume(void) {
    memcpy(opening, (uint8_t[]){0xB2, RESUME}, 2);
    memcpy(opening + 2, connection_id, 8);
    generation++;                      /* a real device stores it here, before the first datagram */
    opening[10] = (uint8_t)(generation >> 8), opening[11] = (uint8_t)generation;
    if (getrandom(opening + 12, 8, 0) != 8)
        exit(1);
    opening_size = 20;
    begin_generation(generation, opening + 12);
}

static size_t seal(uint8_t type, const uint8_t *plain, size_t size, uint8_t *out) {
    uint8_t nonce[12];
    size_t header = 10;
    if (type == SEALED && !confirmed) {
        memcpy(out, opening, header = opening_size);
    } else {
        out[0] = 0xB2, out[1] = type;
        memcpy(out + 2, connection_id, 8);
    }
    nonce_of(keys + 32, sent, nonce);
    put_32(out + header, sent++);
    header += 4;
    chacha20(keys, nonce, plain, size, out + header);
    tag_of(keys, nonce, out, header, out + header, size, out + header + size);
    return header + size + TAG_SIZE;
}

/* The size of what is decrypted in place behind the header, or -1 if it is not authentic or not new. */
static int unseal(uint8_t *in, size_t size) {
    uint8_t nonce[12], tag[16], differs = 0;
    uint32_t counter = get_32(in + 10);
    if (!begun || size < HEADER_SIZE + TAG_SIZE || memcmp(in + 2, connection_id, 8) != 0)
        return -1;
    if (counter < newest && (newest - 1 - counter >= 64 || seen >> (newest - 1 - counter) & 1))
        return -1;
    size -= HEADER_SIZE + TAG_SIZE;
    nonce_of(keys + 76, counter, nonce);
    tag_of(keys + 44, nonce, in, HEADER_SIZE, in + HEADER_SIZE, size, tag);
    for (int i = 0; i < TAG_SIZE; i++)
        differs |= (uint8_t)(tag[i] ^ in[HEADER_SIZE + size + (size_t)i]);
    if (differs)
        return -1;
    if (counter >= newest) {
        seen = counter - newest + 1 < 64 ? seen << (counter - newest + 1) | 1 : 1;
        newest = counter + 1;
    } else
        seen |= (uint64_t)1 << (newest - 1 - counter);
    confirmed = 1;
    chacha20(keys + 44, nonce, in + HEADER_SIZE, size, in + HEADER_SIZE);
    return (int)size;
}

/* ---------------------------------------------------------------- the frames, as in kpudp_device.c */

static const char *path;
static int registered;                 /* the server knows our alias */
static struct { uint16_t id; char payload[64]; int done; } now;
static uint16_t last_id;

static int64_t clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void send_out(const uint8_t *out, size_t size) { (void)!send(sock, out, size, 0); /* what is lost is sent again */ }

static void send_hello(void) {
    uint8_t out[HELLO_SIZE] = {0xB2, HELLO, 1};
    if (!opening_sent && getrandom(client_random, sizeof client_random, 0) != sizeof client_random)
        exit(1);
    opening_sent = 1;
    memcpy(out + 3, client_random, sizeof client_random);
    send_out(out, sizeof out);
}

static void send_frame(uint8_t flags, uint16_t id, const uint8_t *body, size_t size) {
    uint8_t plain[600] = {flags, (uint8_t)(id >> 8), (uint8_t)id}, out[DATAGRAM_MAX];
    if (size > sizeof plain - 3)
        return;
    memcpy(plain + 3, body, size);
    send_out(out, seal(SEALED, plain, size + 3, out));
}

static void send_message(void) {
    uint8_t body[512] = {ALIAS};
    size_t size = 1, path_size = strlen(path), payload_size = strlen(now.payload);
    uint8_t flags = CONFIRMED_DATA;
    if (begun && !confirmed && sent >= OPENS_MAX)
        begun = 0;                     /* the server does not take our OPEN or RESUME */
    if (!begun) {
        send_hello();
        return;
    }
    if (!registered) {
        flags |= HAS_PATH;
        body[size++] = (uint8_t)path_size;
        memcpy(body + size, path, path_size);
        size += path_size;
    }
    memcpy(body + size, now.payload, payload_size);
    send_frame(flags, now.id, body, size + payload_size);
}

static void on_frame(uint8_t type, uint16_t id, const uint8_t *body, size_t size) {
    if (type == ACK && id == now.id)
        now.done = registered = 1;
    else if (type == PING)
        send_frame(PONG, id, body, size);
    else if (type == RESET && size >= 2 && id == now.id && !now.done) {
        if (get_16(body) == UNKNOWN_ALIAS) {
            registered = 0;
            send_message();            /* again, with its path */
        } else {
            printf("refused %u\n", get_16(body));
            now.done = 1;
        }
    }
}

static void on_frames(const uint8_t *in, size_t size) {
    size_t at = 0;
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

static void on_datagram(uint8_t *in, size_t size) {
    uint8_t out[DATAGRAM_MAX];
    int plain;
    if (size < HEADER_SIZE || in[0] != 0xB2)
        return;
    if (in[1] == CHALLENGE && size >= CHALLENGE_SIZE && opening_sent && memcmp(in + 11, client_random, 16) == 0) {
        on_challenge(in);
        registered = 0;
        puts("session");
        send_message();
    } else if (in[1] == UNKNOWN_SESSION && begun && memcmp(in + 2, connection_id, 8) == 0 && get_32(in + 10) < sent) {
        send_hello();                  /* beside the session that there is: anybody can have sent this */
    } else if ((in[1] == SEALED || in[1] == PATH_CHECK) && (plain = unseal(in, size)) >= 0) {
        if (in[1] == PATH_CHECK && plain == 8) {
            puts("checked");
            send_out(out, seal(PATH_PROOF, in + HEADER_SIZE, 8, out));
        } else if (in[1] == SEALED)
            on_frames(in + HEADER_SIZE, (size_t)plain);
    }
}

static void receive_for(int64_t wait) {
    uint8_t in[DATAGRAM_MAX];
    struct pollfd ready = {.fd = sock, .events = POLLIN};
    int64_t deadline = clock_ms() + wait, left;
    while (!now.done && (left = deadline - clock_ms()) > 0)
        if (poll(&ready, 1, (int)left) > 0) {
            ssize_t size = recv(sock, in, sizeof in, 0);
            if (size > 0)
                on_datagram(in, (size_t)size);
            fflush(stdout);
        }
}

/* Send a sample until it is acknowledged; whether it was. */
static int sample(int number) {
    int64_t wait = ACK_TIMEOUT_MS;
    snprintf(now.payload, sizeof now.payload, "{\"sample\":%d}", number);
    now.id = ++last_id, now.done = 0;
    for (int i = 0; i < TRANSMISSIONS && !now.done; i++, wait *= 2) {
        send_message();
        receive_for(wait);
    }
    printf(now.done ? "sample %d\n" : "sample %d failed\n", number);
    fflush(stdout);
    return now.done;
}

/* Continue from another port, as after a NAT has forgotten its binding. */
static void move(void) {
    if (sock >= 0)
        close(sock);
    sock = socket(server->ai_family, SOCK_DGRAM, 0);
    if (sock < 0 || connect(sock, server->ai_addr, server->ai_addrlen) != 0)
        exit((perror("kpudp_secure_device"), 1));
}

static int read_key(const char *text) {
    size_t size = strlen(text) / 2;
    if (size < 16 || size > sizeof psk)
        return 0;
    for (psk_size = 0; psk_size < size; psk_size++)
        if (sscanf(text + 2 * psk_size, "%2hhx", psk + psk_size) != 1)
            return 0;
    return 1;
}

static void print_hex(const uint8_t *data, size_t size) {
    while (size--)
        printf("%02x", *data++);
    puts("");
}

/* Print OPEN, SEALED with counter 1, and PATH PROOF of the specification, from the frames on standard input. */
static void print_vectors(void) {
    uint8_t challenge[CHALLENGE_SIZE] = {0xB2, CHALLENGE, 0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 1};
    uint8_t out[DATAGRAM_MAX], frames[512], text[2 * sizeof frames + 2];
    for (int i = 0; i < 16; i++)
        challenge[11 + i] = (uint8_t)(0xa0 + i), challenge[31 + i] = (uint8_t)(0xd0 + i);
    put_32(challenge + 27, 3600);
    identity = "device-1";
    on_challenge(challenge);
    for (int i = 0; i < 3; i++) {
        size_t size = 0;
        if (fgets((char *)text, sizeof text, stdin) == NULL)
            return;
        while (sscanf((char *)text + 2 * size, "%2hhx", frames + size) == 1)
            size++;
        if (i == 1)
            confirmed = 1;
        print_hex(out, seal(i == 2 ? PATH_PROOF : SEALED, frames, size, out));
    }
}

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    int number = 0;
    if (argc == 3 && strcmp(argv[1], "vectors") == 0 && read_key(argv[2]))
        return print_vectors(), 0;
    if (argc != 7 || strlen(argv[3]) > 128 || strlen(argv[3]) == 0 || strlen(argv[5]) > 255 || !read_key(argv[4])
            || getaddrinfo(argv[1], argv[2], &hints, &server) != 0)
        return fprintf(stderr, "usage: kpudp_secure_device HOST PORT IDENTITY KEY PATH SAMPLES\n"), 2;
    identity = argv[3], path = argv[5];
    for (; number < atoi(argv[6]); number++) {
        move();
        if (!sample(number))
            return 1;
    }
    move();
    registered = 0;                    /* a restart: what is not in flash is lost */
    resume();
    return !sample(number);
}
