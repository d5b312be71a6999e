/* SPDX-License-Identifier: MIT */
/*
 * Reads many event streams for a while: stream_reader PORT PATH STREAMS SECONDS SERVER_PID.
 * Each event's data is the microseconds of CLOCK_MONOTONIC at which it was made. Prints the events,
 * what the server used of a core meanwhile, what it has grown by, and how late events came.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    /** Lateness is counted in steps of 10 microseconds, up to a second. */
    STEP = 10,
    STEPS = 100000,
    /** Before the measure begins, so that streams have spread. */
    SETTLE_US = 1500000,
};

typedef struct reader {
    int fd;
    /** The last digits of a stamp that came in two pieces. */
    int64_t stamp;
    int state;
} reader;

static uint32_t late[STEPS];
static uint64_t events;
static int measuring;

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void fail(const char *what)
{
    fprintf(stderr, "stream_reader: %s: %s\n", what, strerror(errno));
    exit(1);
}

/** User and system time, in microseconds. */
static int64_t used_by(const char *pid)
{
    char path[64], text[1024];
    unsigned long user, kernel;
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        fail(path);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = 0;
    fclose(file);
    sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
           &kernel);
    return (int64_t)(user + kernel) * 1000000 / sysconf(_SC_CLK_TCK);
}

static long resident(const char *pid)
{
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%s/statm", pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1)
        fail(path);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/** "data: " then digits then a line feed; chunk sizes and heads hold no such thing. */
static void take(reader *r, const char *bytes, ssize_t length, int64_t now)
{
    static const char prefix[] = "data: ";
    for (ssize_t i = 0; i < length; i++) {
        char byte = bytes[i];
        if (r->state < 6) {
            r->state = byte == prefix[r->state] ? r->state + 1 : byte == 'd';
        } else if (byte >= '0' && byte <= '9') {
            r->stamp = r->stamp * 10 + (byte - '0');
        } else {
            if (measuring && r->stamp) {
                int64_t step = (now - r->stamp) / STEP;
                late[step < 0 ? 0 : step >= STEPS ? STEPS - 1 : step]++;
                events++;
            }
            r->stamp = 0;
            r->state = 0;
        }
    }
}

static int open_stream(const char *port, const char *path)
{
    char request[256];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    if (write(fd, request, (size_t)length) != length)
        fail("write");
    return fd;
}

static void read_until(int poll, int64_t end)
{
    static char bytes[65536];
    struct epoll_event ready[256];
    for (int64_t now = now_us(); now < end; now = now_us()) {
        int count = epoll_wait(poll, ready, 256, (int)((end - now) / 1000) + 1);
        for (int i = 0; i < count; i++) {
            reader *r = ready[i].data.ptr;
            ssize_t got = read(r->fd, bytes, sizeof bytes);
            if (got <= 0)
                fail("read");
            take(r, bytes, got, now_us());
        }
    }
}

static double percentile(double share)
{
    uint64_t wanted = (uint64_t)((double)events * share), seen = 0;
    for (int i = 0; i < STEPS; i++) {
        seen += late[i];
        if (seen > wanted)
            return (i + 1) * STEP;
    }
    return STEPS * STEP;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    int streams = atoi(argv[3]);
    double seconds = atof(argv[4]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    reader *readers = calloc((size_t)streams, sizeof *readers);
    int poll = epoll_create1(0);
    long before = resident(argv[5]);
    for (int i = 0; i < streams; i++) {
        readers[i].fd = open_stream(argv[1], argv[2]);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &readers[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, readers[i].fd, &event);
        /* spread over the interval, as clients of their own would be */
        if (i % 16 == 15)
            usleep(500);
    }
    read_until(poll, now_us() + SETTLE_US);
    measuring = 1;
    int64_t start = now_us(), cpu = used_by(argv[5]);
    read_until(poll, start + (int64_t)(seconds * 1e6));
    int64_t took = now_us() - start;
    printf("events %.0f\ncpu %.2f\nbytes %.0f\np50 %.0f\np99 %.0f\n",
           (double)events * 1e6 / (double)took,
           (double)(used_by(argv[5]) - cpu) * 100 / (double)took,
           (double)(resident(argv[5]) - before) / streams, percentile(.5), percentile(.99));
    return 0;
}
