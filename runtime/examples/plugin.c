/* SPDX-License-Identifier: MIT */
/*
 * An app that runs scripts of strangers: each in an instance of its own, with what it may take and
 * do said in the options. Those that do harm are stopped, and the app tells by what.
 *
 *     plugin                the scripts below
 *     plugin FILE.lua...    yours
 */
#include "sluice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMORY = 4 << 20,
    INSTRUCTIONS = 5000000,
    /** Microseconds for a frame. */
    BUDGET = 1000,
    FILE_MOST = 1 << 20,
};

/** What all plugins may ask for: no network, no files, only the app. */
static const char *const no_hosts[] = {NULL};

typedef struct plugin {
    const char *name, *chunk;
    sluice *s;
    int ended;
} plugin;

static const plugin examples[] = {
    {"a good one",
     "local app, task = require 'sluice.host', require 'sluice.task'\n"
     "local gold = app.count 'gold'\n"
     "task.sleep(0.01)\n"
     "print('it has waited, and there is gold:', gold)\n"
     "return { price = gold * 2 }",
     NULL, 0},
    {"one that loops for ever", "while true do pcall(function() while true do end end) end", NULL,
     0},
    {"one that takes all memory", "local t = {} while true do t[#t + 1] = ('x'):rep(1000) end",
     NULL, 0},
    {"one with a pattern", "return (('a'):rep(5000)):find(('a*'):rep(20) .. 'b')", NULL, 0},
    {"one that loops where Lua cannot wait",
     "table.sort({ 3, 1, 2 }, function() while true do end end)", NULL, 0},
    {"one with a finalizer",
     "setmetatable({}, { __gc = function() while true do end end }) collectgarbage()", NULL, 0},
    {"one that is bytecode", "\x1bLuaT", NULL, 0},
    {"one that reads files", "return io.open('/etc/passwd'):read 'a'", NULL, 0},
    {"one that starts programs", "return require 'sluice.core.process'.run { 'true' }", NULL, 0},
    {"one that calls home", "return require 'sluice.http'.request { url = 'http://127.0.0.1:1/' }",
     NULL, 0},
    {"one that asks the app for too much", "return require 'sluice.host'.cout 'gold'", NULL, 0},
};

/** app.count(what): how much of it the player has. Answered at once. */
static void on_count(void *user, sluice_call call, const char *arguments, size_t len)
{
    const plugin *self = user;
    (void)len;
    if (strcmp(arguments, "[\"gold\"]") == 0)
        sluice_complete(self->s, call, "21", 2);
    else
        sluice_fail(self->s, call, "NotFound", "there is only gold");
}

static void on_log(void *user, const char *line, size_t len)
{
    const plugin *self = user;
    printf("%s prints: %.*s\n", self->name, (int)len, line);
}

/** The first line of a text: the rest is a traceback. */
static int first_line(const char *text)
{
    return (int)strcspn(text, "\n");
}

static void on_error(void *user, const char *text)
{
    const plugin *self = user;
    printf("%s: %.*s\n", self->name, first_line(text), text);
}

static void on_done(void *user, int status, const char *text, size_t len)
{
    plugin *self = user;
    (void)len;
    self->ended = 1;
    printf("%s: %s: %.*s\n", self->name, status == SLUICE_OK ? "done" : sluice_strerror(status),
           first_line(text), text);
}

static void run(plugin *self)
{
    sluice_options options = {
        .size = sizeof options,
        .untrusted = 1,
        .memory_limit = MEMORY,
        .instruction_limit = INSTRUCTIONS,
        .capabilities = SLUICE_CAN_CONNECT,
        .allowed_hosts = no_hosts,
        .on_log = on_log,
        .on_error = on_error,
        .callback_user = self,
    };
    if (sluice_new(&self->s, &options) < 0)
        exit(1);
    sluice_register(self->s, "count", on_count, NULL, self);
    int task = sluice_spawn(self->s, "=plugin", self->chunk, strlen(self->chunk), on_done, self);
    while (task > 0 && !self->ended) {
        /* ... a frame of the app ... */
        if (sluice_pump(self->s, BUDGET) == 0 && !self->ended)
            sluice_wait(self->s, BUDGET);
    }
    sluice_delete(self->s);
}

static void run_file(const char *path)
{
    static char text[FILE_MOST];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t size = fread(text, 1, sizeof text - 1, file);
    text[size] = '\0';
    fclose(file);
    plugin self = {.name = path, .chunk = text};
    run(&self);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run_file(argv[i]);
    for (size_t i = 0; argc == 1 && i < sizeof examples / sizeof examples[0]; i++) {
        plugin self = examples[i];
        run(&self);
    }
    return 0;
}
