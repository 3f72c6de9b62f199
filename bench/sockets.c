/* Tens of thousands of WebSockets that listen, and the bare loop of send() beside which a server's
 * fan-out stands.
 *
 *   sockets open --host H --port P --open FILE --expect TEXT --subscribers N [--opening K]
 *           [--hellos FILE --replies R] [--whole 1] [--keep FILE] [--hold 1]
 *   sockets fan  the same, and --batches FILE --publish-port P [--http 1] --window W
 *           --seconds S [--pause-us U] [--watch PID]
 *   sockets bare --opened FILE --hello FILE --push FILE --request-bytes B --reply FILE
 *
 * Each socket sends the handshake of `--open`, expects the status 101 and TEXT in the answer, sends
 * its record of `--hellos` (u32 bytes, then the bytes, masked frames; a single record goes to all)
 * and is ready after R replies. At most K are on their way at a time. What comes is taken apart
 * down to messages, and counted with a message's last byte: payloads are frames of rtserver, or
 * with --whole each WebSocket message is one. Pings are answered. Sources are 127.0.0.2 and the
 * next ones, so that ports do not run out.
 *
 * `open` prints one line when all are ready: how long that took from the first connect(), and the
 * times of single sockets. `--keep` writes what each got until it was ready (u32 bytes, then the
 * bytes, from behind the handshake's head). With `--hold` it then listens until SIGTERM.
 *
 * `fan` publishes over one more connection, as frames or as pipelined POSTs, while no more than W
 * messages are on their way to anybody. With a window of one batch its time runs from its send to
 * the last byte read anywhere, and the next one follows after U microseconds. A message that does
 * not arrive is a failure. Prints one line of JSON.
 *
 * `bare` serves both without thought, in canned bytes: every B bytes of a publisher are a loop of
 * send() over all sockets, then a reply. Prints its port.
 *
 * Exit status 3: the peer refused; 1: anything else.
 */
#define _GNU_SOURCE
#include "common.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 256 * 1024, /* of one receive */
    KEPT_BYTES = 1024,       /* of what came and cannot be told yet */
    EVENTS = 1024,
    SOURCES = 16,            /* addresses that connections come from */
    PUSH = 0x9302, REPLY = 0x9401, /* how bodies of frames begin */
    MESSAGE = 0xa7,          /* a method of seven letters: `message` is the only one */
    NIL = 0xc0,
};

enum stage { CONNECTING, OPENING, GREETING, READY };

struct socket {
    int fd;
    uint8_t stage, opcode, fin;
    bool is_inside;          /* a message of which more is to come; of frames: one of the pushes */
    uint32_t left;           /* bytes of the WebSocket frame that are still to come */
    uint32_t inner;          /* and of the frame inside */
    uint32_t replies;
    uint32_t kept_bytes, answer_bytes;
    uint64_t began;
    char *kept, *answer;
};

struct canned { const char *data; size_t bytes; };

static struct times times;
static const char *host, *expected, *keep_path;
static struct canned handshake, *hellos;
static uint32_t hello_count;
static int port, publish_port, poller, watched;
static bool whole, is_http, holds;
static uint32_t socket_count, replies_wanted, opening_max = 512, window, pause_us;
static struct socket *sockets, publisher = {.fd = -1};
static uint64_t deliveries, published, acknowledged, first_ns;
static uint32_t ready_count, begun;
static volatile sig_atomic_t was_stopped;

static void stop(int signal_number) { was_stopped = signal_number; }

static void watch(struct socket *s, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(poller, operation, s->fd, &event) < 0) die(1, "epoll: %s", strerror(errno));
}

static void send_all(struct socket *s, const char *data, size_t bytes) {
    ssize_t took = send(s->fd, data, bytes, MSG_NOSIGNAL);
    if (took != (ssize_t)bytes) die(1, "sending: %s", took < 0 ? strerror(errno) : "no room");
}

/* --- what comes: each returns how many of `bytes` it took; the rest comes again with more --- */

static void answer_ping(struct socket *s, const unsigned char *payload, uint32_t bytes) {
    char pong[6 + 125] = {(char)0x8a, (char)(0x80 | bytes)}; /* masked with zeros */
    memcpy(pong + 6, payload, bytes);
    send_all(s, pong, 6 + bytes);
}

