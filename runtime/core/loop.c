/* SPDX-License-Identifier: MIT */
/* Descriptors: the table of what is watched, and libev behind the small interface of a loop. */
#include "internal.h"

#include <ev.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- the table ---- */

static bool ios_reserve(sl_core *core, int fd)
{
    if ((size_t)fd < core->ios_size)
        return true;
    size_t size = core->ios_size ? core->ios_size : 64;
    while (size <= (size_t)fd)
        size *= 2;
    sl_io **ios = sl_realloc(core, core->ios, size * sizeof *ios);
    if (!ios)
        return false;
    memset(ios + core->ios_size, 0, (size - core->ios_size) * sizeof *ios);
    core->ios = ios;
    core->ios_size = size;
    return true;
}

void sl_io_park(sl_core *core, sl_io *io)
{
    if (io->events == 0 || io->is_parked)
        return;
    io->is_parked = true;
    core->ios_watched--;
}

static void io_unlink(sl_core *core, sl_io *io)
{
    if (!io->link)
        return;
    *io->link = io->next;
    if (io->next)
        io->next->link = io->link;
    else
        core->seen_end = io->link;
    io->link = NULL;
    io->next = NULL;
    io->seen = 0;
}

int sl_io_watch(sl_core *core, sl_io *io, unsigned events)
{
    if (io->is_parked) {
        io->is_parked = false;
        core->ios_watched++;
    }
    if (io->events == events || !core->backend)
        return 0;
    if (events != 0 && !ios_reserve(core, io->fd))
        return -1;
    if (core->backend->watch(core->backend, io->fd, events) < 0)
        return -1;
    if (events == 0)
        io_unlink(core, io);
    if (io->events == 0) {
        core->ios_watched++;
        core->ios_open++;
    } else if (events == 0) {
        core->ios_watched--;
        core->ios_open--;
    }
    core->ios[io->fd] = events ? io : NULL;
    io->events = events;
    return 0;
}

void sl_io_notify(sl_core *core, int fd, unsigned events)
{
    sl_io *io = fd >= 0 && (size_t)fd < core->ios_size ? core->ios[fd] : NULL;
    if (!io || !(events & io->events))
        return;
    sl_now_update(core); /* the time of the last turn is as old as the sleep since then */
    io->on_ready(io, events & io->events);
}

void sl_io_see(sl_core *core, int fd, unsigned events)
{
    sl_io *io = fd >= 0 && (size_t)fd < core->ios_size ? core->ios[fd] : NULL;
    if (!io || !(events & io->events))
        return;
    io->seen |= events;
    if (io->link)
        return;
    io->link = core->seen_end;
    *core->seen_end = io;
    core->seen_end = &io->next;
}

void sl_io_tell(sl_core *core, int64_t end)
{
    int64_t now = sl_now_update(core);
    while (core->seen && now < end) {
        sl_io *io = core->seen;
        unsigned events = io->seen & io->events;
        io_unlink(core, io);
        if (events)
            io->on_ready(io, events);
        now = sl_now_update(core);
    }
}

/* ---- libev ---- */

typedef struct libev_backend {
    sl_backend base;
    sl_core *core;
    struct ev_loop *loop;
    ev_timer timer;
    ev_io **watchers;
    size_t size;
} libev_backend;

static void libev_on_io(struct ev_loop *loop, ev_io *watcher, int revents)
{
    (void)loop;
    unsigned events = 0;
    if (revents & (EV_READ | EV_ERROR))
        events |= SL_READ;
    if (revents & (EV_WRITE | EV_ERROR))
        events |= SL_WRITE;
    sl_io_see(watcher->data, watcher->fd, events);
}

static void libev_on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)timer;
    (void)revents;
}

static ev_io *libev_watcher(libev_backend *self, int fd)
{
    if ((size_t)fd >= self->size) {
        size_t size = self->size ? self->size : 64;
        while (size <= (size_t)fd)
            size *= 2;
        ev_io **watchers = sl_realloc(self->core, self->watchers, size * sizeof *watchers);
        if (!watchers)
            return NULL;
        memset(watchers + self->size, 0, (size - self->size) * sizeof *watchers);
        self->watchers = watchers;
        self->size = size;
    }
    if (!self->watchers[fd]) {
        ev_io *watcher = sl_alloc(self->core, sizeof *watcher);
        if (!watcher)
            return NULL;
        ev_io_init(watcher, libev_on_io, fd, 0);
        watcher->data = self->core;
        self->watchers[fd] = watcher;
    }
    return self->watchers[fd];
}

static int libev_watch(sl_backend *backend, int fd, unsigned events)
{
    libev_backend *self = (libev_backend *)backend;
    ev_io *watcher = libev_watcher(self, fd);
    if (!watcher)
        return -1;
    int wanted = ((events & SL_READ) ? EV_READ : 0) | ((events & SL_WRITE) ? EV_WRITE : 0);
    ev_io_stop(self->loop, watcher);
    if (wanted) {
        ev_io_set(watcher, fd, wanted);
        ev_io_start(self->loop, watcher);
    }
    return 0;
}

static void libev_poll(sl_backend *backend, int64_t timeout)
{
    libev_backend *self = (libev_backend *)backend;
    if (timeout == 0) {
        ev_run(self->loop, EVRUN_NOWAIT);
        return;
    }
    if (timeout > 0) {
        /* timers of libev count from ev_now(), which is old after a long slice of Lua */
        ev_now_update(self->loop);
        ev_timer_set(&self->timer, (double)timeout / 1e6, 0);
        ev_timer_start(self->loop, &self->timer);
    }
    ev_run(self->loop, EVRUN_ONCE);
    ev_timer_stop(self->loop, &self->timer);
}

static void libev_close(sl_backend *backend)
{
    libev_backend *self = (libev_backend *)backend;
    for (size_t i = 0; i < self->size; i++) {
        if (self->watchers[i])
            ev_io_stop(self->loop, self->watchers[i]);
        sl_free(self->core, self->watchers[i]);
    }
    sl_free(self->core, self->watchers);
    ev_loop_destroy(self->loop);
    sl_free(self->core, self);
}

sl_backend *sl_backend_libev(sl_core *core)
{
    libev_backend *self = sl_alloc_array(core, 1, sizeof *self);
    if (!self)
        return NULL;
    self->base = (sl_backend){
        .watch = libev_watch,
        .poll = libev_poll,
        .close = libev_close,
    };
    self->core = core;
    /* never the default loop: it takes SIGCHLD */
    self->loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
    if (!self->loop) {
        sl_free(core, self);
        return NULL;
    }
    ev_timer_init(&self->timer, libev_on_timer, 0, 0);
    return &self->base;
}

/* ---- waking from another thread or from a signal handler ---- */

static void on_wake(sl_io *io, unsigned events)
{
    (void)events;
    uint64_t count;
    while (read(io->fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

int sl_wake_open(sl_core *core)
{
    core->wake_io.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (core->wake_io.fd < 0)
        return -1;
    core->wake_io.on_ready = on_wake;
    return sl_io_watch(core, &core->wake_io, SL_READ);
}
