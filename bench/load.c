/* The load generator: sends prepared batches of requests, counts replies, measures how long they
 * took; and the peer that answers without thought, which shows what the generator reaches alone.
 *
 *   load send --host H --port P --batches FILE --framing frames|resp --connections N --window W
 *             [--seconds S] [--rate R] [--spin 1] [--watch PID] [--expect FILE]
 *             [--subscribers N --subscribe FILE [--push-bytes B]]
 *   load canned --request-bytes N --reply FILE
 *
 * FILE of batches: see common.h. Connections share one supply, in order; with --seconds it is
 * repeated for so long, without it is sent once.
 *
 * Closed loop (no --rate): a connection sends the next batch whenever it fits into its window of
 * outstanding requests. With a window of one batch that is what redis-benchmark -P does. The time
 * of a batch runs from its send to the last of its replies.
 *
 * Open loop (--rate batches a second): batch k is due at k/R after the start, whatever became of
 * the others, on the connections in turn. Its time runs from when it was due, not from when it
 * could be sent, so a server that stalls is charged for all that came meanwhile (no coordinated
 * omission).
 *
 * With --spin 1 it asks for replies again and again rather than sleep until there are some: on a
 * core of its own that keeps the time of its own waking out of every measure.
 *
 * With --expect every reply begins with the bytes of FILE, a frame behind its length and id; without
 * it none may be an error. What begins otherwise was refused.
 *
 * Subscribers only receive. No more than the windows' requests may be published and not yet
 * delivered to all of them, so the peer's output is bounded, and a run ends when the last message
 * has arrived everywhere: one that is lost is a failure, not a higher rate.
 *
 * `send` prints one line of JSON, with what the main thread of process PID had of its core from
 * the first send to the last reply; SIGTERM ends its round early and in order. Exit status 3: the
 * peer refused a request; 1: anything else.
 */
#define _GNU_SOURCE
#include "common.h"
#include "round.h"
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum {
    KEPT_BYTES = 256, /* of a reply whose beginning came at the end of a receive */
    WAYS = 1 << 16,   /* batches under way on a connection in open loop, at most */
};

/* --- one connection --- */

struct way { const struct batch *batch; uint64_t at; uint32_t missing; }; /* a batch under way */

struct connection {
    int fd;
    bool subscribes, waits_for_room;
    struct way *ways;                /* a ring: head <= unsent <= tail */
    uint32_t head, unsent, tail, ring_mask;
    uint32_t sent_bytes;             /* of the batch at `unsent` */
    uint32_t outstanding;            /* replies missing */
    uint64_t skip;                   /* bytes of the current reply that are still to come */
    bool skips_push;                 /* and what it is */
    uint32_t kept_bytes;
    char kept[KEPT_BYTES];
};

static struct times times, lateness;
static const char *host, *subscribe_path;
static int port, poller, watched;
static bool is_resp, spins;
static uint32_t window, connection_count, subscriber_count, push_bytes;
static struct connection *connections; /* those that send, then the subscribers */
static const char *expected; /* how replies begin; NULL: without an error */
static size_t expected_bytes;
static uint64_t replies, deliveries, published, sent_batches, busy, idle_ns;
static volatile sig_atomic_t was_stopped;

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) < 0) die(1, "epoll: %s", strerror(errno));
}

static void flush(struct connection *c) {
    while (c->unsent != c->tail) {
        const struct batch *batch = c->ways[c->unsent & c->ring_mask].batch;
        ssize_t took = send(c->fd, batch->data + c->sent_bytes, batch->bytes - c->sent_bytes,
                            MSG_NOSIGNAL);
        if (took < 0 && errno != EAGAIN) die(1, "sending: %s", strerror(errno));
        if (took > 0) c->sent_bytes += (uint32_t)took;
        if (took < 0 || c->sent_bytes < batch->bytes) {
            if (!c->waits_for_room) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            c->waits_for_room = true;
            return;
        }
        c->sent_bytes = 0;
        c->unsent++;
    }
    if (c->waits_for_room) watch(c, EPOLL_CTL_MOD, EPOLLIN);
    c->waits_for_room = false;
}

static void enqueue(struct connection *c, const struct batch *batch, uint64_t at) {
    if (c->tail - c->head > c->ring_mask) die(1, "the peer cannot follow: too much is under way");
    c->ways[c->tail++ & c->ring_mask] = (struct way){batch, at, batch->replies};
    busy += c->outstanding == 0;
    c->outstanding += batch->replies;
    published += batch->publishes;
    sent_batches++;
}