/* The head of a WebSocket frame (RFC 6455 section 5.2); control frames whole. */
static size_t walk_head(struct socket *s, const unsigned char *at, size_t bytes) {
    size_t head = 2;
    if (bytes < 2) return 0;
    uint64_t length = at[1] & 0x7f;
    if (at[1] & 0x80) die(1, "the peer masks its frames");
    if (length == 126) head = 4;
    if (length == 127) head = 10;
    if (bytes < head) return 0;
    if (length > 125) {
        length = 0;
        for (size_t i = 2; i < head; i++) length = length << 8 | at[i];
    }
    if (length > 1u << 30) die(1, "a frame of %llu bytes", (unsigned long long)length);
    unsigned opcode = at[0] & 0x0f;
    if (opcode >= 8) {
        if (length > 125) die(1, "a control frame of %llu bytes", (unsigned long long)length);
        if (bytes < head + length) return 0;
        if (opcode == 8) refuse((const char *)at + head, length);
        if (opcode == 9) answer_ping(s, at + head, (uint32_t)length);
        return head + length;
    }
    s->fin = at[0] >> 7;
    s->left = (uint32_t)length;
    if (whole && s->fin && !length) die(1, "an empty message");
    return head;
}

/* The first bytes of a frame of rtserver: what it is. */
static bool begin_inner(struct socket *s, const unsigned char *at, size_t bytes) {
    if (bytes < 8) return false;
    unsigned kind = at[4] << 8 | at[5];
    s->inner = 4 + ((uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]);
    s->is_inside = kind == PUSH;
    if (kind == PUSH ? at[6] != MESSAGE || at[7] != 'm' : kind != REPLY || at[7] != NIL)
        refuse((const char *)at, bytes);
    return true;
}

static size_t walk(struct socket *s, const unsigned char *data, size_t bytes) {
    const unsigned char *at = data, *end = data + bytes;
    while (at < end) {
        if (!s->left) {
            size_t took = walk_head(s, at, (size_t)(end - at));
            if (!took) break;
            at += took;
            continue;
        }
        if (!whole && !s->inner && !begin_inner(s, at, (size_t)(end - at))) break;
        uint32_t step = whole || s->left < s->inner ? s->left : s->inner;
        if (step > end - at) step = (uint32_t)(end - at);
        at += step;
        s->left -= step;
        if (!whole) s->inner -= step;
        if (whole ? s->left || !s->fin : s->inner) continue;
        if (whole ? s->replies < replies_wanted : !s->is_inside) s->replies++;
        else deliveries++;
    }
    return (size_t)(at - data);
}

/* Answers to POSTs: a status of 2xx each, with a body of stated length. */
static size_t walk_http(const char *data, size_t bytes) {
    const char *at = data, *end = data + bytes;
    while (at < end) {
        const char *stop = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
        if (!stop) break;
        const char *length = memmem(at, (size_t)(stop - at), "Content-Length: ", 16);
        if (memcmp(at, "HTTP/1.1 2", 10) || !length) refuse(at, (size_t)(end - at));
        size_t all = (size_t)(stop + 4 - at) + strtoul(length + 16, NULL, 10);
        if (all > (size_t)(end - at)) break;
        at += all;
        acknowledged++;
    }
    return (size_t)(at - data);
}

static size_t walk_frames(const unsigned char *data, size_t bytes) {
    const unsigned char *at = data, *end = data + bytes;
    while (end - at >= 8) {
        size_t all = 4 + ((size_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]);
        if (at[4] != 0x94 || at[5] != 1 || at[7] != NIL) refuse((const char *)at, (size_t)(end - at));
        if (all > (size_t)(end - at)) break;
        at += all;
        acknowledged++;
    }
    return (size_t)(at - data);
}

/* The head that ends the handshake; what follows it is the caller's. */
static size_t walk_opened(struct socket *s, const char *data, size_t bytes) {
    const char *stop = memmem(data, bytes, "\r\n\r\n", 4);
    if (!stop) return 0;
    size_t head = (size_t)(stop + 4 - data);
    if (memcmp(data, "HTTP/1.1 101", 12)) refuse(data, bytes);
    if (!memmem(data, head, expected, strlen(expected)))
        die(1, "the answer to the handshake is without %s", expected);
    s->stage = GREETING;
    return head;
}

/* The records of --hellos: one for each socket, or one for all. */
static void read_hellos(const char *path) {
    size_t bytes;
    const char *at = contents(path, &bytes), *end = at + bytes;
    hellos = calloc(socket_count, sizeof *hellos);
    if (!hellos) die(1, "no memory for hellos");
    for (; at < end && hello_count < socket_count; hello_count++) {
        uint32_t length;
        memcpy(&length, at, sizeof length);
        hellos[hello_count] = (struct canned){at + 4, length};
        at += 4 + length;
    }
    if (hello_count != 1 && hello_count != socket_count)
        die(1, "%s: %u records for %u sockets", path, hello_count, socket_count);
}

