/* SPDX-License-Identifier: MIT */
/* Instances: several at once, calls from callbacks, the end in a callback, many of them in turn. */
#include "check.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

static void several(void)
{
    enum { COUNT = 8 };
    sluice *s[COUNT];
    outcome ends[COUNT];
    char chunk[256];
    for (int i = 0; i < COUNT; i++) {
        s[i] = open_plain();
        snprintf(chunk, sizeof chunk,
                 "local task = require 'sluice.task'\n"
                 "own = (own or 0) + %d\n"
                 "for i = 1, 20 do task.sleep(0.001) end return own",
                 i);
        CHECK(spawn(s[i], chunk, &ends[i]) > 0);
    }
    int left = COUNT;
    while (left > 0) {
        left = 0;
        for (int i = 0; i < COUNT; i++) {
            CHECK(sluice_pump(s[i], 200) >= 0);
            left += !ends[i].calls;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(ends[i].status == SLUICE_OK && atoi(ends[i].text) == i);
        sluice_delete(s[i]);
    }
}

typedef struct meddler {
    sluice *s;
    int calls;
    const char *kept;
} meddler;

static void meddle(void *user, int status, const char *text, size_t len)
{
    meddler *self = user;
    (void)status;
    (void)len;
    self->calls++;
    self->kept = text;
    CHECK(sluice_pump(self->s, 0) == SLUICE_EBUSY);
    CHECK(sluice_wait(self->s, 0) == SLUICE_EBUSY);
    CHECK(sluice_spawn(self->s, "=c", "", 0, NULL, NULL) == SLUICE_EBUSY);
    CHECK(sluice_cancel(self->s, 1, NULL) == SLUICE_EBUSY);
    CHECK(sluice_ready(self->s, 0, SLUICE_READ) == SLUICE_EBUSY);
    CHECK(sluice_warm_up(self->s) == SLUICE_EBUSY);
    CHECK(sluice_register(self->s, "x", NULL, NULL, NULL) == SLUICE_EBUSY);
    sluice_wake(self->s);
}

static void busy(void)
{
    meddler first = {open_plain(), 0, NULL}, second = {first.s, 0, NULL};
    CHECK(sluice_spawn(first.s, "=c", "return 'one'", 12, meddle, &first) > 0);
    CHECK(sluice_spawn(first.s, "=c", "return 'two'", 12, meddle, &second) > 0);
    sluice_pump(first.s, 0);
    CHECK(first.calls == 1 && second.calls == 1);
    /* both texts are ours until the next pump */
    CHECK(strcmp(first.kept, "\"one\"") == 0 && strcmp(second.kept, "\"two\"") == 0);
    CHECK(sluice_pump(first.s, 0) == 0);
    sluice_delete(first.s);
}

static void delete_when_done(void *user, int status, const char *text, size_t len)
{
    meddler *self = user;
    (void)status;
    (void)text;
    (void)len;
    self->calls++;
    sluice_delete(self->s);
    sluice_delete(self->s);
}

static void delete_in_callback(void)
{
    meddler self = {open_plain(), 0, NULL};
    const char *chunk = "require 'sluice.task'.sleep(3600)";
    CHECK(sluice_spawn(self.s, "=c", chunk, strlen(chunk), delete_when_done, &self) > 0);
    CHECK(sluice_spawn(self.s, "=c", "", 0, delete_when_done, &self) > 0);
    while (!self.calls)
        CHECK(sluice_pump(self.s, 1000) >= 0);
    CHECK(self.calls == 2); /* whoever was spawned is told of, also at the end */
}

static void delete_on_error(void *user, const char *text)
{
    meddler *self = user;
    CHECK(strlen(text) > 0);
    self->calls++;
    sluice_delete(self->s);
}

static void delete_in_error(void)
{
    meddler self = {NULL, 0, NULL};
    sluice_options options = {
        .size = sizeof options, .on_error = delete_on_error, .callback_user = &self};
    CHECK(sluice_new(&self.s, &options) == SLUICE_OK);
    CHECK(sluice_spawn(self.s, "=c", "x x", 3, NULL, NULL) == SLUICE_ESYNTAX);
    CHECK(self.calls == 1);
    self.calls = 0;
    CHECK(sluice_new(&self.s, &options) == SLUICE_OK);
    const char *chunk = "require 'sluice.task'.group():spawn(error, 'lost')";
    CHECK(sluice_spawn(self.s, "=c", chunk, strlen(chunk), NULL, NULL) > 0);
    CHECK(sluice_pump(self.s, 0) == 0);
    CHECK(self.calls == 1);
}

static void delete_tells(void)
{
    sluice *s = open_plain();
    outcome waiting, clean, stubborn, fresh;
    spawn(s, "require 'sluice.task'.sleep(3600)", &waiting);
    spawn(s,
          "local task = require 'sluice.task' pcall(task.sleep, 3600)\n"
          "task.shield(function() task.sleep(0.02) end) return 'clean'",
          &clean);
    spawn(s, "local task = require 'sluice.task' task.shield(task.sleep, 3600)", &stubborn);
    sluice_pump(s, 0);
    spawn(s, "", &fresh);
    double start = seconds_now();
    sluice_delete(s);
    CHECK(seconds_now() - start < 5);
    CHECK(waiting.calls == 1 && waiting.status == SLUICE_ECANCELLED);
    CHECK(clean.calls == 1 && clean.status == SLUICE_OK && strcmp(clean.text, "\"clean\"") == 0);
    CHECK(stubborn.calls == 1 && stubborn.status == SLUICE_ECANCELLED);
    CHECK(strstr(stubborn.text, "before the task had unwound"));
    CHECK(fresh.calls == 1 && fresh.status == SLUICE_ECANCELLED);
}

static size_t resident(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%*d %ld", &pages) == 1);
    fclose(file);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int open_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void cycle(int count)
{
    for (int i = 0; i < count; i++) {
        sluice *s = open_plain();
        outcome end;
        CHECK(spawn(s, "return 1 + 1", &end) > 0);
        sluice_pump(s, 1000);
        CHECK(end.calls == 1 && strcmp(end.text, "2") == 0);
        sluice_delete(s);
    }
}

static void cycles(void)
{
    const char *given = getenv("CYCLES");
    int count = given ? atoi(given) : 10000;
    cycle(count / 10);
    size_t before = resident();
    int descriptors = open_descriptors();
    cycle(count);
    size_t after = resident();
    CHECK(open_descriptors() == descriptors);
    fprintf(stderr, "%d cycles: %zu KB before, %zu KB after\n", count, before / 1024, after / 1024);
    CHECK(given || after < before + (1 << 20));
}

static void misuse(void)
{
    sluice *s = NULL;
    sluice_options options = plain_options();
    CHECK(sluice_new(NULL, &options) == SLUICE_EINVAL);
    CHECK(sluice_new(&s, NULL) == SLUICE_EINVAL && s == NULL);
    options.size = 4;
    CHECK(sluice_new(&s, &options) == SLUICE_EINVAL && s == NULL);
    options = plain_options();
    sluice_loop loop = {.size = 3};
    options.loop = &loop;
    CHECK(sluice_new(&s, &options) == SLUICE_EINVAL);
    options = plain_options();
    options.argc = 1;
    CHECK(sluice_new(&s, &options) == SLUICE_EINVAL);
    sluice_delete(NULL);
    for (int err = SLUICE_ETHREAD; err <= SLUICE_OK; err++)
        CHECK(strlen(sluice_strerror(err)) > 3);
}

/* What it does is done once: the second time there is nothing left to do. */
static void warm_up(void)
{
    sluice_options options = plain_options();
    sluice *s = NULL;
    options.capabilities = SLUICE_CAN_CONNECT;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    double start = seconds_now();
    CHECK(sluice_warm_up(s) == SLUICE_OK);
    double first = seconds_now() - start;
    int before = open_descriptors();
    start = seconds_now();
    CHECK(sluice_warm_up(s) == SLUICE_OK);
    double second = seconds_now() - start;
    fprintf(stderr, "%.1f ms, then %.1f ms\n", first * 1e3, second * 1e3);
    CHECK(second < first);
    CHECK(open_descriptors() == before);
    outcome end;
    run(s, "return require 'sluice.http' ~= nil", &end);
    CHECK(end.status == SLUICE_OK);
    sluice_delete(s);
    s = open_plain(); /* without a grant to connect: the modules only */
    CHECK(sluice_warm_up(s) == SLUICE_OK);
    sluice_delete(s);
}

static void *call_all(void *user)
{
    sluice *s = user;
    CHECK(sluice_pump(s, 0) == SLUICE_ETHREAD && sluice_wait(s, 0) == SLUICE_ETHREAD);
    CHECK(sluice_spawn(s, "=c", "", 0, NULL, NULL) == SLUICE_ETHREAD);
    CHECK(sluice_cancel(s, 1, NULL) == SLUICE_ETHREAD);
    CHECK(sluice_ready(s, 0, SLUICE_READ) == SLUICE_ETHREAD);
    CHECK(sluice_register(s, "x", NULL, NULL, NULL) == SLUICE_ETHREAD);
    CHECK(sluice_complete(s, 1, NULL, 0) == SLUICE_ETHREAD);
    CHECK(sluice_fail(s, 1, NULL, NULL) == SLUICE_ETHREAD);
    CHECK(sluice_watch(s, 0, 0, NULL, NULL) == SLUICE_ETHREAD);
    CHECK(sluice_warm_up(s) == SLUICE_ETHREAD);
    CHECK(sluice_next_due(s) == SLUICE_ETHREAD);
    sluice_delete(s); /* refused as well, and told of */
    return NULL;
}

static void count_error(void *user, const char *text)
{
    CHECK(strstr(text, "another thread"));
    ++*(int *)user;
}

static void threads(void)
{
    int told = 0;
    sluice_options options = {
        .size = sizeof options, .on_error = count_error, .callback_user = &told};
    sluice *s = NULL;
    pthread_t thread;
    outcome end;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    CHECK(pthread_create(&thread, NULL, call_all, s) == 0);
    pthread_join(thread, NULL);
    CHECK(told == 1);
    run(s, "return 'untouched'", &end);
    CHECK(end.status == SLUICE_OK);
    sluice_delete(s);
}

static const test_case cases[] = {
    {"several", several},
    {"busy", busy},
    {"delete_in_callback", delete_in_callback},
    {"delete_in_error", delete_in_error},
    {"delete_tells", delete_tells},
    {"cycles", cycles},
    {"misuse", misuse},
    {"warm_up", warm_up},
    {"threads", threads},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