static void settle(struct connection *c, uint32_t count) {
    uint64_t now = now_ns();
    if (count > c->outstanding) die(1, "more replies than requests");
    replies += count;
    c->outstanding -= count;
    busy -= count && c->outstanding == 0;
    while (count) {
        struct way *way = &c->ways[c->head & c->ring_mask];
        uint32_t take = count < way->missing ? count : way->missing;
        count -= take;
        way->missing -= take;
        if (!way->missing) {
            record(&times, now - way->at);
            c->head++;
        }
    }
}

/* --- what comes back. Each returns how many of `bytes` it took and adds to *count --- */

/* Whether a frame begins as it should, as far as it came; it came to its error. */
static bool is_expected(const char *reply, size_t bytes) {
    if (reply[4] != (char)0x94 || reply[5] != 1) return false;
    if (!expected) return reply[ERROR_AT] == (char)0xc0;
    size_t came = bytes - ERROR_AT;
    return !memcmp(reply + ERROR_AT, expected, came < expected_bytes ? came : expected_bytes);
}

static size_t walk_frames(struct connection *c, const char *data, size_t bytes, uint32_t *count) {
    const char *at = data, *end = data + bytes;
    while (at < end) {
        if (!c->skip) {
            const unsigned char *head = (const unsigned char *)at;
            size_t came = (size_t)(end - at);
            if (came < HEAD_BYTES) break;
            c->skips_push = head[4] == 0x93 && head[5] == 2;
            if (!c->skips_push && !is_expected(at, came)) refuse(at, came);
            if (!c->skips_push && came < ERROR_AT + expected_bytes) break;
            c->skip = 4 + ((uint64_t)head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3]);
        }
        if (c->skip > (uint64_t)(end - at)) {
            c->skip -= (uint64_t)(end - at);
            return bytes;
        }
        at += c->skip;
        c->skip = 0;
        if (c->skips_push) deliveries++;
        else ++*count;
    }
    return (size_t)(at - data);
}

static size_t walk_resp(struct connection *c, const char *data, size_t bytes, uint32_t *count) {
    const char *at = data, *end = data + bytes;
    while (at < end) {
        if (c->skip) { /* of a bulk reply */
            if (c->skip > (uint64_t)(end - at)) {
                c->skip -= (uint64_t)(end - at);
                return bytes;
            }
            at += c->skip;
            c->skip = 0;
            ++*count;
            continue;
        }
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (*at == '-' || !memchr(":+$", *at, 3)) refuse(at, (size_t)(end - at));
        if (!stop) break;
        if (expected
            && ((size_t)(stop - at) < expected_bytes || memcmp(at, expected, expected_bytes)))
            refuse(at, (size_t)(end - at));
        if (*at == '$' && at[1] != '-') c->skip = (uint64_t)strtoull(at + 1, NULL, 10) + 2;
        else ++*count; /* :integer, +status, or $-1, which is nil */
        at = stop + 1;
    }
    return (size_t)(at - data);
}

/* All messages of redis have one size here. */
static size_t count_pushes(struct connection *c, size_t bytes) {
    uint64_t all = c->skip + bytes;
    deliveries += all / push_bytes;
    c->skip = all % push_bytes;
    return bytes;
}

static void receive(struct connection *c) {
    static char buffer[KEPT_BYTES + READ_BYTES];
    uint32_t count = 0;
    memcpy(buffer, c->kept, c->kept_bytes);
    ssize_t got = recv(c->fd, buffer + c->kept_bytes, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) die(1, "receiving: %s", strerror(errno));
    if (got == 0) die(1, "the peer closed a connection");
    size_t bytes = c->kept_bytes + (size_t)got, took;
    if (c->subscribes && push_bytes) took = count_pushes(c, bytes);
    else if (is_resp) took = walk_resp(c, buffer, bytes, &count);
    else took = walk_frames(c, buffer, bytes, &count);
    if (bytes - took > KEPT_BYTES) die(1, "a reply without an end");
    c->kept_bytes = (uint32_t)(bytes - took);
    memcpy(c->kept, buffer + took, c->kept_bytes);
    if (count) settle(c, count);
}

/* --- a run --- */

static void stop(int signal_number) { was_stopped = signal_number; }