static void keep_answer(struct socket *s, const char *data, size_t bytes) {
    s->answer = realloc(s->answer, s->answer_bytes + bytes);
    if (!s->answer) die(1, "no memory for answers");
    memcpy(s->answer + s->answer_bytes, data, bytes);
    s->answer_bytes += (uint32_t)bytes;
}

static void settle(struct socket *s) {
    if (s->stage != GREETING || s->replies < replies_wanted) return;
    s->stage = READY;
    ready_count++;
    record(&times, now_ns() - s->began);
}

static void receive(struct socket *s) {
    static char buffer[KEPT_BYTES + READ_BYTES];
    size_t held = s->kept_bytes, took = 0;
    if (held) memcpy(buffer, s->kept, held);
    ssize_t got = recv(s->fd, buffer + held, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) die(1, "receiving: %s", strerror(errno));
    if (got == 0) die(1, "the peer closed a connection");
    size_t bytes = held + (size_t)got;
    if (s == &publisher) {
        took = is_http ? walk_http(buffer, bytes) : walk_frames((unsigned char *)buffer, bytes);
    } else if (s->stage == OPENING) {
        took = walk_opened(s, buffer, bytes);
        if (took && hellos) {
            struct canned hello = hellos[hello_count == 1 ? 0 : s - sockets];
            send_all(s, hello.data, hello.bytes);
        }
        held = took;
    }
    if (s != &publisher && s->stage >= GREETING) {
        if (keep_path && s->stage == GREETING) keep_answer(s, buffer + held, bytes - held);
        took += walk(s, (unsigned char *)buffer + took, bytes - took);
        settle(s);
    }
    if (bytes - took > KEPT_BYTES) die(1, "an answer without an end");
    s->kept_bytes = (uint32_t)(bytes - took);
    if (s->kept_bytes && !s->kept && !(s->kept = malloc(KEPT_BYTES))) die(1, "no memory");
    if (s->kept_bytes) memcpy(s->kept, buffer + took, s->kept_bytes);
}

/* --- connecting --- */

static void dial(struct socket *s, int to_port, uint32_t number) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)to_port)}, from = to;
    struct linger at_once = {.l_onoff = 1}; /* thousands of ports must not linger in TIME_WAIT */
    int yes = 1;
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) die(1, "%s: is no IPv4 address", host);
    from.sin_port = 0;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number % SOURCES);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0) die(1, "no more sockets: %s", strerror(errno));
    setsockopt(s->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    if (bind(s->fd, (struct sockaddr *)&from, sizeof from) < 0) die(1, "bind: %s", strerror(errno));
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        die(1, "connecting to %s:%d: %s", host, to_port, strerror(errno));
    watch(s, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void connected(struct socket *s) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) die(1, "connecting to %s: %s", host, strerror(error));
    watch(s, EPOLL_CTL_MOD, EPOLLIN);
    if (s == &publisher) {
        s->stage = READY;
        return;
    }
    s->stage = OPENING;
    send_all(s, handshake.data, handshake.bytes);
}

/* Waits, and takes what came. The time of the last event. */
static uint64_t turn(int timeout_ms) {
    static struct epoll_event events[EVENTS];
    static uint64_t heard;
    int ready = epoll_wait(poller, events, EVENTS, timeout_ms);
    uint64_t now = now_ns();
    if (ready > 0 || !heard) heard = now;
    if (!holds && now - heard > SILENCE_S * 1000000000ull)
        die(1, "nothing came for %d seconds: %u of %u sockets are ready, %llu of %llu messages"
            " arrived", SILENCE_S, ready_count, socket_count, (unsigned long long)deliveries,
            (unsigned long long)(published * socket_count));
    for (int i = 0; i < ready; i++) {
        struct socket *s = events[i].data.ptr;
        if (s->stage == CONNECTING) connected(s);
        else receive(s);
    }
    return heard;
}

static void open_sockets(void) {
    first_ns = now_ns();
    while (ready_count < socket_count) {
        while (begun < socket_count && begun - ready_count < opening_max) {
            struct socket *s = &sockets[begun];
            s->began = now_ns();
            dial(s, port, begun++);
        }
        turn(1000);
    }
}

static void write_answers(void) {
    FILE *file = keep_path ? fopen(keep_path, "wb") : NULL;
    for (uint32_t i = 0; file && i < socket_count; i++) {
        fwrite(&sockets[i].answer_bytes, 4, 1, file);
        fwrite(sockets[i].answer, 1, sockets[i].answer_bytes, file);
    }
    if (keep_path && (!file || fclose(file))) die(1, "%s: %s", keep_path, strerror(errno));
}

