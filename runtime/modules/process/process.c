/* SPDX-License-Identifier: MIT */
/* Starting a child, reading what it prints, killing and reaping it. */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    FIRST_FREE_FD = 3,
    /* Reads in one turn of the loop: a child that never stops printing must not hold it up. */
    READS_A_TURN = 16,
    READ_CHUNK = 16384,
    /* Milliseconds that a killed child gets to be gone where no loop will tell of its end. */
    LAST_WAIT = 200,
};

/** One of the two pipes from the child. `bytes` holds at most `max`. */
typedef struct process_pipe {
    sl_io io; /* fd is -1 when closed */
    sl_process *owner;
    char *bytes;
    size_t length, max;
    bool overflowed;
    /** Keeps the last bytes in the place of the first ones. */
    bool keeps_tail;
} process_pipe;

struct sl_process {
    sl_core *core;
    process_pipe out, err;
    sl_io exit; /* the pidfd; -1 once the child is reaped */
    pid_t pid;
    int status, signal;
    bool ended;
    void (*on_end)(void *user); /* NULL once nobody wants to hear */
    void *user;
    sl_close_hook hook;
};

#define PROCESS_OF(pointer, type, member)                                                          \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- the pipes ---- */

static void pipe_close(process_pipe *pipe)
{
    if (pipe->io.fd < 0)
        return;
    (void)sl_io_watch(pipe->owner->core, &pipe->io, 0);
    close(pipe->io.fd);
    pipe->io.fd = -1;
}

static void pipe_keep(process_pipe *pipe, const char *bytes, size_t length)
{
    size_t room = pipe->max - pipe->length;
    if (length <= room) {
        memcpy(pipe->bytes + pipe->length, bytes, length);
        pipe->length += length;
        return;
    }
    pipe->overflowed = true;
    if (!pipe->keeps_tail) {
        memcpy(pipe->bytes + pipe->length, bytes, room);
        pipe->length += room;
        return;
    }
    if (length > pipe->max) {
        bytes += length - pipe->max;
        length = pipe->max;
    }
    size_t kept = pipe->max - length;
    if (kept > pipe->length)
        kept = pipe->length;
    memmove(pipe->bytes, pipe->bytes + pipe->length - kept, kept);
    memcpy(pipe->bytes + kept, bytes, length);
    pipe->length = kept + length;
}

/** Reads what is there; closes the pipe at its end. */
static void pipe_drain(process_pipe *pipe, int reads)
{
    char chunk[READ_CHUNK];
    while (pipe->io.fd >= 0 && reads-- > 0) {
        ssize_t got = read(pipe->io.fd, chunk, sizeof chunk);
        if (got > 0)
            pipe_keep(pipe, chunk, (size_t)got);
        else if (got == 0 || (errno != EAGAIN && errno != EINTR))
            pipe_close(pipe);
        else if (errno == EAGAIN)
            return;
    }
}

static void process_kill(sl_process *process);

static void on_pipe_ready(sl_io *io, unsigned events)
{
    (void)events;
    process_pipe *pipe = PROCESS_OF(io, process_pipe, io);
    pipe_drain(pipe, READS_A_TURN);
    /* nobody wants the rest: the child is told by a signal, and its end is what is waited for */
    if (pipe->overflowed && !pipe->keeps_tail && pipe->io.fd >= 0)
        process_kill(pipe->owner);
}

/**
 * Opens a pipe; the end of the child is `*child_fd`, above the standard ones: a host may have
 * closed those, and dup2() of one onto the other would lose it.
 */