static void subscribe(struct connection *c, const char *request, size_t bytes) {
    struct linger at_once = {.l_onoff = 1}; /* thousands of ports must not linger in TIME_WAIT */
    struct timeval patience = {.tv_sec = SILENCE_S};
    char got;
    uint32_t left = 4, lines = 6; /* the reply of redis has so many lines */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (send(c->fd, request, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) die(1, "cannot subscribe");
    char head[HEAD_BYTES];
    if (!is_resp) {
        if (recv(c->fd, head, sizeof head, MSG_WAITALL) != sizeof head) die(1, "cannot subscribe");
        if ((unsigned char)head[7] != 0xc0) die(REFUSED, "the peer refused to subscribe");
        left = ((uint32_t)(unsigned char)head[2] << 8 | (unsigned char)head[3]) - 4;
    }
    while (is_resp ? lines : left) {
        if (recv(c->fd, &got, 1, 0) != 1) die(1, "the peer did not confirm a subscription");
        lines -= got == '\n';
        left--;
    }
}

static void open_connections(uint32_t ring) {
    size_t bytes = 0, all = (size_t)connection_count + subscriber_count;
    char *request = subscribe_path ? contents(subscribe_path, &bytes) : NULL;
    connections = calloc(all, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || poller < 0) die(1, "no room for connections");
    for (size_t i = 0; i < all; i++) {
        struct connection *c = &connections[i];
        c->fd = dial(host, port);
        c->subscribes = i >= connection_count;
        if (c->subscribes) subscribe(c, request, bytes);
        else {
            c->ring_mask = ring - 1;
            c->ways = calloc(ring, sizeof *c->ways);
            if (!c->ways) die(1, "no memory for what is under way");
        }
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Whether a batch would leave no more undelivered than the windows hold. */
static bool may_publish(const struct batch *batch) {
    if (!subscriber_count || !batch->publishes) return true;
    uint64_t undelivered = published - deliveries / subscriber_count;
    return !undelivered || undelivered + batch->publishes <= (uint64_t)window * connection_count;
}

/* Fills the window of a connection; false when a subscriber has to receive first. */
static bool fill(struct connection *c, bool repeats) {
    while (c->unsent == c->tail && (repeats || sent_batches < batch_count)) {
        const struct batch *batch = &batches[sent_batches % batch_count];
        if (c->outstanding && c->outstanding + batch->replies > window) break;
        if (!may_publish(batch)) return false;
        enqueue(c, batch, now_ns());
        flush(c);
    }
    return true;
}

static int wait_for_replies(struct epoll_event *events, uint64_t due_ns, bool is_open_loop) {
    if (is_open_loop && !spins) { /* until the next batch is due, to the nanosecond */
        struct pollfd both = {.fd = poller, .events = POLLIN};
        struct timespec until_due = {(time_t)(due_ns / 1000000000), (long)(due_ns % 1000000000)};
        ppoll(&both, 1, &until_due, NULL);
    }
    return epoll_wait(poller, events, EVENTS, spins || is_open_loop ? 0 : 1000);
}

static uint64_t run(double seconds, double rate) {
    static struct epoll_event events[EVENTS];
    uint64_t started = now_ns(), now = started, heard = started, due = started;
    uint64_t end = seconds > 0 ? started + (uint64_t)(seconds * 1e9) : UINT64_MAX, scheduled = 0;
    bool repeats = seconds > 0, gated = false;
    for (uint32_t i = 0; rate <= 0 && i < connection_count; i++)
        gated |= !fill(&connections[i], repeats);
    for (;;) {
        if (was_stopped && end > now) end = now;
        bool is_over = rate > 0 ? due >= end : now >= end;
        while (rate > 0 && due <= now && due < end) {
            struct connection *c = &connections[scheduled % connection_count];
            record(&lateness, now - due);
            enqueue(c, &batches[sent_batches % batch_count], due);
            flush(c);
            due = started + (uint64_t)((double)++scheduled * 1e9 / rate);
        }
        if (!busy && deliveries == published * subscriber_count) {
            if (is_over || (!repeats && sent_batches >= batch_count)) break;
        }
        uint64_t before = now_ns();
        int ready = wait_for_replies(events, rate > 0 && due > before ? due - before : 0, rate > 0);
        now = now_ns();
        if (ready > 0) heard = now;
        else idle_ns += now - before;
        if (now - heard > SILENCE_S * 1000000000ull)
            die(1, "no reply for %d seconds: %llu connections wait, %llu of %llu messages arrived",
                SILENCE_S, (unsigned long long)busy, (unsigned long long)deliveries,
                (unsigned long long)(published * subscriber_count));
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
            if (!c->subscribes && rate <= 0 && now < end) gated |= !fill(c, repeats);
        }
        if (gated && now < end) {
            gated = false;
            for (uint32_t i = 0; i < connection_count; i++) gated |= !fill(&connections[i], repeats);
        }
    }
    return heard - started;
}

static int send_load(const char *batches_path, double seconds, double rate) {
    read_batches(batches_path);
    if (!window || !connection_count) die(1, "--window and --connections are at least 1");
    if (rate > 0 && seconds <= 0) die(1, "--rate needs --seconds");
    uint32_t ring = 1;
    while (ring < (rate > 0 ? WAYS : window + 1)) ring *= 2;
    signal(SIGTERM, stop);
    open_connections(ring);
    unsigned long long ran[2] = {0, 0}, waited[2] = {0, 0};
    double before_s = processor_s();
    read_schedule(watched, &ran[0], &waited[0]);
    double took_s = (double)run(seconds, rate) / 1e9;
    read_schedule(watched, &ran[1], &waited[1]);
    double used_s = spins ? took_s - (double)idle_ns / 1e9 : processor_s() - before_s;
    print_outcome(&(struct outcome){
        replies, sent_batches, deliveries, took_s, used_s, (double)(ran[1] - ran[0]) / 1e9,
        (double)(waited[1] - waited[0]) / 1e9, &times, &lateness,
    });
    return 0;
}

/* --- the peer without thought: one canned reply for so many bytes --- */

static int answer(size_t request_bytes, const char *reply_path) {
    size_t reply_bytes, copies;
    const char *reply = contents(reply_path, &reply_bytes);
    static struct epoll_event events[EVENTS];
    static char buffer[READ_BYTES];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 128) < 0
        || getsockname(listener, (struct sockaddr *)&at, &size) < 0)
        die(1, "listening: %s", strerror(errno));
    copies = READ_BYTES / request_bytes + 1; /* as many as one receive can ask for */
    char *answers = malloc(copies * reply_bytes);
    for (size_t i = 0; i < copies; i++) memcpy(answers + i * reply_bytes, reply, reply_bytes);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    poller = epoll_create1(0);
    struct connection own = {.fd = listener};
    watch(&own, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &own) {
                struct connection *made = calloc(1, sizeof *made);
                made->fd = accept(listener, NULL, NULL);
                setsockopt(made->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                watch(made, EPOLL_CTL_ADD, EPOLLIN);
                continue;
            }
            ssize_t got = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                close(c->fd);
                free(c);
                continue;
            }
            c->skip += (uint64_t)got; /* bytes not yet answered */
            size_t bytes = c->skip / request_bytes * reply_bytes;
            c->skip %= request_bytes;
            for (size_t sent = 0; sent < bytes;) {
                ssize_t took = send(c->fd, answers + sent, bytes - sent, MSG_NOSIGNAL);
                if (took < 0) break; /* it hung up; the next receive says so */
                sent += (size_t)took;
            }
        }
    }
}