static int listen_only(void) {
    open_sockets();
    double took_s = (double)(now_ns() - first_ns) / 1e9;
    write_answers();
    printf("{\"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n", took_s,
           quantile_us(&times, 0.5), quantile_us(&times, 0.99), (double)times.max / 1e3);
    fflush(stdout);
    while (holds && !was_stopped) turn(200);
    return 0;
}

/* --- fan-out --- */

static int fan_out(const char *batches_path, double seconds) {
    unsigned long long ran[2] = {0, 0}, waited[2] = {0, 0};
    read_batches(batches_path);
    dial(&publisher, publish_port ? publish_port : port, 0);
    open_sockets();
    while (publisher.stage != READY) turn(1000);
    memset(&times, 0, sizeof times);
    deliveries = 0;
    uint64_t before_ns = now_ns(), sent_ns = 0, due_ns = before_ns, heard = before_ns, sent = 0;
    uint64_t end_ns = before_ns + (uint64_t)(seconds * 1e9);
    double before_s = processor_s();
    read_schedule(watched, &ran[0], &waited[0]);
    for (;;) {
        uint64_t now = now_ns(), arrived = deliveries / socket_count;
        bool is_settled = deliveries == published * socket_count && acknowledged == published;
        if (sent_ns && deliveries == published * socket_count) {
            record(&times, heard - sent_ns);
            sent_ns = 0;
            due_ns = now + pause_us * 1000ull;
        }
        while (now < end_ns && now >= due_ns) {
            const struct batch *batch = &batches[sent % batch_count];
            if (published - arrived && published - arrived + batch->publishes > window) break;
            if (window == batch->publishes && (sent_ns || !is_settled)) break;
            if (window == batch->publishes) sent_ns = now_ns();
            send_all(&publisher, batch->data, batch->bytes);
            published += batch->publishes;
            sent++;
        }
        if (now >= end_ns && deliveries == published * socket_count && acknowledged == published)
            break;
        if (deliveries > published * socket_count || acknowledged > published)
            die(1, "more messages than were published arrived, or more replies");
        turn(sent_ns || (is_settled && now < end_ns) ? 0 : 1000);
        heard = now_ns();
    }
    double took_s = (double)(heard - before_ns) / 1e9;
    read_schedule(watched, &ran[1], &waited[1]);
    printf("{\"publishes\": %llu, \"deliveries\": %llu, \"seconds\": %.6f, \"p50_us\": %.2f,"
           " \"p99_us\": %.2f, \"max_us\": %.2f, \"busy_share\": %.4f, \"peer_ran_s\": %.6f,"
           " \"peer_waited_s\": %.6f, \"opening_s\": %.6f}\n",
           (unsigned long long)published, (unsigned long long)deliveries, took_s,
           quantile_us(&times, 0.5), quantile_us(&times, 0.99), (double)times.max / 1e3,
           (processor_s() - before_s) / took_s, (double)(ran[1] - ran[0]) / 1e9,
           (double)(waited[1] - waited[0]) / 1e9, (double)(before_ns - first_ns) / 1e9);
    return 0;
}

/* --- the bare loop --- */

static struct canned canned(const char *path) {
    struct canned made;
    made.data = contents(path, &made.bytes);
    return made;
}

static void put(int fd, struct canned what) {
    for (size_t sent = 0; sent < what.bytes;) {
        ssize_t took = send(fd, what.data + sent, what.bytes - sent, MSG_NOSIGNAL);
        if (took < 0) return; /* it hung up; the next receive says so */
        sent += (size_t)took;
    }
}

/* Of a socket here: `stage` GREETING after its handshake, READY after its hello; `left` counts
 * bytes of a publisher that are not answered yet. */
static void serve(struct socket *s, const char *data, size_t bytes, struct canned opened,
                  struct canned hello, struct canned push, struct canned reply, size_t request) {
    static int *audience;
    static size_t listeners, room;
    if (s->stage == CONNECTING && bytes >= 4 && !memcmp(data, "GET ", 4)) {
        s->stage = GREETING;
        put(s->fd, opened);
    } else if (s->stage == GREETING) {
        s->stage = READY;
        put(s->fd, hello);
        if (listeners == room) audience = realloc(audience, (room = 2 * room + 1024) * sizeof(int));
        if (!audience) die(1, "no memory");
        audience[listeners++] = s->fd;
    } else if (s->stage == CONNECTING) {
        for (s->left += (uint32_t)bytes; s->left >= request; s->left -= (uint32_t)request) {
            for (size_t i = 0; i < listeners; i++) put(audience[i], push);
            put(s->fd, reply);
        }
    }
}

