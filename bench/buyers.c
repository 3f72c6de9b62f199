/* Buyers of a sale: each reserves and, with --confirm, confirms what the reply says that it holds.
 *
 *   buyers --host H --port P --framing frames|resp --connections N --window W --seconds S
 *          --first U --reserve FILE [--confirm FILE] [--watch PID]
 *
 * A connection carries W buyers with one request under way each. When the last request of one is
 * answered another user takes the place; no user comes twice, they are numbered from U on. What one
 * receive brought is answered by one send, and there are always N * W requests under way, so
 * neither side waits for the other. After S seconds nobody new comes, and whoever reserved confirms
 * still.
 *
 * FILEs are one request each, with ######## where the digits of the user's number go. As frames
 * their ids are 0 and 1, and the confirm has the text @ where the hold goes, which the reply to the
 * reserve told first: {"hold": text, ...}. As resp what is held is known by the user's number, and
 * an integer below zero is a refusal.
 *
 * Prints one line of JSON as load.c does: `replies` are requests, `batches` users who did all, and
 * times are those of single requests. Exit status 3: the peer refused one; 1: anything else.
 */
#define _GNU_SOURCE
#include "common.h"
#include "round.h"
#include <getopt.h>
#include <sys/epoll.h>

enum {
    KEPT_BYTES = 4096,     /* of a reply that has not come whole */
    ID_AT = 6,             /* in a frame */
    RESULT_AT = ERROR_AT + 1,
    HOLD_BYTES_MAX = 255,
    PLACES_MAX = 8,        /* of the user's number in one request */
    DIGITS = 8,
    USERS_MAX = 100000000, /* that many digits can tell apart */
};

/* A request, but for who it is from and what she holds. */
struct form { char *data; size_t bytes, places[PLACES_MAX], place_count, hold_at; };

struct buyer { uint64_t at; uint32_t user; bool confirms; };

struct connection {
    int fd;
    bool waits_for_room;
    struct buyer *buyers; /* a ring, in the order of their requests */
    uint32_t head, tail;
    char *out;            /* requests of buyers, so it is bounded as they are */
    size_t out_bytes;
    uint32_t kept_bytes;
    char kept[KEPT_BYTES];
};

static struct form reserve, confirm;
static struct times times;
static const char *host;
static int port, poller, watched;
static bool is_resp;
static uint32_t window, ring_mask, connection_count, first, next_user;
static uint64_t replies, done, now, end;

/* --- requests --- */

static struct form read_form(const char *path) {
    struct form form = {.hold_at = 0};
    const char *data = contents(path, &form.bytes), *at = data;
    form.data = malloc(form.bytes);
    if (!form.data) die(1, "no memory for a request");
    memcpy(form.data, data, form.bytes);
    while ((at = memmem(at, form.bytes - (size_t)(at - data), "########", DIGITS))) {
        if (form.place_count == PLACES_MAX) die(1, "%s: too many users", path);
        form.places[form.place_count++] = (size_t)(at - data);
        at += DIGITS;
    }
    at = memmem(data, form.bytes, "\xa1@", 2);
    form.hold_at = at ? (size_t)(at - data) : 0;
    return form;
}

static void write_number(char *at, uint32_t number) {
    for (int i = DIGITS - 1; i >= 0; i--, number /= 10) at[i] = (char)('0' + number % 10);
}

/* Behind what a connection has to send. `hold` is a packed text; NULL: none is wanted. */
static void request(struct connection *c, uint32_t user, bool confirms, const char *hold,
                    size_t hold_bytes) {
    struct form *form = confirms ? &confirm : &reserve;
    char *out = c->out + c->out_bytes;
    for (size_t i = 0; i < form->place_count; i++) write_number(form->data + form->places[i], user);
    size_t bytes = form->bytes;
    if (hold) {
        size_t before = form->hold_at, after = before + 2;
        memcpy(out, form->data, before);
        memcpy(out + before, hold, hold_bytes);
        memcpy(out + before + hold_bytes, form->data + after, bytes - after);
        bytes += hold_bytes - 2;
        uint32_t length = htonl((uint32_t)bytes - 4);
        memcpy(out, &length, sizeof length);
    } else memcpy(out, form->data, bytes);
    c->out_bytes += bytes;
    c->buyers[c->tail++ & ring_mask] = (struct buyer){now, user, confirms};
}