int main(int count, char **words) {
    static const struct option options[] = {
        {"host", 1, 0, 'h'},       {"port", 1, 0, 'p'},          {"batches", 1, 0, 'b'},
        {"framing", 1, 0, 'f'},    {"connections", 1, 0, 'c'},   {"window", 1, 0, 'w'},
        {"seconds", 1, 0, 's'},    {"rate", 1, 0, 'r'},          {"subscribers", 1, 0, 'n'},
        {"subscribe", 1, 0, 'u'},  {"push-bytes", 1, 0, 'm'},    {"request-bytes", 1, 0, 'q'},
        {"reply", 1, 0, 'a'},      {"spin", 1, 0, 'i'},         {"watch", 1, 0, 'o'},
        {"expect", 1, 0, 'e'},     {0, 0, 0, 0},
    };
    const char *batches_path = "", *reply_path = "";
    double seconds = 0, rate = 0;
    size_t request_bytes = 1;
    int option;
    if (count < 2) die(1, "load send|canned OPTIONS; see the top of load.c");
    while ((option = getopt_long(count - 1, words + 1, "", options, NULL)) != -1) {
        switch (option) {
        case 'h': host = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'b': batches_path = optarg; break;
        case 'f': is_resp = !strcmp(optarg, "resp"); break;
        case 'c': connection_count = (uint32_t)atol(optarg); break;
        case 'w': window = (uint32_t)atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'n': subscriber_count = (uint32_t)atol(optarg); break;
        case 'u': subscribe_path = optarg; break;
        case 'm': push_bytes = (uint32_t)atol(optarg); break;
        case 'i': spins = atoi(optarg) != 0; break;
        case 'o': watched = atoi(optarg); break;
        case 'e': expected = contents(optarg, &expected_bytes); break;
        case 'q': request_bytes = (size_t)atol(optarg); break;
        case 'a': reply_path = optarg; break;
        default: return 1;
        }
    }
    if (!strcmp(words[1], "send")) return send_load(batches_path, seconds, rate);
    if (!strcmp(words[1], "canned")) return answer(request_bytes, reply_path);
    die(1, "%s: expected send or canned", words[1]);
}
