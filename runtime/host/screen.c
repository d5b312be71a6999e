/* SPDX-License-Identifier: MIT */
/* The lower end of a terminal that several write to. */
#include "screen.h"
#include "width.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    /* Output that is kept for the next settle; more is written at once. */
    PENDING_MOST = 64 * 1024,
    COLUMNS_UNKNOWN = 80,
};

void screen_resize(screen *self)
{
    struct winsize size = {0};
    bool is_known = ioctl(self->fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    self->columns = is_known ? size.ws_col : COLUMNS_UNKNOWN;
}

void screen_init(screen *self, int fd, bool can_move)
{
    *self = (screen){.fd = fd, .can_move = can_move};
    screen_resize(self);
}

void screen_fini(screen *self)
{
    free(self->footer);
    free(self->pending);
    self->footer = self->pending = NULL;
}

/* ---- bytes ---- */

static void write_out(screen *self, const char *bytes, size_t length)
{
    while (length > 0 && !self->is_broken) {
        ssize_t written = write(self->fd, bytes, length);
        if (written >= 0) {
            bytes += written;
            length -= (size_t)written;
        } else if (errno == EAGAIN) {
            struct pollfd watched = {.fd = self->fd, .events = POLLOUT};
            poll(&watched, 1, -1);
        } else if (errno != EINTR) {
            self->is_broken = true;
        }
    }
}

static void flush_pending(screen *self)
{
    write_out(self, self->pending, self->pending_length);
    self->pending_length = 0;
}

static void keep(screen *self, const char *bytes, size_t length)
{
    if (self->pending_length + length > self->pending_size) {
        size_t size = self->pending_length + length + 1024;
        char *grown = size <= PENDING_MOST ? realloc(self->pending, size) : NULL;
        if (!grown) {
            flush_pending(self);
            write_out(self, bytes, length);
            return;
        }
        self->pending = grown;
        self->pending_size = size;
    }
    memcpy(self->pending + self->pending_length, bytes, length);
    self->pending_length += length;
}

static void keep_text(screen *self, const char *text)
{
    keep(self, text, strlen(text));
}

/* ---- the line without an end ---- */

static void follow_tail(screen *self, const char *bytes, size_t length)
{
    const char *last = memrchr(bytes, '\n', length);
    if (last) {
        length -= (size_t)(last + 1 - bytes);
        bytes = last + 1;
        self->tail_length = 0;
    }
    if (self->tail_length + length > sizeof self->tail) {
        /* too long to be written again: what comes goes on below the line that is typed */
        self->tail_length = 0;
        return;
    }
    memcpy(self->tail + self->tail_length, bytes, length);
    self->tail_length += length;
}

/** Rows of the tail with the line end behind it. */
static int tail_rows(const screen *self)
{
    if (self->tail_length == 0)
        return 0;
    text_place place = {0, 0};
    width_follow(&place, self->tail, self->tail_length, self->columns);
    return place.column == 0 && place.row > 0 ? place.row : place.row + 1;
}

/* ---- the block ---- */

static int footer_rows(const screen *self)
{
    if (!self->footer)
        return 0;
    int rows = 1;
    for (const char *at = self->footer; (at = strchr(at, '\n')); at++)
        rows++;
    return rows;
}

void screen_hide(screen *self)
{
    if (!self->is_shown)
        return;
    self->is_shown = false;
    if (!self->can_move) {
        keep_text(self, "\n");
        return;
    }
    int rows = self->rows_above;
    if (self->is_typing)
        rows += self->line.rows(self->line.user, self->columns);
    char move[32] = "";
    if (rows > 0)
        snprintf(move, sizeof move, "\033[%dA", rows);
    keep_text(self, move);
    keep_text(self, "\r\033[J");
    keep(self, self->tail, self->tail_length);
}

void screen_forget(screen *self)
{
    self->is_shown = false;
}

static void keep_footer(screen *self)
{
    for (const char *at = self->footer; at;) {
        const char *end = strchr(at, '\n');
        size_t length = end ? (size_t)(end - at) : strlen(at);
        keep(self, at, length);
        at = end ? end + 1 : NULL;
        if (at || self->is_typing)
            keep_text(self, "\r\n");
    }
}

void screen_settle(screen *self)
{
    bool has_footer = self->footer && self->can_move;
    if (!self->is_shown && (self->is_typing || has_footer)) {
        self->rows_above = tail_rows(self);
        if (self->tail_length > 0)
            keep_text(self, "\r\n");
        if (has_footer) {
            self->rows_above += footer_rows(self) - (self->is_typing ? 0 : 1);
            keep_footer(self);
        }
        self->is_shown = true;
        flush_pending(self);
        if (self->is_typing)
            self->line.draw(self->line.user);
        return;
    }
    flush_pending(self);
}

static void set_footer(screen *self, const char *text, size_t length)
{
    screen_hide(self);
    free(self->footer);
    self->footer = length > 0 ? strndup(text, length) : NULL;
}

bool screen_write(screen *self, const char *bytes, size_t length)
{
    const size_t start = sizeof SCREEN_FOOTER_START - 1, end = sizeof SCREEN_FOOTER_END - 1;
    bool is_footer = length >= start + end && memcmp(bytes, SCREEN_FOOTER_START, start) == 0 &&
                     memcmp(bytes + length - end, SCREEN_FOOTER_END, end) == 0;
    if (is_footer) {
        set_footer(self, bytes + start, length - start - end);
        if (!self->is_typing)
            screen_settle(self);
        return !self->is_broken;
    }
    screen_hide(self);
    keep(self, bytes, length);
    follow_tail(self, bytes, length);
    if (!self->is_typing)
        screen_settle(self);
    return !self->is_broken;
}
