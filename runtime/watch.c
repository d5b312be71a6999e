/* SPDX-License-Identifier: MIT */
/* Descriptors of the host's, watched on the loop of the instance. */
#include "instance.h"

struct sl_watch {
    sl_io io;
    sl_watch *next;
    sluice_watcher watcher;
    void *user;
};

static void on_watched(sl_io *io, unsigned events)
{
    const sl_watch *watch = (const sl_watch *)(const void *)io;
    watch->watcher(watch->user, io->fd, events);
}

static sl_watch **find_watch(sluice *s, int fd)
{
    sl_watch **link = &s->watches;
    while (*link && (*link)->io.fd != fd)
        link = &(*link)->next;
    return link;
}

static void stop_watch(sluice *s, sl_watch **link)
{
    sl_watch *watch = *link;
    if (!watch)
        return;
    *link = watch->next;
    sl_io_watch(s->core, &watch->io, 0);
    sl_free(s->core, watch);
}

static int start_watch(sluice *s, int fd, unsigned events, sluice_watcher watcher, void *user)
{
    sl_watch *watch = *find_watch(s, fd);
    bool is_new = !watch;
    if (is_new && (size_t)fd < s->core->ios_size && s->core->ios[fd])
        return SLUICE_EINVAL; /* one of our own */
    if (is_new) {
        watch = sl_alloc_array(s->core, 1, sizeof *watch);
        if (!watch)
            return SLUICE_ENOMEM;
        watch->io.fd = fd;
        watch->io.on_ready = on_watched;
    }
    if (sl_io_watch(s->core, &watch->io, events) < 0) {
        if (is_new)
            sl_free(s->core, watch);
        return SLUICE_ENOMEM;
    }
    watch->watcher = watcher;
    watch->user = user;
    if (is_new) {
        watch->next = s->watches;
        s->watches = watch;
    }
    return SLUICE_OK;
}

int sluice_watch(sluice *s, int fd, unsigned events, sluice_watcher watcher, void *user)
{
    if (!sl_instance_is_here(s))
        return SLUICE_ETHREAD;
    if (s->options.loop)
        return SLUICE_EUNSUPPORTED;
    if (fd < 0 || (events & ~(unsigned)(SLUICE_READ | SLUICE_WRITE)) || (events && !watcher))
        return SLUICE_EINVAL;
    if (events)
        return start_watch(s, fd, events, watcher, user);
    stop_watch(s, find_watch(s, fd));
    return SLUICE_OK;
}

void sl_watches_close(sluice *s)
{
    while (s->watches)
        stop_watch(s, &s->watches);
}
