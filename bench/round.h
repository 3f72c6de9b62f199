/* What load.c and buyers.c have in common beyond common.h: a connection to a peer that answers
 * requests, how a frame of rtserver begins, and the line that tells of a round.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 256 * 1024, /* of one receive */
    ERROR_AT = 7,            /* in a frame: u32 length, array of 4, kind, id of one byte, error */
    HEAD_BYTES = ERROR_AT + 1,
    EVENTS = 1024,
};

static int dial(const char *host, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) die(1, "%s: is no IPv4 address", host);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        die(1, "connecting to %s:%d: %s", host, port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

struct outcome {
    uint64_t replies, batches, deliveries;
    double took_s, busy_s, ran_s, waited_s;
    const struct times *times, *lateness;
};

static void print_outcome(const struct outcome *of) {
    printf("{\"replies\": %llu, \"batches\": %llu, \"deliveries\": %llu, \"seconds\": %.6f,"
           " \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f,"
           " \"max_us\": %.2f, \"late_p99_us\": %.2f, \"busy_share\": %.4f,"
           " \"peer_ran_s\": %.6f, \"peer_waited_s\": %.6f}\n",
           (unsigned long long)of->replies, (unsigned long long)of->batches,
           (unsigned long long)of->deliveries, of->took_s, quantile_us(of->times, 0.5),
           quantile_us(of->times, 0.9), quantile_us(of->times, 0.99),
           quantile_us(of->times, 0.999), (double)of->times->max / 1e3,
           of->lateness ? quantile_us(of->lateness, 0.99) : 0.0,
           of->busy_s / (of->took_s > 0 ? of->took_s : 1), of->ran_s, of->waited_s);
}
