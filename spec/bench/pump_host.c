/* SPDX-License-Identifier: MIT */
/*
 * Hosts for the bench.
 *
 *     pump_host URL STREAMS FRAMES BUDGET_US restart|stop
 *         STREAMS chat streams arrive and one script computes for ever. FRAMES times sluice_pump()
 *         with the budget: how much longer it took, with Lua's collector or without; beside it as
 *         many times a loop in C that reads the clock until the budget is over.
 *     pump_host
 *         What an idle pump, an instance and its life cost, and 10,000 of them.
 */
#include "sluice.h"

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    WARM_UP_FRAMES = 2000,
    IDLE_PUMPS = 1000000,
    LIVES = 200,
    HELD = 50,
};

static const char streams_chunk[] =
    "local url, count, _, _, collector = ...\n"
    "collectgarbage(collector)\n"
    "local sluice, task, http = require 'sluice', require 'sluice.task', require 'sluice.http'\n"
    "received = 0\n"
    "local endpoint = sluice.openai { base_url = url, model = 'm', api_key = 'none',\n"
    "  transport = http.client { max_connections = count + 10, max_per_host = count + 10 } }\n"
    "for i = 1, tonumber(count) do task.spawn(function()\n"
    "  local stream = assert(endpoint:stream { messages = { { role = 'user', content = 'x' } } })\n"
    "  for delta in stream:text() do received = received + 1 end\n"
    "end) end\n";
static const char runaway_chunk[] = "local n = 0 while true do n = n + 1 end";
static const char count_chunk[] = "return received";

static double clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void on_error(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "%s\n", text);
}

static void on_count(void *user, int status, const char *text, size_t len)
{
    (void)len;
    *(double *)user = status == SLUICE_OK ? atof(text) : -1;
}

static sluice *open_instance(int argc, const char *const *argv)
{
    sluice_options options = {.size = sizeof options,
                              .capabilities = SLUICE_CAN_CONNECT,
                              .on_error = on_error,
                              .argc = argc,
                              .argv = argv};
    sluice *s = NULL;
    if (sluice_new(&s, &options) < 0)
        exit(1);
    return s;
}

static void spawn(sluice *s, const char *name, const char *chunk)
{
    if (sluice_spawn(s, name, chunk, strlen(chunk), NULL, NULL) < 0)
        exit(1);
}

/** What frames took beyond their budget. */
typedef struct overruns {
    double *cpu;
    int count;
} overruns;

static overruns new_overruns(int count)
{
    overruns new = {malloc((size_t)count * sizeof *new.cpu), 0};
    if (!new.cpu)
        exit(1);
    return new;
}

/** Computes until the budget is over, as precisely as C can: what the machine adds by itself. */
static void spin(unsigned budget)
{
    double end = clock_us(CLOCK_MONOTONIC) + budget;
    while (clock_us(CLOCK_MONOTONIC) < end)
        ;
}

/** Processor time: the machine has others to serve while the clock runs. */
static void frame(sluice *s, unsigned budget, overruns *into)
{
    double start = clock_us(CLOCK_THREAD_CPUTIME_ID);
    if (s)
        sluice_pump(s, budget);
    else
        spin(budget);
    into->cpu[into->count++] = clock_us(CLOCK_THREAD_CPUTIME_ID) - start - budget;
}

static void print_overruns(const char *who, overruns *all)
{
    static const double quantiles[] = {0.5, 0.99, 0.999, 0.9999};
    static const char *const names[] = {"p50", "p99", "p999", "p9999"};
    qsort(all->cpu, (size_t)all->count, sizeof *all->cpu, ascending);
    for (int i = 0; i < 4; i++)
        printf("%s_%s %.1f\n", who, names[i], all->cpu[(size_t)(quantiles[i] * all->count)]);
    printf("%s_most %.1f\n", who, all->cpu[all->count - 1]);
    free(all->cpu);
}

static sluice *open_streams(const char *const *argv, unsigned budget)
{
    sluice *s = open_instance(5, argv);
    sluice_warm_up(s);
    spawn(s, "=streams", streams_chunk);
    double start = clock_us(CLOCK_MONOTONIC);
    while (clock_us(CLOCK_MONOTONIC) - start < 2e6)
        if (sluice_pump(s, 2000) == 0)
            sluice_wait(s, 1000);
    spawn(s, "=runaway", runaway_chunk);
    for (int i = 0; i < WARM_UP_FRAMES; i++)
        sluice_pump(s, budget);
    return s;
}

static void measure_frames(const char *const *argv)
{
    int frames = atoi(argv[2]);
    unsigned budget = (unsigned)atoi(argv[3]);
    sluice *s = open_streams(argv, budget);
    overruns pumps = new_overruns(frames), spins = new_overruns(frames);
    for (int i = 0; i < frames; i++) {
        frame(s, budget, &pumps);
        frame(NULL, budget, &spins);
    }
    double received = 0;
    sluice_spawn(s, "=count", count_chunk, sizeof count_chunk - 1, on_count, &received);
    for (int i = 0; i < 1000; i++)
        sluice_pump(s, budget);
    printf("events %.0f\n", received);
    print_overruns("pump", &pumps);
    print_overruns("spin", &spins);
    sluice_delete(s);
}

static void measure_idle_pump(void)
{
    sluice *s = open_instance(0, NULL);
    sluice_pump(s, 0);
    double start = clock_us(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < IDLE_PUMPS; i++)
        sluice_pump(s, 200);
    printf("idle_us %.3f\n", (clock_us(CLOCK_THREAD_CPUTIME_ID) - start) / IDLE_PUMPS);
    sluice_delete(s);
}

static double resident_kb(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1)
        exit(1);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

static int open_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        exit(1);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void live(int times)
{
    for (int i = 0; i < times; i++) {
        sluice *s = open_instance(0, NULL);
        sluice_pump(s, 200);
        sluice_delete(s);
    }
}

static void measure_lives(void)
{
    live(2);
    double start = clock_us(CLOCK_THREAD_CPUTIME_ID);
    live(LIVES);
    printf("life_ms %.3f\n", (clock_us(CLOCK_THREAD_CPUTIME_ID) - start) / LIVES / 1000);
    malloc_trim(0);
    sluice *held[HELD];
    double before = resident_kb();
    for (int i = 0; i < HELD; i++) {
        held[i] = open_instance(0, NULL);
        sluice_pump(held[i], 200);
    }
    printf("instance_kb %.0f\n", (resident_kb() - before) / HELD);
    for (int i = 0; i < HELD; i++)
        sluice_delete(held[i]);
    before = resident_kb();
    int descriptors = open_descriptors();
    live(10000);
    printf("growth_kb %.0f\ndescriptors %d\n", resident_kb() - before,
           open_descriptors() - descriptors);
}

int main(int argc, char **argv)
{
    if (argc == 6) {
        measure_frames((const char *const *)argv + 1);
    } else {
        measure_idle_pump();
        measure_lives();
    }
    return 0;
}