static int bare(struct canned opened, struct canned hello, struct canned push, struct canned reply,
                size_t request) {
    static struct epoll_event events[EVENTS];
    static char buffer[READ_BYTES];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    struct socket own = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    int yes = 1;
    if (bind(own.fd, (struct sockaddr *)&at, size) < 0 || listen(own.fd, 4096) < 0
        || getsockname(own.fd, (struct sockaddr *)&at, &size) < 0)
        die(1, "listening: %s", strerror(errno));
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    watch(&own, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct socket *s = events[i].data.ptr;
            if (s == &own) {
                struct socket *made = calloc(1, sizeof *made);
                if (!made || (made->fd = accept(own.fd, NULL, NULL)) < 0) die(1, "accepting");
                setsockopt(made->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                watch(made, EPOLL_CTL_ADD, EPOLLIN);
                continue;
            }
            ssize_t got = recv(s->fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (got > 0) serve(s, buffer, (size_t)got, opened, hello, push, reply, request);
            else if (got == 0 || errno != EAGAIN) exit(0); /* one run each */
        }
    }
}

int main(int count, char **words) {
    static const struct option options[] = {
        {"host", 1, 0, 'h'},     {"port", 1, 0, 'p'},          {"open", 1, 0, 'o'},
        {"expect", 1, 0, 'e'},   {"hellos", 1, 0, 'l'},        {"replies", 1, 0, 'r'},
        {"whole", 1, 0, 'w'},    {"subscribers", 1, 0, 'n'},   {"opening", 1, 0, 'k'},
        {"keep", 1, 0, 'f'},     {"hold", 1, 0, 'd'},          {"batches", 1, 0, 'b'},
        {"http", 1, 0, 't'},     {"publish-port", 1, 0, 'q'},  {"window", 1, 0, 'i'},
        {"seconds", 1, 0, 's'},  {"pause-us", 1, 0, 'u'},      {"watch", 1, 0, 'g'},
        {"opened", 1, 0, '1'},   {"hello", 1, 0, '2'},         {"push", 1, 0, '3'},
        {"reply", 1, 0, '4'},    {"request-bytes", 1, 0, '5'}, {0, 0, 0, 0},
    };
    const char *batches_path = "", *hellos_path = NULL;
    struct canned cans[4] = {{0}};
    double seconds = 1;
    size_t request_bytes = 1;
    int option;
    if (count < 2) die(1, "sockets open|fan|bare OPTIONS; see the top of sockets.c");
    while ((option = getopt_long(count - 1, words + 1, "", options, NULL)) != -1) {
        switch (option) {
        case 'h': host = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'o': handshake = canned(optarg); break;
        case 'e': expected = optarg; break;
        case 'l': hellos_path = optarg; break;
        case 'r': replies_wanted = (uint32_t)atol(optarg); break;
        case 'w': whole = atoi(optarg) != 0; break;
        case 'n': socket_count = (uint32_t)atol(optarg); break;
        case 'k': opening_max = (uint32_t)atol(optarg); break;
        case 'f': keep_path = optarg; break;
        case 'd': holds = atoi(optarg) != 0; break;
        case 'b': batches_path = optarg; break;
        case 't': is_http = atoi(optarg) != 0; break;
        case 'q': publish_port = atoi(optarg); break;
        case 'i': window = (uint32_t)atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'u': pause_us = (uint32_t)atol(optarg); break;
        case 'g': watched = atoi(optarg); break;
        case '1': case '2': case '3': case '4': cans[option - '1'] = canned(optarg); break;
        case '5': request_bytes = (size_t)atol(optarg); break;
        default: return 1;
        }
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die(1, "epoll: %s", strerror(errno));
    if (!strcmp(words[1], "bare"))
        return bare(cans[0], cans[1], cans[2], cans[3], request_bytes);
    if (!host || !handshake.bytes || !expected || !socket_count)
        die(1, "--host, --open, --expect and --subscribers are needed");
    sockets = calloc(socket_count, sizeof *sockets);
    if (!sockets) die(1, "no memory for sockets");
    if (hellos_path) read_hellos(hellos_path);
    signal(SIGTERM, stop);
    if (!strcmp(words[1], "open")) return listen_only();
    if (!strcmp(words[1], "fan")) return fan_out(batches_path, seconds);
    die(1, "%s: expected open, fan or bare", words[1]);
}
