/* SPDX-License-Identifier: MIT */
/* Who turns the loop: sluice_wait, a thread that wakes it, a loop of the host's. */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static void due(void)
{
    sluice *s = open_plain();
    outcome end;
    CHECK(sluice_pump(s, 0) == 0);
    CHECK(sluice_next_due(s) == -1);
    CHECK(sluice_wait(s, -1) == SLUICE_ESTALLED);
    CHECK(sluice_wait(s, 1000) == SLUICE_OK);
    CHECK(spawn(s, "require 'sluice.task'.sleep(0.2)", &end) > 0);
    CHECK(sluice_next_due(s) == 0);
    sluice_pump(s, 0);
    long delay = sluice_next_due(s);
    CHECK(delay > 50000 && delay <= 200000);
    double start = seconds_now();
    CHECK(sluice_wait(s, 20000) == SLUICE_OK);
    CHECK(seconds_now() - start < 0.15 && !end.calls);
    run_to_end(s, &end);
    double took = seconds_now() - start;
    CHECK(end.status == SLUICE_OK && took > 0.1 && took < 1);
    CHECK(spawn(s, "require 'sluice.task'.channel():receive()", &end) > 0);
    sluice_pump(s, 0);
    CHECK(sluice_wait(s, -1) == SLUICE_ESTALLED);
    sluice_delete(s);
    CHECK(end.status == SLUICE_ECANCELLED);
}

static void *wake_soon(void *user)
{
    usleep(20000);
    sluice_wake(user);
    return NULL;
}

static void woken(void)
{
    sluice *s = open_plain();
    outcome end;
    CHECK(spawn(s, "require 'sluice.task'.sleep(60)", &end) > 0);
    sluice_pump(s, 0);
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        double start = seconds_now();
        CHECK(pthread_create(&thread, NULL, wake_soon, s) == 0);
        CHECK(sluice_wait(s, 30000000) == SLUICE_OK);
        CHECK(seconds_now() - start < 10);
        pthread_join(thread, NULL);
        sluice_pump(s, 0);
    }
    sluice_wake(s); /* not lost when nobody waits yet */
    CHECK(sluice_wait(s, 30000000) == SLUICE_OK);
    sluice_delete(s);
}

/** A host's loop over poll(2). */
typedef struct poll_loop {
    struct pollfd fds[64];
    int count, most;
    long delay;
    long watches;
} poll_loop;

static int loop_watch(void *user, int fd, unsigned events)
{
    poll_loop *loop = user;
    int at = 0;
    loop->watches++;
    while (at < loop->count && loop->fds[at].fd != fd)
        at++;
    if (!events) {
        CHECK(at < loop->count);
        loop->fds[at] = loop->fds[--loop->count];
        return 0;
    }
    if (at == loop->most)
        return -1;
    if (at == loop->count)
        loop->count++;
    loop->fds[at].fd = fd;
    loop->fds[at].events =
        (short)(((events & SLUICE_READ) ? POLLIN : 0) | ((events & SLUICE_WRITE) ? POLLOUT : 0));
    return 0;
}

static void loop_wake_at(void *user, long delay_us)
{
    poll_loop *loop = user;
    loop->delay = delay_us;
}

static unsigned to_events(short revents)
{
    unsigned events = 0;
    if (revents & (POLLIN | POLLHUP | POLLERR))
        events |= SLUICE_READ;
    if (revents & (POLLOUT | POLLHUP | POLLERR))
        events |= SLUICE_WRITE;
    return events;
}

/* Pumps only when told to: when its time has come. */
static void loop_run(sluice *s, poll_loop *loop, const outcome *end)
{
    while (!end->calls) {
        struct pollfd ready[64];
        CHECK(loop->delay >= 0 || loop->count > 1);
        int timeout = loop->delay < 0 ? -1 : (int)((loop->delay + 999) / 1000);
        CHECK(poll(loop->fds, (nfds_t)loop->count, timeout) >= 0);
        int count = loop->count;
        memcpy(ready, loop->fds, sizeof ready);
        int any = 0;
        for (int i = 0; i < count; i++)
            if (ready[i].revents) {
                any = 1;
                CHECK(sluice_ready(s, ready[i].fd, to_events(ready[i].revents)) == 0);
            }
        if (!any || loop->delay == 0)
            CHECK(sluice_pump(s, 2000) >= 0);
    }
}

