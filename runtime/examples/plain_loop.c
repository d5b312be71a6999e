/* SPDX-License-Identifier: MIT */
/*
 * A host with a loop of its own, over poll(2): sluice tells it what to watch and when to pump, its
 * own descriptor (a timer here) is served by the same loop, and a script waits for its ticks.
 */
#include "sluice.h"

#include <poll.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { WATCHED_MAX = 256 };

typedef struct loop {
    struct pollfd fds[WATCHED_MAX];
    int count;
    /** Microseconds until sluice_pump() is due, -1: not before a descriptor is ready. */
    long delay;
    sluice *s;
    unsigned long ticks;
    /** A script waits for the next tick; 0: none does. */
    sluice_call waiting;
} loop;

/* 0 is what poll(2) is not asked for, so a descriptor that is not watched any more leaves. */
static int watch(void *user, int fd, unsigned events)
{
    loop *self = user;
    int at = 0;
    while (at < self->count && self->fds[at].fd != fd)
        at++;
    if (events == 0) {
        if (at < self->count)
            self->fds[at] = self->fds[--self->count];
        return 0;
    }
    if (at == WATCHED_MAX)
        return -1;
    if (at == self->count)
        self->count++;
    int wanted = ((events & SLUICE_READ) ? POLLIN : 0) | ((events & SLUICE_WRITE) ? POLLOUT : 0);
    self->fds[at] = (struct pollfd){.fd = fd, .events = (short)wanted};
    return 0;
}

static void wake_at(void *user, long delay_us)
{
    loop *self = user;
    self->delay = delay_us;
}

static unsigned events_of(short revents)
{
    unsigned events = 0;
    if (revents & (POLLIN | POLLHUP | POLLERR))
        events |= SLUICE_READ;
    if (revents & (POLLOUT | POLLHUP | POLLERR))
        events |= SLUICE_WRITE;
    return events;
}

/** host.tick() in Lua: answered when the timer fires. */
static void on_wait_for_tick(void *user, sluice_call call, const char *arguments, size_t len)
{
    loop *self = user;
    (void)arguments;
    (void)len;
    self->waiting = call;
}

static void on_ticks(loop *self, int own_fd)
{
    uint64_t expired = 0;
    char answer[32];
    if (read(own_fd, &expired, sizeof expired) != (ssize_t)sizeof expired)
        return;
    self->ticks += expired;
    if (!self->waiting)
        return;
    int length = snprintf(answer, sizeof answer, "%lu", self->ticks);
    sluice_complete(self->s, self->waiting, answer, (size_t)length);
    self->waiting = 0;
}

/** One turn: first the host's own descriptor, then those of sluice. */
static void turn(loop *self, int own_fd)
{
    struct pollfd ready[WATCHED_MAX + 1];
    int count = self->count;
    memcpy(ready, self->fds, (size_t)count * sizeof *ready);
    ready[count] = (struct pollfd){.fd = own_fd, .events = POLLIN};
    poll(ready, (nfds_t)count + 1, self->delay < 0 ? -1 : (int)((self->delay + 999) / 1000));
    if (ready[count].revents)
        on_ticks(self, own_fd);
    for (int i = 0; i < count; i++)
        if (ready[i].revents)
            sluice_ready(self->s, ready[i].fd, events_of(ready[i].revents));
    sluice_pump(self->s, 2000);
}

static const char chunk[] =
    "local http, task, web = require 'sluice.http', require 'sluice.task', require 'sluice.web'\n"
    "local app = web.app()\n"
    "app:get('/river', function()\n"
    "  task.sleep(0.05)\n"
    "  return { status = 200, json = { says = 'the gate is open' } }\n"
    "end)\n"
    "local host = require 'sluice.host'\n"
    "local server = assert(app:listen '127.0.0.1:0')\n"
    "local answer = assert(http.request { url = 'http://' .. server.address .. '/river' })\n"
    "server:stop(1)\n"
    "return { answer = answer:json(), ticks = { host.tick(), host.tick() } }\n";

static void on_done(void *user, int status, const char *text, size_t len)
{
    int *ended = user;
    *ended = status == SLUICE_OK ? 1 : status;
    fprintf(status == SLUICE_OK ? stdout : stderr, "answer: %.*s\n", (int)len, text);
}

int main(void)
{
    loop self = {.delay = -1};
    sluice_loop table = {.size = sizeof table, .user = &self, .watch = watch, .wake_at = wake_at};
    sluice_options options = {
        .size = sizeof options,
        .capabilities = SLUICE_CAN_CONNECT | SLUICE_CAN_LISTEN,
        .loop = &table,
    };
    int ended = 0;
    int own_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec every = {.it_interval = {.tv_nsec = 10000000}, .it_value = {.tv_nsec = 1}};
    if (own_fd < 0 || timerfd_settime(own_fd, 0, &every, NULL) < 0)
        return 1;
    if (sluice_new(&self.s, &options) < 0 ||
        sluice_register(self.s, "tick", on_wait_for_tick, NULL, &self) < 0)
        return 1;
    sluice_spawn(self.s, "=chunk", chunk, strlen(chunk), on_done, &ended);
    while (!ended)
        turn(&self, own_fd);
    sluice_delete(self.s);
    close(own_fd);
    printf("%lu ticks of the host's own timer\n", self.ticks);
    return ended < 0;
}
