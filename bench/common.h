/* What the programs here have in common: ends with a message, the clock, histograms of times,
 * files, the supply of batches, and what a process had of its core.
 *
 * FILE of batches: records of three little-endian u32 (bytes, replies it brings, publishes in
 * it), then the bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    REFUSED = 3,    /* exit status */
    SILENCE_S = 30, /* without any byte: something is broken */
};

__attribute__((noreturn)) static void die(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(status);
}

/* A reply that must not come, with what can be printed of it. */
static void refuse(const char *reply, size_t bytes) {
    char shown[241];
    size_t length = 0;
    for (size_t i = 0; i < bytes && length < sizeof shown - 1; i++)
        if (reply[i] >= ' ' && reply[i] < 127) shown[length++] = reply[i];
    shown[length] = 0;
    die(REFUSED, "the peer refused a request: %s", shown);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- times: log-linear, 128 buckets an octave, so a quantile is right to 0.8 % --- */

enum { SUB_BITS = 7, SUBS = 1 << SUB_BITS, OCTAVES = 48 };
struct times { uint64_t count, max, buckets[OCTAVES * SUBS]; };

static void record(struct times *of, uint64_t ns) {
    unsigned octave = ns < SUBS ? 0 : 63 - SUB_BITS - (unsigned)__builtin_clzll(ns);
    if (octave > OCTAVES - 2) die(1, "a time of %llu ns", (unsigned long long)ns);
    of->buckets[octave * SUBS + (ns >> octave)]++; /* octave o > 0 begins at (o + 1) * SUBS */
    of->count++;
    if (ns > of->max) of->max = ns;
}

static double quantile_us(const struct times *of, double share) {
    uint64_t wanted = (uint64_t)(share * (double)of->count), seen = 0;
    for (unsigned at = 0; at < OCTAVES * SUBS; at++) {
        seen += of->buckets[at];
        if (seen > wanted) {
            unsigned octave = at < 2 * SUBS ? 0 : at / SUBS - 1;
            uint64_t low = (uint64_t)(at - octave * SUBS) << octave;
            uint64_t high = low + (1ull << octave) - 1;
            return (double)(high < of->max ? high : of->max) / 1e3;
        }
    }
    return (double)of->max / 1e3;
}

/* --- files --- */

static char *contents(const char *path, size_t *bytes) {
    struct stat found;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &found) < 0) die(1, "%s: %s", path, strerror(errno));
    *bytes = (size_t)found.st_size;
    char *data = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED) die(1, "%s: %s", path, strerror(errno));
    close(fd);
    return data;
}

struct batch { const char *data; uint32_t bytes, replies, publishes; };
static struct batch *batches;
static size_t batch_count;

static void read_batches(const char *path) {
    size_t bytes, room = 0;
    const char *data = contents(path, &bytes), *end = data + bytes;
    while (data < end) {
        uint32_t head[3];
        if (batch_count == room) {
            room = room ? 2 * room : 1024;
            batches = realloc(batches, room * sizeof *batches);
            if (!batches) die(1, "no memory for the batches");
        }
        memcpy(head, data, sizeof head);
        data += sizeof head;
        batches[batch_count++] = (struct batch){data, head[0], head[1], head[2]};
        data += head[0];
    }
    if (data != end || !batch_count) die(1, "%s: is no file of batches", path);
}

/* --- processors --- */

static double processor_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
           + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* What the main thread of a process ran, and how long it waited to run; in nanoseconds. */
static void read_schedule(int pid, unsigned long long *ran, unsigned long long *waited) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    FILE *file = pid ? fopen(path, "r") : NULL;
    if (pid && (!file || fscanf(file, "%llu %llu", ran, waited) != 2)) die(1, "cannot read %s", path);
    if (file) fclose(file);
}
