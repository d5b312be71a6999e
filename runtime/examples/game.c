/* SPDX-License-Identifier: MIT */
/*
 * A game whose characters talk: each frame it gives sluice 2 ms, draws, and goes on.
 *
 *     game                 the characters speak through an emulator inside this process
 *     game HOST TOKEN      through the endpoint "characters" of your workspace
 */
#include "sluice.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    FRAME_US = 16667,
    BUDGET_US = 2000,
};

typedef struct character {
    const char *name, *chunk;
    int silent;
} character;

/* `...` is what main was called with. An instance keeps its globals from chunk to chunk. */
static const char prologue[] =
    "local sluice = require 'sluice'\n"
    "local host, token = select(2, ...)\n"
    "local transport\n"
    "if not host then\n"
    "  transport = require 'sluice.emulator'.new { deploy_time = 0 }.app\n"
    "  host, token = 'http://emulator', 'none'\n"
    "end\n"
    "local workspace = assert(sluice.workspace { host = host, token = token, transport = transport "
    "})\n"
    "if transport then\n"
    "  assert(workspace.serving_endpoints:create_and_wait { name = 'characters', config = {\n"
    "    served_entities = { { entity_name = 'main.demo.talk', entity_version = '1',\n"
    "      workload_size = 'Small', scale_to_zero_enabled = true } } } })\n"
    "end\n"
    "local voice = sluice.pipeline(workspace:endpoint 'characters',\n"
    "  { sluice.layers.retry { attempts = 3 }, sluice.layers.timeout { total = 30 } })\n"
    "function say(who, what)\n"
    "  local answer = assert(voice:query { max_tokens = 30, messages = {\n"
    "    { role = 'system', content = 'You are ' .. who .. ', in a village by a river.' },\n"
    "    { role = 'user', content = what } } })\n"
    "  return answer.choices[1].message.content\n"
    "end\n";

static void on_ready(void *user, int status, const char *text, size_t len)
{
    int *ready = user;
    (void)len;
    *ready = status == SLUICE_OK ? 1 : status;
    if (status < 0)
        fprintf(stderr, "%s\n", text);
}

static void on_spoken(void *user, int status, const char *text, size_t len)
{
    character *who = user;
    who->silent = 0;
    if (status == SLUICE_OK) /* a JSON string, with its quotes */
        printf("%s: %.*s\n", who->name, (int)len, text);
    else
        printf("%s has nothing to say: %s\n", who->name, text);
}

static long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/** One frame: returns what of it sluice took, in microseconds. */
static long frame(sluice *s)
{
    long start = now_us();
    sluice_pump(s, BUDGET_US);
    long took = now_us() - start;
    /* ... the game moves, draws ... */
    long left = FRAME_US - (now_us() - start);
    if (left > 0)
        nanosleep(&(struct timespec){.tv_nsec = left * 1000}, NULL);
    return took;
}

int main(int argc, char **argv)
{
    sluice_options options = {
        .size = sizeof options,
        .capabilities = argc > 1 ? SLUICE_CAN_CONNECT : 0,
        .argc = argc,
        .argv = (const char *const *)argv,
    };
    character characters[] = {
        {"Mira", "return say('Mira', 'What does the river bring today?')", 1},
        {"Tom", "return say('Tom', 'Where does the road go?')", 1},
    };
    sluice *s = NULL;
    int ready = 0, frames = 0;
    long longest = 0;
    if (sluice_new(&s, &options) < 0)
        return 1;
    sluice_spawn(s, "=prologue", prologue, strlen(prologue), on_ready, &ready);
    while (ready >= 0 && (characters[0].silent || characters[1].silent)) {
        long took = frame(s);
        longest = took > longest ? took : longest;
        frames++;
        for (int i = 0; ready == 1 && i < 2; i++)
            sluice_spawn(s, "=character", characters[i].chunk, strlen(characters[i].chunk),
                         on_spoken, &characters[i]);
        ready = ready == 1 ? 2 : ready;
    }
    printf("%d frames, longest frame: %.1f ms of sluice\n", frames, (double)longest / 1000);
    sluice_delete(s);
    return ready < 0;
}