static void come(struct connection *c) {
    if (next_user == USERS_MAX) die(1, "no more users: their numbers have %d digits", DIGITS);
    request(c, next_user++, false, NULL, 0);
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) < 0) die(1, "epoll: %s", strerror(errno));
}

static void flush(struct connection *c) {
    if (!c->out_bytes) return;
    ssize_t took = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (took < 0 && errno != EAGAIN) die(1, "sending: %s", strerror(errno));
    if (took > 0) {
        c->out_bytes -= (size_t)took;
        memmove(c->out, c->out + took, c->out_bytes);
    }
    if (c->waits_for_room != (c->out_bytes > 0)) {
        c->waits_for_room = c->out_bytes > 0;
        watch(c, EPOLL_CTL_MOD, c->waits_for_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

/* --- replies. Each walk returns how many of `bytes` it took --- */

static void answered(struct connection *c, const char *hold, size_t hold_bytes) {
    struct buyer buyer = c->buyers[c->head++ & ring_mask];
    replies++;
    record(&times, now - buyer.at);
    if (confirm.bytes && !buyer.confirms) request(c, buyer.user, true, hold, hold_bytes);
    else {
        done++;
        if (now < end) come(c);
    }
}

static const struct buyer *whose(const struct connection *c) {
    if (c->head == c->tail) die(1, "more replies than requests");
    return &c->buyers[c->head & ring_mask];
}

/* The packed text of the key `hold`, which comes first in a map. */
static const char *find_hold(const char *result, size_t bytes, size_t *hold_bytes) {
    const unsigned char *at = (const unsigned char *)result;
    if (bytes < 8 || at[0] >> 4 != 8 || memcmp(at + 1, "\xa4hold", 5)) refuse(result, bytes);
    at += 6;
    if (at[0] >> 5 == 5) *hold_bytes = 1 + (at[0] & 0x1fu);
    else if (at[0] == 0xd9) *hold_bytes = 2u + at[1];
    else refuse(result, bytes);
    if (6 + *hold_bytes > bytes) refuse(result, bytes);
    return (const char *)at;
}

static size_t walk_frames(struct connection *c, const char *data, size_t bytes) {
    const char *at = data, *stop = data + bytes;
    while (stop - at >= HEAD_BYTES) {
        uint32_t length;
        memcpy(&length, at, sizeof length);
        size_t whole = 4 + (size_t)ntohl(length), hold_bytes = 0;
        if (at[4] != (char)0x94 || at[5] != 1 || at[ERROR_AT] != (char)0xc0)
            refuse(at, (size_t)(stop - at));
        if (whole > (size_t)(stop - at)) break;
        const struct buyer *buyer = whose(c);
        if (at[ID_AT] != buyer->confirms) die(1, "a reply out of order");
        const char *hold = NULL;
        if (confirm.bytes && !buyer->confirms)
            hold = find_hold(at + RESULT_AT, whole - RESULT_AT, &hold_bytes);
        answered(c, hold, hold_bytes);
        at += whole;
    }
    return (size_t)(at - data);
}

static size_t walk_resp(struct connection *c, const char *data, size_t bytes) {
    const char *at = data, *stop = data + bytes, *line_end;
    while (at < stop && (line_end = memchr(at, '\n', (size_t)(stop - at)))) {
        if (*at != ':' || at[1] == '-') refuse(at, (size_t)(stop - at));
        whose(c);
        answered(c, NULL, 0);
        at = line_end + 1;
    }
    return (size_t)(at - data);
}

static void receive(struct connection *c) {
    static char buffer[KEPT_BYTES + READ_BYTES];
    memcpy(buffer, c->kept, c->kept_bytes);
    ssize_t got = recv(c->fd, buffer + c->kept_bytes, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) die(1, "receiving: %s", strerror(errno));
    if (got == 0) die(1, "the peer closed a connection");
    size_t bytes = c->kept_bytes + (size_t)got;
    size_t took = is_resp ? walk_resp(c, buffer, bytes) : walk_frames(c, buffer, bytes);
    if (bytes - took > KEPT_BYTES) die(1, "a reply without an end");
    c->kept_bytes = (uint32_t)(bytes - took);
    memcpy(c->kept, buffer + took, c->kept_bytes);
}

/* --- a round --- */

static struct connection *open_connections(void) {
    size_t each = reserve.bytes > confirm.bytes ? reserve.bytes : confirm.bytes;
    struct connection *connections = calloc(connection_count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || poller < 0) die(1, "no room for connections");
    for (uint32_t i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        c->fd = dial(host, port);
        c->buyers = calloc(ring_mask + 1, sizeof *c->buyers);
        c->out = malloc((each + HOLD_BYTES_MAX) * window);
        if (!c->buyers || !c->out) die(1, "no memory for buyers");
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
    return connections;
}

static uint64_t run(struct connection *connections, double seconds) {
    static struct epoll_event events[EVENTS];
    uint64_t started = now_ns(), heard = started;
    now = started;
    end = started + (uint64_t)(seconds * 1e9);
    for (uint32_t i = 0; i < connection_count; i++) {
        for (uint32_t k = 0; k < window; k++) come(&connections[i]);
        flush(&connections[i]);
    }
    while (done < next_user - first) {
        int ready = epoll_wait(poller, events, EVENTS, 1000);
        now = now_ns();
        if (ready > 0) heard = now;
        if (now - heard > SILENCE_S * 1000000000ull)
            die(1, "no reply for %d seconds: %llu buyers wait", SILENCE_S,
                (unsigned long long)(next_user - first - done));
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            now = now_ns();
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
            flush(c);
        }
    }
    return heard - started;
}

int main(int count, char **words) {
    static const struct option options[] = {
        {"host", 1, 0, 'h'},        {"port", 1, 0, 'p'},    {"framing", 1, 0, 'f'},
        {"connections", 1, 0, 'c'}, {"window", 1, 0, 'w'},  {"seconds", 1, 0, 's'},
        {"first", 1, 0, 'u'},       {"reserve", 1, 0, 'r'}, {"confirm", 1, 0, 'k'},
        {"watch", 1, 0, 'o'},       {0, 0, 0, 0},
    };
    double seconds = 0;
    int option;
    while ((option = getopt_long(count, words, "", options, NULL)) != -1) {
        switch (option) {
        case 'h': host = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'f': is_resp = !strcmp(optarg, "resp"); break;
        case 'c': connection_count = (uint32_t)atol(optarg); break;
        case 'w': window = (uint32_t)atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'u': first = next_user = (uint32_t)atol(optarg); break;
        case 'r': reserve = read_form(optarg); break;
        case 'k': confirm = read_form(optarg); break;
        case 'o': watched = atoi(optarg); break;
        default: return 1;
        }
    }
    if (!window || !connection_count) die(1, "--window and --connections are at least 1");
    if (!reserve.bytes) die(1, "--reserve is missing; see the top of buyers.c");
    if (confirm.bytes && !is_resp && !confirm.hold_at) die(1, "--confirm has no place for a hold");
    while (ring_mask + 1 < window) ring_mask = 2 * ring_mask + 1;
    struct connection *connections = open_connections();
    unsigned long long ran[2] = {0, 0}, waited[2] = {0, 0};
    double before_s = processor_s();
    read_schedule(watched, &ran[0], &waited[0]);
    double took_s = (double)run(connections, seconds) / 1e9;
    read_schedule(watched, &ran[1], &waited[1]);
    print_outcome(&(struct outcome){
        replies, done, 0, took_s, processor_s() - before_s, (double)(ran[1] - ran[0]) / 1e9,
        (double)(waited[1] - waited[0]) / 1e9, &times, NULL,
    });
    return 0;
}
