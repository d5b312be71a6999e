/* SPDX-License-Identifier: MIT */
/*
 * sse_client.lua without Lua: libcurl's multi on epoll, lines cut out by memchr, our JSON engine.
 * What a program of the fewest parts takes for the same streams. sse_peer URL STREAMS SECONDS
 */
#include "json_tree.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENT_SIZE = 1024, ARENA_SIZE = 65536, EVENTS = 256, MOST_SAMPLES = 4000000 };

/* Each keeps what is unfinished of its event; the tree is everybody's. */
typedef struct stream {
    CURL *easy;
    char rest[EVENT_SIZE];
    size_t size;
    bool begun;
} stream;

static CURLM *multi;
static int loop;
static int64_t timer_due = -1;
static json_arena arena;
static size_t begun, count;
static int64_t *samples;
static bool measuring;

static void fail(const char *what)
{
    fprintf(stderr, "sse_peer: %s\n", what);
    exit(1);
}

static int64_t now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void *allocate(void *user, void *block, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    return realloc(block, new_size);
}

/* ---- events ---- */

static void on_event(stream *s, char *line, size_t size)
{
    if (size < 7 || memcmp(line, "data: ", 6) != 0)
        return;
    line[size] = '\0';
    const json_node *root = json_tree_read(&arena, line + 6, size - 6);
    const json_node *choices = json_tree_member(root, "choices"),
                    *sent = json_tree_member(root, "t");
    const json_node *delta = choices ? json_tree_member(choices->as.first, "delta") : NULL;
    if (!sent || !json_tree_member(delta, "content"))
        fail("a chunk without content");
    if (!s->begun) {
        s->begun = true;
        begun++;
    }
    if (measuring && count < MOST_SAMPLES)
        samples[count++] = now_us(CLOCK_MONOTONIC) - sent->as.integer;
}

static size_t on_write(char *data, size_t unit, size_t number, void *user)
{
    stream *s = user;
    size_t size = unit * number;
    if (size > EVENT_SIZE - 1 - s->size)
        fail("an event is too large");
    memcpy(s->rest + s->size, data, size);
    s->size += size;
    char *at = s->rest, *end = s->rest + s->size, *stop;
    while ((stop = memchr(at, '\n', (size_t)(end - at)))) {
        on_event(s, at, (size_t)(stop - at));
        at = stop + 1;
    }
    s->size = (size_t)(end - at);
    memmove(s->rest, at, s->size);
    return size;
}

/* ---- the loop ---- */

static int on_timer(CURLM *of, long delay, void *user)
{
    (void)of;
    (void)user;
    timer_due = delay < 0 ? -1 : now_us(CLOCK_MONOTONIC) + delay * 1000;
    return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *of_socket)
{
    static char known;
    (void)easy;
    (void)user;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(loop, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    struct epoll_event event = {.data.fd = fd};
    event.events =
        ((what & CURL_POLL_IN) ? EPOLLIN : 0u) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0u);
    epoll_ctl(loop, of_socket ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    curl_multi_assign(multi, fd, &known);
    return 0;
}

static void turn(void)
{
    int running, wait = 100;
    int64_t now = now_us(CLOCK_MONOTONIC);
    if (timer_due >= 0)
        wait = timer_due <= now ? 0 : (int)((timer_due - now) / 1000 + 1);
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(loop, events, EVENTS, wait < 100 ? wait : 100);
    for (int i = 0; i < ready; i++) {
        int bits = ((events[i].events & (EPOLLIN | EPOLLHUP)) ? CURL_CSELECT_IN : 0) |
                   ((events[i].events & EPOLLOUT) ? CURL_CSELECT_OUT : 0);
        curl_multi_socket_action(multi, events[i].data.fd, bits, &running);
    }
    if (timer_due >= 0 && timer_due <= now_us(CLOCK_MONOTONIC)) {
        timer_due = -1;
        curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
}

static void run_until(int64_t stop)
{
    while (now_us(CLOCK_MONOTONIC) < stop)
        turn();
}

/* ---- its life ---- */

static void start(stream *s, const char *url)
{
    s->easy = curl_easy_init();
    curl_easy_setopt(s->easy, CURLOPT_URL, url);
    curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(s->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, "{\"stream\":true}");
    curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
    if (curl_multi_add_handle(multi, s->easy) != CURLM_OK)
        fail("a stream does not start");
}

/* So many at a time, as a program that wants no refusals would. */
static void start_all(stream *streams, size_t wanted, const char *url)
{
    enum { AHEAD = 200 };
    for (size_t i = 0; i < wanted; i++) {
        start(&streams[i], url);
        while (i + 1 - begun >= AHEAD)
            turn();
    }
    while (begun < wanted)
        turn();
}

static double resident_kb(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &pages, &resident) != 2)
        fail("no statm");
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1024;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    size_t wanted = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    if (wanted < 1 || wanted > 100000)
        return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    multi = curl_multi_init();
    loop = epoll_create1(0);
    arena.data = malloc(ARENA_SIZE);
    arena.capacity = ARENA_SIZE;
    sl_json_buffer_init(&arena.scratch, allocate, NULL);
    samples = malloc(MOST_SAMPLES * sizeof *samples);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)wanted + 16);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
    stream first = {0}, *streams = calloc(wanted, sizeof *streams);
    if (!multi || !arena.data || !samples || !streams)
        fail("no memory");
    start_all(&first, 1, argv[1]);
    double before = resident_kb();
    begun = 0;
    start_all(streams, wanted, argv[1]);
    run_until(now_us(CLOCK_MONOTONIC) + 1000000);
    double after = resident_kb();
    measuring = true;
    int64_t cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
    run_until(now_us(CLOCK_MONOTONIC) + (int64_t)(strtod(argv[3], NULL) * 1e6));
    cpu = now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    qsort(samples, count, sizeof *samples, compare);
    printf("cpu %.3f\nkb %.2f\np50 %.3f\np99 %.3f\nevents %zu\n", (double)cpu / (double)count,
           (after - before) / (double)wanted, (double)samples[count / 2] / 1e3,
           (double)samples[count - count / 100 - 1] / 1e3, count);
    return 0;
}