static int pipe_open(process_pipe *pipe, size_t max, int *child_fd)
{
    int fds[2];
    pipe->bytes = sl_alloc(pipe->owner->core, max ? max : 1);
    if (!pipe->bytes)
        return ENOMEM;
    pipe->max = max;
    if (pipe2(fds, O_CLOEXEC) != 0)
        return errno;
    pipe->io.fd = fds[0];
    *child_fd = fcntl(fds[1], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    int error = *child_fd < 0 ? errno : 0;
    close(fds[1]);
    if (!error && fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0)
        error = errno;
    return error;
}

/* ---- the end of the child ---- */

/** The whole group: a shell's own children print into the same pipes. The zombie keeps the number.
 */
static void process_kill(sl_process *process)
{
    if (process->exit.fd >= 0 && kill(-process->pid, SIGKILL) != 0)
        (void)pidfd_send_signal(process->exit.fd, SIGKILL, NULL, 0);
}

/** Reaps the child where it has ended. */
static bool process_reap(sl_process *process)
{
    siginfo_t info = {0};
    int result;
    if (process->exit.fd < 0)
        return true;
    do
        result = waitid(P_PIDFD, (id_t)process->exit.fd, &info, WEXITED | WNOHANG);
    while (result != 0 && errno == EINTR);
    if (result == 0 && info.si_pid == 0)
        return false;
    if (result == 0 && info.si_code == CLD_EXITED)
        process->status = info.si_status;
    else if (result == 0)
        process->signal = info.si_status;
    /* else a host that ignores SIGCHLD, or waits for every child, has taken the status */
    (void)sl_io_watch(process->core, &process->exit, 0);
    close(process->exit.fd);
    process->exit.fd = -1;
    return true;
}

static void process_free(sl_process *process)
{
    pipe_close(&process->out);
    pipe_close(&process->err);
    sl_close_hook_remove(&process->hook);
    sl_free(process->core, process->out.bytes);
    sl_free(process->core, process->err.bytes);
    sl_free(process->core, process);
}

static void on_child_exit(sl_io *io, unsigned events)
{
    (void)events;
    sl_process *process = PROCESS_OF(io, sl_process, exit);
    if (!process_reap(process))
        return;
    if (!process->on_end) {
        process_free(process);
        return;
    }
    /* what it printed is in the pipes by now; a grandchild that keeps them open is not waited for
     */
    pipe_drain(&process->out, (int)(process->out.max / READ_CHUNK) + READS_A_TURN);
    pipe_drain(&process->err, READS_A_TURN);
    pipe_close(&process->out);
    pipe_close(&process->err);
    process->ended = true;
    process->on_end(process->user);
}

/** Kills the child and gives it a moment to be gone. */
static void process_finish(sl_process *process)
{
    struct pollfd end = {.fd = process->exit.fd, .events = POLLIN};
    process_kill(process);
    if (end.fd >= 0 && poll(&end, 1, LAST_WAIT) > 0)
        process_reap(process);
    if (process->exit.fd >= 0) { /* it hangs in the kernel, and is left to the host */
        (void)sl_io_watch(process->core, &process->exit, 0);
        close(process->exit.fd);
        process->exit.fd = -1;
    }
}

static void on_core_end(sl_close_hook *hook)
{
    sl_process *process = PROCESS_OF(hook, sl_process, hook);
    process_finish(process);
    pipe_close(&process->out);
    pipe_close(&process->err);
    process->ended = true;
    if (!process->on_end)
        process_free(process);
}

/* ---- the start ---- */

static int fill_actions(posix_spawn_file_actions_t *actions, int out, int err)
{
    int error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn_file_actions_adddup2(actions, out, 1);
    if (!error)
        error = posix_spawn_file_actions_adddup2(actions, err, 2);
    if (!error)
        error = posix_spawn_file_actions_addclosefrom_np(actions, FIRST_FREE_FD);
    return error;
}

static int fill_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    short flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    int error = posix_spawnattr_setflags(attributes, flags);
    if (!error)
        error = posix_spawnattr_setpgroup(attributes, 0);
    if (!error)
        error = posix_spawnattr_setsigmask(attributes, &none);
    if (!error)
        error = posix_spawnattr_setsigdefault(attributes, &all);
    return error;
}

/** Starts the child with these ends of the pipes. */
static int process_spawn(sl_process *process, char *const argv[], int out, int err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error)
        goto free_actions;
    error = fill_actions(&actions, out, err);
    if (!error)
        error = fill_attributes(&attributes);
    if (!error)
        error = posix_spawnp(&process->pid, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
free_actions:
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static int process_watch(sl_process *process)
{
    process->exit.fd = pidfd_open(process->pid, 0);
    if (process->exit.fd < 0) {
        int error = errno;
        kill(-process->pid, SIGKILL);
        waitpid(process->pid, NULL, 0);
        return error;
    }
    if (sl_io_watch(process->core, &process->out.io, SL_READ) < 0 ||
        sl_io_watch(process->core, &process->err.io, SL_READ) < 0 ||
        sl_io_watch(process->core, &process->exit, SL_READ) < 0)
        return ENOMEM;
    return 0;
}

static int process_start(sl_process *process, char *const argv[], size_t max_out, size_t max_err)
{
    int out = -1, err = -1;
    int error = pipe_open(&process->out, max_out, &out);
    if (!error)
        error = pipe_open(&process->err, max_err, &err);
    if (!error)
        error = process_spawn(process, argv, out, err);
    if (out >= 0)
        close(out);
    if (err >= 0)
        close(err);
    return error ? error : process_watch(process);
}

sl_process *sl_process_new(sl_core *core, char *const argv[], size_t max_out, size_t max_err,
                           void (*on_end)(void *user), void *user)
{
    sl_process *process = sl_alloc_array(core, 1, sizeof *process);
    if (!process) {
        errno = ENOMEM;
        return NULL;
    }
    process->core = core;
    process->out.owner = process->err.owner = process;
    process->out.io.fd = process->err.io.fd = process->exit.fd = -1;
    process->out.io.on_ready = process->err.io.on_ready = on_pipe_ready;
    process->exit.on_ready = on_child_exit;
    process->err.keeps_tail = true;
    process->status = -1;
    process->on_end = on_end;
    process->user = user;
    process->hook.on_close = on_core_end;
    sl_close_hook_add(core, &process->hook);
    int error = process_start(process, argv, max_out, max_err);
    if (!error)
        return process;
    sl_process_delete(process);
    errno = error;
    return NULL;
}

bool sl_process_has_ended(const sl_process *process)
{
    return process->ended;
}

sl_process_result sl_process_get_result(sl_process *process)
{
    return (sl_process_result){
        .out = process->out.bytes,
        .out_length = process->out.length,
        .overflowed = process->out.overflowed,
        .err = process->err.bytes,
        .err_length = process->err.length,
        .status = process->status,
        .signal = process->signal,
    };
}

void sl_process_delete(sl_process *process)
{
    process->on_end = NULL;
    process_kill(process);
    pipe_close(&process->out);
    pipe_close(&process->err);
    if (process->exit.events == 0)
        process_finish(process);
    /* one that is watched is reaped, and freed, when its end is seen */
    if (process_reap(process))
        process_free(process);
}
