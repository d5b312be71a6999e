/* SPDX-License-Identifier: MIT */
/* The program `sluice`: the first host of libsluice, through sluice.h and nothing else. */
#include "../sluice.h"
#include "../embedded.h"
#include "bundle_slot.h"
#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    EXIT_SCRIPT_FAILED = 1,
    /* What a shell adds to the number of a signal that ended a program. */
    EXIT_SIGNAL = 128,
    /* Microseconds of a pump while somebody types: what computes is set aside for a key. */
    CONSOLE_TURN = 2000,
};

/** The command line, in Lua; the build embeds it. */
extern const struct sl_embedded_file sl_command[];

/** Signal handlers have no argument of ours, so these are the program's, not the library's. */
static sluice *volatile host_instance;
static volatile sig_atomic_t host_signal, host_hangup;

/** How the script ended. */
typedef struct outcome {
    int ended, status;
    /** As nohup(1) wants it. */
    int ignores_hangup;
} outcome;

static void on_signal(int number)
{
    int saved = errno;
    /* asked twice: whoever asks has no patience left; or while the instance is being deleted */
    if (host_signal || !host_instance) {
        console_restore();
        _exit(EXIT_SIGNAL + number);
    }
    host_signal = number;
    sluice_interrupt(host_instance);
    errno = saved;
}

static void install_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    struct sigaction inherited;
    /* a shell starts background jobs of a script with SIGINT ignored: so it stays */
    if (sigaction(SIGINT, NULL, &inherited) == 0 && inherited.sa_handler != SIG_IGN)
        sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

static void on_hangup(int number)
{
    int saved = errno;
    host_hangup = number;
    if (host_instance)
        sluice_interrupt(host_instance);
    errno = saved;
}

/** Without a REPL SIGHUP is for the log file, where there is one. */
static void install_hangup(outcome *end)
{
    struct sigaction action = {.sa_handler = on_hangup, .sa_flags = SA_RESTART}, inherited;
    sigemptyset(&action.sa_mask);
    end->ignores_hangup =
        sigaction(SIGHUP, &action, &inherited) == 0 && inherited.sa_handler == SIG_IGN;
}

static void take_hangup(sluice *s, const outcome *end)
{
    host_hangup = 0;
    if (sluice_reopen_log(s) != 1 && !end->ignores_hangup && !host_signal)
        host_signal = SIGHUP;
}

static void on_terminal_signal(int number)
{
    int saved = errno;
    console_note_signal(number);
    if (host_instance)
        sluice_wake(host_instance);
    errno = saved;
}

/** Those of the REPL: the terminal goes away, changes its size, is ours again after Ctrl-Z. */
static void install_terminal_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGHUP, &action, NULL);
    action.sa_handler = on_terminal_signal;
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGCONT, &action, NULL);
}

/** A standard descriptor that is closed would be given to the next file or socket, and a line that
 * is printed would end up in there. Opened the wrong way round, using it still fails. */
static void hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

/** Open streams are bounded by descriptors: take as many as we may. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/** glibc gives memory back and faults it in again at each wave of requests: a quarter of their CPU.
 */
static void keep_memory(void)
{
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    mallopt(M_TOP_PAD, 256 << 10);
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

static void on_log(void *user, const char *line, size_t len)
{
    (void)user;
    fprintf(stderr, "%.*s\n", (int)len, line);
}

static void on_error(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "sluice: %s\n", text);
}

static void on_done(void *user, int status, const char *text, size_t len)
{
    outcome *end = user;
    (void)len;
    end->ended = 1;
    if (status == SLUICE_OK || status == SLUICE_EEXIT)
        end->status = (int)strtol(text, NULL, 10);
    else
        end->status = EXIT_SCRIPT_FAILED;
    if (status == SLUICE_ESCRIPT || (status == SLUICE_ECANCELLED && !host_signal))
        on_error(NULL, text);
}

static int run(sluice *s, int task, const outcome *end, console *terminal)
{
    int cancelled = 0;
    while (!end->ended) {
        if (host_signal == SIGINT && terminal && console_interrupt(terminal))
            host_signal = 0;
        if (host_hangup)
            take_hangup(s, end);
        if (host_signal && !cancelled) {
            cancelled = 1;
            sluice_cancel(s, task, host_signal == SIGINT ? "interrupted" : "terminated");
        }
        int more = sluice_pump(s, terminal ? CONSOLE_TURN : 0);
        if (terminal)
            console_turn(terminal);
        if (more > 0 || end->ended)
            continue;
        int status = sluice_wait(s, -1);
        if (status < 0) {
            on_error(NULL, sluice_strerror(status));
            return EXIT_SCRIPT_FAILED;
        }
    }
    return host_signal ? EXIT_SIGNAL + host_signal : end->status;
}

/** What is left to do when the instance is there. */
static int run_command(sluice *s, outcome *end, console *terminal)
{
    if (terminal) {
        int status = console_attach(terminal, s);
        if (status < 0) {
            on_error(NULL, sluice_strerror(status));
            return EXIT_SCRIPT_FAILED;
        }
        install_terminal_signals();
    } else {
        install_hangup(end);
    }
    const char *chunk = (const char *)sl_command[0].bytes;
    int task = sluice_spawn(s, "=sluice", chunk, sl_command[0].size, on_done, end);
    return task < 0 ? EXIT_SCRIPT_FAILED : run(s, task, end, terminal);
}

/** The arguments of the command: where the bundle is, then the program's own. NULL without memory.
 */
static const char **command_arguments(int argc, char **argv)
{
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    if (!words)
        return NULL;
    words[0] = bundle_place_text();
    for (int i = 0; i < argc; i++)
        words[i + 1] = argv[i];
    return words;
}

/** A script that believes it has written must not end well when it has not. Gives the status. */
static int check_output(int status)
{
    bool is_lost = fflush(stdout) != 0 || ferror(stdout);
    if (!is_lost || status != 0)
        return status;
    int failure = errno;
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) == 1 && (output.revents & POLLERR))
        return EXIT_SIGNAL + SIGPIPE; /* whoever read it has left: nobody is to be told */
    fprintf(stderr, "sluice: standard output: %s\n", strerror(failure));
    return EXIT_SCRIPT_FAILED;
}

int main(int argc, char **argv)
{
    const char **words = command_arguments(argc, argv);
    sluice_options options = {
        .size = sizeof options,
        .capabilities = SLUICE_CAN_EVERYTHING,
        .on_log = on_log,
        .log_descriptor = STDERR_FILENO,
        .on_error = on_error,
        .argc = words ? argc + 1 : 0,
        .argv = words,
    };
    sluice *s = NULL;
    outcome end = {0, 0, 0};
    hold_standard_descriptors();
    raise_descriptor_limit();
    keep_memory();
    bool is_repl = !bundle_is_there() && console_is_wanted(argc, argv);
    console *terminal = is_repl ? console_open() : NULL;
    int status = words ? sluice_new(&s, &options) : SLUICE_ENOMEM;
    if (status < 0) {
        fprintf(stderr, "sluice: %s\n", sluice_strerror(status));
        console_close(terminal);
        free(words);
        return EXIT_SCRIPT_FAILED;
    }
    host_instance = s;
    install_signals();
    status = run_command(s, &end, terminal);
    host_instance = NULL;
    sluice_delete(s);
    status = check_output(status);
    console_close(terminal);
    free(words);
    return status;
}
