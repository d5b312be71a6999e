/* SPDX-License-Identifier: MIT */
/*
 * A program on a terminal, as whoever types sees it:
 *
 *     repl_probe start COUNT PROGRAM [ARG...]   "ms N": the median from exec to the prompt "> "
 *     repl_probe keys COUNT ENTRY PROGRAM [ARG...]
 *         types the entry, and a second later COUNT keys, 20 ms apart: "p50 N", "p99 N" and "most
 * N", milliseconds from a key until its character is shown
 */
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 10000, PATIENCE_MS = 10000, BETWEEN_KEYS_MS = 20, LINE = 50 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int launch(char **words, int *terminal)
{
    struct winsize size = {.ws_row = 24, .ws_col = 100};
    int pid = forkpty(terminal, NULL, NULL, &size);
    if (pid == 0) {
        setenv("TERM", "xterm-256color", 1);
        setenv("XDG_STATE_HOME", "/dev/null/none", 1);
        execv(words[0], words);
        _exit(127);
    }
    return pid;
}

/** Reads until the text is seen; false at the end, or when patience is. */
static bool read_until(int terminal, const char *text)
{
    static char seen[1 << 16];
    size_t length = 0;
    double end = now() + PATIENCE_MS;
    while (now() < end) {
        struct pollfd watched = {.fd = terminal, .events = POLLIN};
        if (poll(&watched, 1, PATIENCE_MS) <= 0)
            return false;
        if (length > sizeof seen / 2)
            length = 0;
        ssize_t got = read(terminal, seen + length, sizeof seen - length - 1);
        if (got <= 0)
            return false;
        length += (size_t)got;
        seen[length] = '\0';
        if (strstr(seen, text))
            return true;
    }
    return false;
}

static void drop_output(int terminal, int milliseconds)
{
    char bytes[4096];
    double end = now() + milliseconds;
    for (double left; (left = end - now()) > 0;) {
        struct pollfd watched = {.fd = terminal, .events = POLLIN};
        if (poll(&watched, 1, (int)left + 1) > 0 && read(terminal, bytes, sizeof bytes) <= 0)
            return;
    }
}

static void finish(int pid, int terminal)
{
    close(terminal);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure_start(int count, char **words, double *samples)
{
    for (int i = 0; i < count; i++) {
        int terminal = -1;
        double began = now();
        int pid = launch(words, &terminal);
        bool is_there = pid > 0 && read_until(terminal, "> ");
        samples[i] = now() - began;
        finish(pid, terminal);
        if (!is_there)
            return 1;
    }
    qsort(samples, (size_t)count, sizeof *samples, by_value);
    printf("ms %.3f\n", samples[count / 2]);
    return 0;
}

static bool type(int terminal, const char *text)
{
    return write(terminal, text, strlen(text)) == (ssize_t)strlen(text);
}

static int measure_keys(int count, const char *entry, char **words, double *samples)
{
    int terminal = -1;
    int pid = launch(words, &terminal);
    bool goes_on =
        pid > 0 && read_until(terminal, "> ") && type(terminal, entry) && type(terminal, "\r");
    drop_output(terminal, 1000);
    for (int i = 0; goes_on && i < count; i++) {
        char key[] = {(char)('a' + i % 26), '\0'};
        if (i % LINE == LINE - 1) { /* a line that fits the screen, so that a key is its echo */
            goes_on = type(terminal, "\x15");
            drop_output(terminal, BETWEEN_KEYS_MS);
        }
        double began = now();
        goes_on = goes_on && type(terminal, key) && read_until(terminal, key);
        samples[i] = now() - began;
        drop_output(terminal, BETWEEN_KEYS_MS);
    }
    finish(pid, terminal);
    if (!goes_on)
        return 1;
    qsort(samples, (size_t)count, sizeof *samples, by_value);
    printf("p50 %.3f\np99 %.3f\nmost %.3f\n", samples[count / 2], samples[count * 99 / 100],
           samples[count - 1]);
    return 0;
}

int main(int argc, char **argv)
{
    static double samples[MOST];
    int count = argc > 3 ? atoi(argv[2]) : 0;
    if (count < 1 || count > MOST)
        return 2;
    if (strcmp(argv[1], "keys") == 0 && argc > 4)
        return measure_keys(count, argv[3], argv + 4, samples);
    return measure_start(count, argv + 3, samples);
}
