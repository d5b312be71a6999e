/* SPDX-License-Identifier: MIT */
/*
 * chat_client.lua without Lua: libcurl's multi on libev, our JSON engine both ways; what our client
 * could reach at the most with libcurl. curl_peer URL CONCURRENCY SECONDS [bare]
 *
 * Each place of the CONCURRENCY keeps its easy handle, its parsed URL and its buffers. It sends the
 * header lines that our client sends, takes compressed answers, keeps the head of an answer and has
 * limits of time; `bare` leaves all that away.
 */
#include "json_tree.h"

#include <curl/curl.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { HEAD_SIZE = 4096, ANSWER_SIZE = 4096, ARENA_SIZE = 65536, TOTAL_TOKENS = 118 };

typedef struct client client;

typedef struct place {
    client *client;
    CURL *easy;
    CURLU *url;
    sl_json_buffer request;
    char head[HEAD_SIZE], answer[ANSWER_SIZE];
    size_t head_size, answered;
    json_arena arena;
} place;

typedef struct watch {
    ev_io io;
    client *client;
    struct watch *next_free;
} watch;

struct client {
    struct ev_loop *loop;
    CURLM *multi;
    ev_timer timer;
    struct curl_slist *headers;
    watch *free_watches;
    place *places;
    size_t count, running;
    double stop;
    bool bare;
};

static void fail(const char *what)
{
    fprintf(stderr, "curl_peer: %s\n", what);
    exit(1);
}

static void *allocate(void *user, void *block, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    return realloc(block, new_size);
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- JSON: what chat_body.lua has ---- */

static void put(sl_json_buffer *out, const char *text)
{
    size_t length = strlen(text);
    char *to = sl_json_reserve(out, length);
    if (!to)
        fail("no memory");
    memcpy(to, text, length);
    out->length += length;
}

static void put_string(sl_json_buffer *out, const char *text)
{
    if (sl_json_write_string(out, text, strlen(text), false) != SL_JSON_OK)
        fail("no memory");
}

static void put_message(sl_json_buffer *out, const char *role, const char *content)
{
    put(out, "{\"role\":");
    put_string(out, role);
    put(out, ",\"content\":");
    put_string(out, content);
    put(out, "}");
}

static void put_number(sl_json_buffer *out, double number)
{
    char *to = sl_json_reserve(out, SL_JSON_NUMBER_SIZE);
    if (!to)
        fail("no memory");
    out->length = (size_t)(sl_json_write_double(to, number) - out->data);
}

static void put_integer(sl_json_buffer *out, int64_t number)
{
    char *to = sl_json_reserve(out, SL_JSON_NUMBER_SIZE);
    if (!to)
        fail("no memory");
    out->length = (size_t)(sl_json_write_integer(to, number) - out->data);
}

static void write_request(sl_json_buffer *out)
{
    out->length = 0;
    put(out, "{\"model\":");
    put_string(out, "my-served-model-2");
    put(out, ",\"messages\":[");
    put_message(out, "system",
                "You are a terse assistant that answers in one sentence of plain words.");
    put(out, ",");
    put_message(out, "user",
                "What is a sluice, and why would somebody give that name to a program that sends"
                " requests to model endpoints?");
    put(out, "],\"temperature\":");
    put_number(out, 0.7);
    put(out, ",\"max_tokens\":");
    put_integer(out, 128);
    put(out, ",\"stream\":false}");
}

static void read_answer(place *p)
{
    p->answer[p->answered] = '\0';
    const json_node *root = json_tree_read(&p->arena, p->answer, p->answered);
    const json_node *total = json_tree_member(json_tree_member(root, "usage"), "total_tokens");
    if (!total || total->as.integer != TOTAL_TOKENS)
        fail("wrong answer");
}

/* ---- transfers ---- */

static size_t on_write(char *data, size_t size, size_t count, void *user)
{
    place *p = user;
    size_t bytes = size * count;
    if (bytes >= ANSWER_SIZE - p->answered)
        return 0;
    memcpy(p->answer + p->answered, data, bytes);
    p->answered += bytes;
    return bytes;
}

static size_t on_header(char *data, size_t size, size_t count, void *user)
{
    place *p = user;
    size_t bytes = size * count;
    if (bytes > HEAD_SIZE - p->head_size)
        return 0;
    memcpy(p->head + p->head_size, data, bytes);
    p->head_size += bytes;
    return bytes;
}

static void begin(place *p)
{
    write_request(&p->request);
    p->answered = p->head_size = 0;
    curl_easy_setopt(p->easy, CURLOPT_POSTFIELDS, p->request.data);
    curl_easy_setopt(p->easy, CURLOPT_POSTFIELDSIZE, (long)p->request.length);
    if (curl_multi_add_handle(p->client->multi, p->easy) != CURLM_OK)
        fail("a transfer does not start");
    p->client->running++;
}

static void end(place *p, CURLcode code)
{
    client *c = p->client;
    long status = 0;
    curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK || status != 200)
        fail(curl_easy_strerror(code));
    curl_multi_remove_handle(c->multi, p->easy);
    c->running--;
    read_answer(p);
    c->count++;
    if (seconds(CLOCK_MONOTONIC) < c->stop)
        begin(p);
    else if (c->running == 0)
        ev_break(c->loop, EVBREAK_ALL);
}

