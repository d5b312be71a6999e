/* SPDX-License-Identifier: MIT */
/* Where the log lines of an instance go, and the thread that writes them. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

static const char loud_chunk[] = "local log = require 'sluice.log'\n"
                                 "for n = 1, 600 do log.info('n', { text = ('x'):rep(1000) }) end\n"
                                 "return log.stats()";

typedef struct taken {
    int lines;
    char last[1024];
} taken;

static void on_log(void *user, const char *line, size_t len)
{
    taken *log = user;
    log->lines++;
    CHECK(line[len - 1] != '\n');
    snprintf(log->last, sizeof log->last, "%.*s", (int)len, line);
}

static sluice *open_with(int descriptor, int no_thread, size_t queue, taken *log)
{
    sluice_options options = plain_options();
    options.log_descriptor = descriptor;
    options.no_writer_thread = no_thread;
    options.writer_queue = queue;
    options.on_log = log ? on_log : NULL;
    options.callback_user = log;
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    return s;
}

static int count_threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/** Reads what is there, and how many lines that are. */
static int read_lines(int fd, char *text, size_t size)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    size_t length = 0;
    int lines = 0;
    while (poll(&watched, 1, 300) == 1) {
        char block[65536];
        ssize_t got = read(fd, block, sizeof block);
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got; i++) {
            lines += block[i] == '\n';
            if (length + 1 < size)
                text[length++] = block[i];
        }
    }
    text[length] = '\0';
    return lines;
}

static void descriptor(void)
{
    int ends[2];
    char text[65536];
    taken log = {0};
    outcome end;
    CHECK(pipe(ends) == 0);
    sluice *s = open_with(ends[1], 0, 0, &log);
    run(s, "require 'sluice.log'.info('hello', { a = 1 })", &end);
    CHECK(count_threads() == 1); /* there was room */
    CHECK(read_lines(ends[0], text, sizeof text) == 1 &&
          strstr(text, "\"event\":\"hello\",\"a\":1}\n"));
    CHECK(log.lines == 0);
    CHECK(sluice_reopen_log(s) == 0);
    run(s, loud_chunk, &end);
    CHECK(count_threads() == 2);
    CHECK(strstr(end.text, "\"dropped\":0"));
    CHECK(read_lines(ends[0], text, sizeof text) == 600);
    sluice_delete(s);
    CHECK(count_threads() == 1);
    s = open_with(0, 0, 0, &log);
    run(s, "require 'sluice.log'.info('hello', { a = 1 })", &end);
    CHECK(log.lines == 1 && strstr(log.last, "\"event\":\"hello\",\"a\":1}"));
    sluice_delete(s);
}

/** All signals are the host's: the thread blocks them. */
static void signals(void)
{
    int ends[2];
    outcome end;
    CHECK(pipe(ends) == 0);
    sluice *s = open_with(ends[1], 0, 0, NULL);
    run(s, loud_chunk, &end);
    DIR *folder = opendir("/proc/self/task");
    int found = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        char path[300], text[4096];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!file)
            continue;
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
        const char *blocked = strstr(text, "SigBlk:");
        if (strtol(entry->d_name, NULL, 10) != getpid())
            found +=
                blocked && (strtoull(blocked + 7, NULL, 16) & 0x7fff) == (0x7fff & ~0x40100ULL);
    }
    closedir(folder);
    CHECK(found == 1);
    sluice_delete(s);
}

static void no_thread(void)
{
    int ends[2];
    char text[65536];
    outcome end;
    CHECK(pipe(ends) == 0);
    sluice *s = open_with(ends[1], 1, 0, NULL);
    double started = seconds_now();
    run(s, loud_chunk, &end);
    CHECK(seconds_now() - started < 1);
    CHECK(count_threads() == 1);
    CHECK(!strstr(end.text, "\"failed\":0") && strstr(end.text, "\"queued\":0"));
    int lines = read_lines(ends[0], text, sizeof text);
    CHECK(lines > 20 && lines < 100);
    run(s, "require 'sluice.log'.info('again')", &end);
    CHECK(read_lines(ends[0], text, sizeof text) >= 2);
    CHECK(strstr(text, "log lines were lost\",\"count\":") && strstr(text, "\"event\":\"again\""));
    sluice_delete(s);
}

static void small_queue(void)
{
    int ends[2];
    static char text[1 << 20];
    outcome end;
    CHECK(pipe(ends) == 0);
    sluice *s = open_with(ends[1], 0, 65536, NULL);
    run(s, loud_chunk, &end);
    CHECK(!strstr(end.text, "\"dropped\":0"));
    int lines = read_lines(ends[0], text, sizeof text);
    CHECK(lines > 80 && lines < 400);
    run(s, "require 'sluice.log'.info('again')", &end);
    CHECK(strstr(text, "log lines were lost") || read_lines(ends[0], text, sizeof text) == 2);
    CHECK(strstr(text, "log lines were lost"));
    sluice_delete(s);
}

/** Its end is not held up for long, and takes nothing that the thread may still use. */
static void stuck(void)
{
    int ends[2];
    outcome end;
    CHECK(pipe(ends) == 0);
    sluice *s = open_with(ends[1], 0, 0, NULL);
    run(s, loud_chunk, &end);
    double started = seconds_now();
    sluice_delete(s);
    CHECK(seconds_now() - started < 3);
    CHECK(count_threads() == 1);
}

static void refused(void)
{
    sluice_options options = plain_options();
    sluice *s = NULL;
    options.on_error = NULL;
    options.no_writer_thread = 2;
    CHECK(sluice_new(&s, &options) == SLUICE_EINVAL);
    options.no_writer_thread = 0;
    options.log_descriptor = -1;
    CHECK(sluice_new(&s, &options) == SLUICE_EINVAL);
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {
        {"descriptor", descriptor},
        {"signals", signals},
        {"no_thread", no_thread},
        {"small_queue", small_queue},
        {"stuck", stuck},
        {"refused", refused},
        {NULL, NULL},
    };
    return run_case(cases, argc, argv);
}
