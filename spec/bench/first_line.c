/* SPDX-License-Identifier: MIT */
/*
 * How long a program takes from its start to its first byte on standard output, and how much memory
 * it holds then: first_line COUNT PROGRAM [ARG...]
 *
 * The program must wait for the end of its standard input after that byte, and then end. Prints the
 * medians of COUNT starts: "ms N", "mb N", and "cpu N", milliseconds of processor time in all.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MAX_STARTS = 1000 };

struct start {
    double milliseconds, megabytes, cpu;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static double milliseconds(struct timeval time)
{
    return (double)time.tv_sec * 1e3 + (double)time.tv_usec / 1e3;
}

/* Exact, unlike statm, whose counters are kept by core and lag behind. */
static double resident(pid_t pid)
{
    char path[64], line[128];
    double kilobytes = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "Rss: %lf kB", &kilobytes) == 1)
            break;
    }
    fclose(file);
    return kilobytes / 1024;
}

static pid_t launch(char **words, int in, int out, int keep_in, int keep_out)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    int ends[] = {in, out, keep_in, keep_out};
    for (int i = 0; i < 4; i++)
        posix_spawn_file_actions_addclose(&actions, ends[i]);
    pid_t pid = -1;
    int failure = posix_spawn(&pid, words[0], &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failure ? -1 : pid;
}

static int measure(char **words, struct start *start)
{
    int in[2], out[2], status = -1;
    char byte;
    if (pipe(in) < 0 || pipe(out) < 0)
        return -1;
    double began = now();
    pid_t pid = launch(words, in[0], out[1], in[1], out[0]);
    close(in[0]);
    close(out[1]);
    ssize_t got = pid > 0 ? read(out[0], &byte, 1) : 0;
    start->milliseconds = now() - began;
    start->megabytes = got == 1 ? resident(pid) : 0;
    close(in[1]);
    struct rusage usage = {0};
    if (pid > 0)
        wait4(pid, &status, 0, &usage);
    close(out[0]);
    start->cpu = milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime);
    return got == 1 && status == 0 ? 0 : -1;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_median(const char *key, double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    printf("%s %.3f\n", key, values[count / 2]);
}

int main(int argc, char **argv)
{
    static double ms[MAX_STARTS], mb[MAX_STARTS], cpu[MAX_STARTS];
    int count = argc > 2 ? atoi(argv[1]) : 0;
    if (count < 1 || count > MAX_STARTS)
        return 2;
    for (int i = 0; i < count; i++) {
        struct start start;
        if (measure(argv + 2, &start) < 0) {
            fprintf(stderr, "%s: no first line\n", argv[2]);
            return 1;
        }
        ms[i] = start.milliseconds;
        mb[i] = start.megabytes;
        cpu[i] = start.cpu;
    }
    print_median("ms", ms, count);
    print_median("mb", mb, count);
    print_median("cpu", cpu, count);
    return 0;
}