static void act(client *c, curl_socket_t fd, int events)
{
    int running, left;
    const CURLMsg *message;
    curl_multi_socket_action(c->multi, fd, events, &running);
    while ((message = curl_multi_info_read(c->multi, &left))) {
        char *p;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &p);
        end((place *)(void *)p, message->data.result);
    }
}

/* ---- libev ---- */

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    (void)loop;
    const watch *w = (const watch *)(const void *)io;
    int bits =
        ((events & EV_READ) ? CURL_CSELECT_IN : 0) | ((events & EV_WRITE) ? CURL_CSELECT_OUT : 0);
    act(w->client, io->fd, bits);
}

static void on_due(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer(CURLM *multi, long delay, void *user)
{
    (void)multi;
    client *c = user;
    ev_timer_stop(c->loop, &c->timer);
    if (delay < 0)
        return 0;
    ev_timer_set(&c->timer, (double)delay / 1e3, 0.);
    ev_timer_start(c->loop, &c->timer);
    return 0;
}

static watch *take_watch(client *c)
{
    watch *w = c->free_watches;
    if (w) {
        c->free_watches = w->next_free;
        return w;
    }
    w = calloc(1, sizeof *w);
    if (!w)
        fail("no memory");
    ev_init(&w->io, on_io);
    w->client = c;
    return w;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *of_socket)
{
    (void)easy;
    client *c = user;
    watch *w = of_socket;
    if (!w && what != CURL_POLL_REMOVE) {
        w = take_watch(c);
        curl_multi_assign(c->multi, fd, w);
    }
    if (!w)
        return 0;
    ev_io_stop(c->loop, &w->io);
    if (what == CURL_POLL_REMOVE) {
        curl_multi_assign(c->multi, fd, NULL);
        w->next_free = c->free_watches;
        c->free_watches = w;
        return 0;
    }
    ev_io_set(&w->io, fd,
              ((what & CURL_POLL_IN) ? EV_READ : 0) | ((what & CURL_POLL_OUT) ? EV_WRITE : 0));
    ev_io_start(c->loop, &w->io);
    return 0;
}

/* ---- its life ---- */

static void open_place(client *c, place *p, const char *url)
{
    p->client = c;
    p->easy = curl_easy_init();
    p->url = curl_url();
    p->arena.data = malloc(ARENA_SIZE);
    p->arena.capacity = ARENA_SIZE;
    sl_json_buffer_init(&p->request, allocate, NULL);
    sl_json_buffer_init(&p->arena.scratch, allocate, NULL);
    if (!p->easy || !p->url || !p->arena.data || curl_url_set(p->url, CURLUPART_URL, url, 0))
        fail("a place does not open");
    curl_easy_setopt(p->easy, CURLOPT_CURLU, p->url);
    curl_easy_setopt(p->easy, CURLOPT_PRIVATE, p);
    curl_easy_setopt(p->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(p->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(p->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(p->easy, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(p->easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(p->easy, CURLOPT_WRITEDATA, p);
    if (c->bare)
        return;
    curl_easy_setopt(p->easy, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(p->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(p->easy, CURLOPT_HEADERDATA, p);
    curl_easy_setopt(p->easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(p->easy, CURLOPT_TIMEOUT_MS, 600000L);
}

/** What our client sends; a line of one's own costs libcurl less than one of its own. */
static void add_lines(client *c)
{
    c->headers = curl_slist_append(c->headers, "Content-Type: application/json");
    if (!c->bare) {
        c->headers = curl_slist_append(c->headers, "User-Agent: sluice");
        c->headers = curl_slist_append(c->headers, "Accept-Encoding: gzip, br, zstd");
    }
}

static void open_client(client *c, const char *url, size_t concurrency)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    c->loop = ev_loop_new(EVFLAG_AUTO);
    c->multi = curl_multi_init();
    add_lines(c);
    c->places = calloc(concurrency, sizeof *c->places);
    if (!c->loop || !c->multi || !c->headers || !c->places)
        fail("no memory");
    ev_timer_init(&c->timer, on_due, 0., 0.);
    c->timer.data = c;
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)concurrency + 16);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    for (size_t i = 0; i < concurrency; i++)
        open_place(c, &c->places[i], url);
}

static void run_for(client *c, size_t concurrency, double duration)
{
    c->count = 0;
    c->stop = seconds(CLOCK_MONOTONIC) + duration;
    for (size_t i = 0; i < concurrency; i++)
        begin(&c->places[i]);
    ev_run(c->loop, 0);
}

int main(int argc, char **argv)
{
    size_t concurrency = argc == 4 || argc == 5 ? strtoul(argv[2], NULL, 10) : 0;
    if (concurrency < 1 || concurrency > 100000)
        return 2;
    client c = {.bare = argc == 5 && strcmp(argv[4], "bare") == 0};
    open_client(&c, argv[1], concurrency);
    run_for(&c, concurrency, 0.2);
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run_for(&c, concurrency, strtod(argv[3], NULL));
    wall = seconds(CLOCK_MONOTONIC) - wall;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double count = (double)c.count;
    printf("rate %.1f\ncpu %.3f\nmb %.2f\n", count / wall, cpu / count * 1e6,
           (double)usage.ru_maxrss / 1024);
    return 0;
}