static sluice *open_looped(poll_loop *loop)
{
    sluice_loop table = {
        .size = sizeof table, .user = loop, .watch = loop_watch, .wake_at = loop_wake_at};
    sluice_options options = plain_options();
    options.loop = &table;
    options.capabilities = SLUICE_CAN_CONNECT | SLUICE_CAN_LISTEN;
    sluice *s = NULL;
    memset(loop, 0, sizeof *loop);
    loop->delay = -1;
    loop->most = 64;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    return s;
}

static void own_timers(void)
{
    poll_loop loop;
    sluice *s = open_looped(&loop);
    outcome end;
    CHECK(sluice_wait(s, 0) == SLUICE_EUNSUPPORTED);
    CHECK(spawn(s,
                "local task = require 'sluice.task' local ticks = 0\n"
                "task.map({ 1, 2, 3 }, function(n)\n"
                "  for i = 1, 10 do task.sleep(n / 1000) ticks = ticks + 1 end end)\n"
                "return ticks",
                &end) > 0);
    CHECK(loop.delay == 0); /* the host hears of it without a pump */
    loop_run(s, &loop, &end);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "30") == 0);
    spawn(s, "require 'sluice.task'.sleep(3600)", &end);
    sluice_pump(s, 0);
    CHECK(loop.delay > 3000000);
    sluice_delete(s);
    CHECK(end.calls == 1 && loop.count == 0);
}

static void own_sockets(void)
{
    poll_loop loop;
    sluice *s = open_looped(&loop);
    outcome end;
    CHECK(spawn(s,
                "local task, http, web = require 'sluice.task', require 'sluice.http', "
                "require 'sluice.web'\n"
                "local app = web.app()\n"
                "app:post('/double', function(request)\n"
                "  task.sleep(0.005)\n"
                "  return { status = 200, json = { n = 2 * assert(request:json()).n } } end)\n"
                "local server = assert(app:listen '127.0.0.1:0')\n"
                "local client = http.client{ max_connections = 4 }\n"
                "local sum = 0\n"
                "for _, row in ipairs(task.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, function(n)\n"
                "  local res = assert(client:request { method = 'POST',\n"
                "    url = 'http://' .. server.address .. '/double', json = { n = n } })\n"
                "  return res:json().n end)) do sum = sum + assert(row.value, row.error) end\n"
                "client:close()\n"
                "server:stop(1)\n"
                "return sum",
                &end) > 0);
    loop_run(s, &loop, &end);
    if (end.status != SLUICE_OK)
        fprintf(stderr, "%s\n", end.text);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "110") == 0);
    sluice_delete(s);
    CHECK(loop.count == 0 && loop.watches > 10);
}

/* A loop that can watch nothing more: whoever wants to is told, and nothing waits for ever. */
static void own_full(void)
{
    for (int most = 1; most <= 5; most++) {
        poll_loop loop;
        sluice *s = open_looped(&loop);
        outcome end;
        loop.most = most;
        CHECK(
            spawn(
                s,
                "local task, http, web = require 'sluice.task', require 'sluice.http', "
                "require 'sluice.web'\n"
                "return (pcall(function()\n"
                "  local app = web.app()\n"
                "  app:get('/', function() return { status = 200, body = 'x' } end)\n"
                "  local server = assert(app:listen '127.0.0.1:0')\n"
                "  assert(http.request { url = 'http://' .. server.address .. '/', timeout = 2 })\n"
                "  server:stop(1)\n"
                "end))",
                &end) > 0);
        loop_run(s, &loop, &end);
        CHECK(end.status == SLUICE_OK);
        fprintf(stderr, "%d descriptors: %s\n", most, end.text);
        CHECK(most > 2 || strcmp(end.text, "false") == 0);
        CHECK(most < 5 || strcmp(end.text, "true") == 0);
        sluice_delete(s);
        CHECK(loop.count == 0);
    }
}

static const test_case cases[] = {
    {"due", due},
    {"woken", woken},
    {"own_timers", own_timers},
    {"own_sockets", own_sockets},
    {"own_full", own_full},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
