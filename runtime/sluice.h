/* SPDX-License-Identifier: MIT */
/*
 * libsluice: model endpoints, streams, retries and caches as Lua, inside a program of yours.
 *
 * A host makes a handle, spawns Lua chunks on it, and calls sluice_pump() once a frame or whenever
 * its loop has time. Nothing else runs: libsluice installs no signal handler, prints nothing, never
 * ends the process, and starts no threads but two kinds, with all signals blocked, that never enter
 * Lua: a short one that syncs a file which a script appends to, and one that writes what the loop
 * must not wait for (see no_writer_thread), from the first log line that could not be written at
 * once.
 *
 * Duties of the environment
 *   Signals    libsluice asks libcurl not to touch signals, so SIGPIPE is the host's: ignore it,
 *              or block it on this thread. Sockets of our own send with MSG_NOSIGNAL.
 *   Threads    Every call belongs to the thread that made the handle, but sluice_wake().
 *   Process    libcurl, c-ares and OpenSSL keep process-wide state, initialised once and never
 *              taken down; their memory does not go through the allocator of the options. libev
 *              aborts the process when its own small allocations fail.
 *   Memory     Lua's heap and our own memory go through the allocator of the options. Lua runs
 *              only inside protected calls; running out of memory there ends the task, not the
 *              process.
 *   Lua        One Lua 5.4 in a process: libsluice contains no liblua, the host links or exports
 *              it. In a Lua state of ours, lua_getextraspace() is ours too.
 *   Files      Names are resolved by /etc/resolv.conf and /etc/hosts; authorities of TLS are those
 *              of /etc/ssl/certs/ca-certificates.crt. Nothing else is read unless it is granted.
 *   Forking    A handle is not usable in a forked child. Every descriptor is close-on-exec.
 *
 * What holds for all functions
 *   Results    0 or more is success, less than 0 an enum sluice_err. What failed has changed
 *              nothing unless it says so.
 *   Threads    On another thread than the one that made the handle they refuse: SLUICE_ETHREAD. A
 *              host with workers leaves results where the handle's thread finds them, and calls
 *              sluice_wake().
 *   Callbacks  Each is called inside a call of the host's on the same handle: from sluice_pump()
 *              and sluice_delete() all of them; from sluice_wait(), sluice_spawn(),
 *              sluice_cancel(), sluice_ready() and sluice_warm_up() where their paragraphs say so.
 *              No call is re-entrant: in a callback the functions of the handle refuse with
 *              SLUICE_EBUSY, but for sluice_wake(), sluice_interrupt(), sluice_complete(),
 *              sluice_fail(), sluice_watch(), and sluice_delete(), which then takes effect at the
 *              end of the call that called back. A callback must return: no longjmp, no C++
 *              exception.
 *   Pointers   Those that the host gives are its own again after the call, but for what is in
 *              sluice_options and the `user` of callbacks; those that it gets hold as long as the
 *              paragraph says. A handle is not to be used after sluice_delete().
 *
 * How long a pump takes
 *   sluice_pump() ends soon after its budget: Lua is interrupted, and what has arrived is left for
 *   the next pump. What cannot be divided takes what it takes: one call of a C function out of Lua
 *   (string.rep of a megabyte, table.sort with a comparator), a piece of our own Lua between two
 *   waits (about 10 us for an event of a stream), a TLS handshake (about 1 ms), one step of Lua's
 *   collector (about 50 us, and once in a cycle the atomic one: 0.2 ms with 200 streams), the first
 *   use of a module (see sluice_warm_up).
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLUICE_API __attribute__((visibility("default")))
#else
#define SLUICE_API
#endif

#define SLUICE_VERSION "0.1.0"

struct lua_State;

/** One instance. Any number of them may live in a process, each on a thread of its own or not. */
typedef struct sluice sluice;

/** What went wrong; sluice_strerror() has the text. */
enum sluice_err {
    SLUICE_OK = 0,
    /** No memory, or no descriptor left. */
    SLUICE_ENOMEM = -1,
    /** An argument that cannot be. */
    SLUICE_EINVAL = -2,
    /** Called from inside a callback of the same handle; or the Lua state has an instance already.
     */
    SLUICE_EBUSY = -3,
    /** The chunk does not compile; on_error was told why. */
    SLUICE_ESYNTAX = -4,
    /** The chunk raised an error. */
    SLUICE_ESCRIPT = -5,
    /** The task was cancelled. */
    SLUICE_ECANCELLED = -6,
    /** Every task waits and nothing can wake one. */
    SLUICE_ESTALLED = -7,
    /** The script called os.exit. */
    SLUICE_EEXIT = -8,
    /** The loop is the host's: it cannot be waited for here. */
    SLUICE_EUNSUPPORTED = -9,
    /** Called on another thread than the one that made the handle. */
    SLUICE_ETHREAD = -10,
    /** The chunk took more instructions than the options allow; see sluice_done. */
    SLUICE_ELIMIT = -11,
};

/**
 * What an instance may do; nothing is granted unless the options say so. In a state of the host's
 * this holds for what libsluice does; Lua's own libraries are the host's there.
 */
enum sluice_capability {
    SLUICE_CAN_READ_ENVIRONMENT = 1,
    /** Lua files for require too, standard input, and bytecode beside text. */
    SLUICE_CAN_READ_FILES = 2,
    SLUICE_CAN_WRITE_FILES = 4,
    SLUICE_CAN_CONNECT = 8,
    SLUICE_CAN_LISTEN = 16,
    /** With SLUICE_CAN_READ_FILES: libraries of machine code for require too. */
    SLUICE_CAN_SPAWN_PROCESSES = 32,
    /** os.exit ends every task and is reported as SLUICE_EEXIT; it never ends the process.
     * os.setlocale, which is the process's as well. */
    SLUICE_CAN_EXIT = 64,
    /** All of `debug`, which reaches into every function: no other limit holds against it. Without
     * it, debug.traceback and debug.getinfo. */
    SLUICE_CAN_DEBUG = 128,
    SLUICE_CAN_EVERYTHING = 255,
};

/** What a loop watches a descriptor for. */
enum sluice_event {
    SLUICE_READ = 1,
    SLUICE_WRITE = 2,
};

/**
 * A loop of the host's. It calls sluice_ready() when a descriptor is ready and sluice_pump() when
 * the time of wake_at has come.
 */
typedef struct sluice_loop {
    /** sizeof(sluice_loop); see sluice_options. */
    size_t size;
    /** Passed to the functions below. */
    void *user;
    /** Watches fd for exactly these events (enum sluice_event), 0: no more. 0, or -1 on failure. */
    int (*watch)(void *user, int fd, unsigned events);
    /** sluice_pump() is due in `delay_us` microseconds, 0: now, -1: no timer runs. Called by
     * sluice_pump, sluice_spawn, sluice_cancel, sluice_ready, sluice_complete and
     * sluice_fail. */
    void (*wake_at)(void *user, long delay_us);
} sluice_loop;

/**
 * Zero it, set `size`, then what is wanted. Everything pointed to must live as long as the handle,
 * but for `loop`, which is copied.
 *
 * What is granted here is never more later. What is forbidden is checked in C, where a socket, a
 * file or a child is opened.
 */
typedef struct sluice_options {
    /** sizeof(sluice_options) of the header that the host was compiled with. A library with a
     * longer one takes 0 for the rest; one with a shorter one refuses what is set beyond it. */
    size_t size;
    /** A Lua 5.4 state of the host's, with its libraries open; NULL: one of our own. In a host's
     * state only `coroutine` is changed and modules become requirable, until sluice_delete(); its
     * other libraries stay. One instance at a time in a state. */
    struct lua_State *state;
    /** realloc(3) with size 0 as free(3); NULL: the C library's, and small blocks of our own Lua
     * state in slabs of 16 KB. */
    void *(*allocator)(void *user, void *block, size_t size);
    void *allocator_user;
    /** Bytes that the Lua heap of our own state may take, and a text that goes between Lua and the
     * host; 0: no limit. Bodies of HTTP on their way are not in it: see byte_limit. */
    size_t memory_limit;
    /** enum sluice_capability, together. */
    unsigned capabilities;
    /** A line that sluice.log writes, without its newline. NULL: dropped. */
    void (*on_log)(void *user, const char *line, size_t len);
    /** An error that no task could take; with a traceback. NULL: dropped. */
    void (*on_error)(void *user, const char *text);
    void *callback_user;
    /** A loop of the host's; NULL: libev. */
    const sluice_loop *loop;
    /** What `...` is in spawned chunks. */
    int argc;
    const char *const *argv;
    /**
     * 1: for scripts of strangers, in a state of our own, with both limits below; no
     * SLUICE_CAN_DEBUG. `debug` and `package` are not there, `io` and `os` only with a capability
     * that needs them, and no file runs as Lua; chunks are text; print goes to on_log. No finalizer
     * can be set, patterns and table functions that would run for long are refused, and the
     * collector cannot be turned by hand. Scripts in one instance share their globals: take an
     * instance for each that must not meddle with another.
     */
    int untrusted;
    /** Instructions of Lua, about, that a spawned chunk may take with all its tasks; then it ends
     * with SLUICE_ELIMIT, whatever it catches. In a state of our own; no SLUICE_CAN_DEBUG. 0: no
     * limit. */
    uint64_t instruction_limit;
    /** Where it may connect, by HTTP (proxies too), sockets and to Redis: "api.example.com:443",
     * "*.example.com" (every name below), "127.0.0.1", "[::1]:80", "unix:/path"; without a port:
     * any. Names are compared, not what they resolve to. NULL: anywhere. This and the two lists
     * below end with NULL. */
    const char *const *allowed_hosts;
    /** Methods of HTTP requests, in capitals; NULL: any. */
    const char *const *allowed_methods;
    /** Environment variables, of those that SLUICE_CAN_READ_ENVIRONMENT grants; NULL: all. */
    const char *const *allowed_environment;
    /** HTTP requests that may be sent (one more for each redirect), and bytes to and from outside
     * by HTTP and sockets, while the instance lives; then they fail with "LimitExceeded". 0: no
     * limit. */
    uint64_t request_limit, byte_limit;
    /** A descriptor that sluice.log writes to, beside the loop; 0: none, its lines go to on_log.
     * The binary's is 2. It is the host's, and must stay open until sluice_delete(). */
    int log_descriptor;
    /** 1: no thread for what a loop should not wait for (log lines, writes to SQLite): they are
     * written in the pump, log lines without waiting where that is possible. */
    int no_writer_thread;
    /** Bytes that may wait for that thread; what does not fit is dropped, and counted. 0: 4 MiB. */
    size_t writer_queue;
} sluice_options;

/**
 * The end of a spawned chunk, called once for each: from inside a pump, or from sluice_delete().
 *
 * @param status SLUICE_OK: `text` is the chunk's first result as JSON ("null" without one).
 *               SLUICE_ESCRIPT, SLUICE_ECANCELLED, SLUICE_ELIMIT: the error, for people, with a
 *               traceback. SLUICE_EEXIT: the exit status, in digits.
 * @param text   `len` bytes and a NUL, valid until the next pump.
 */
typedef void (*sluice_done)(void *user, int status, const char *text, size_t len);

/**
 * Makes an instance. The handle is the caller's, to be given to sluice_delete().
 *
 * @return SLUICE_EINVAL for options that cannot be, on_error is told which: limits that could not
 *         hold are refused. SLUICE_EBUSY: the state has an instance already. SLUICE_ENOMEM.
 */
SLUICE_API int sluice_new(sluice **out, const sluice_options *options);

/**
 * Starts a chunk of Lua, text or (see SLUICE_CAN_READ_FILES) bytecode, as a task. It runs in the
 * next pump, not here.
 *
 * @param name  what error messages call it: "@FILE", or "=NAME".
 * @param chunk `len` bytes, not needed after the call.
 * @param done  may be NULL.
 * @return the task's number (1 or more), for sluice_cancel(). SLUICE_ESYNTAX, on_error is told why;
 *         SLUICE_ENOMEM. `done` is not called then.
 */
SLUICE_API int sluice_spawn(sluice *s, const char *name, const char *chunk, size_t len,
                            sluice_done done, void *user);

/**
 * Cancels a spawned task: its waits raise TaskCancelled, and what it waits for is given up in here
 * (connections are closed, a sluice_call_cancelled is called). It ends, with `done`, in the pumps
 * that follow. Nothing happens when it has ended.
 *
 * @param reason copied; NULL: none.
 */
SLUICE_API int sluice_cancel(sluice *s, int task, const char *reason);

/** A call of a host function that was not completed yet; never 0, and not given twice. */
typedef uint64_t sluice_call;

/**
 * A function of the host's that Lua calls. It starts what takes time and returns; sluice_complete()
 * or sluice_fail() ends the call, later or in here. The task of the caller waits meanwhile, others
 * run on.
 *
 * @param arguments what Lua gave, as a JSON array of `len` bytes and a NUL: valid in the function.
 */
typedef void (*sluice_function)(void *user, sluice_call call, const char *arguments, size_t len);

/**
 * Nobody waits for this call any more: its task was cancelled, or its time is up, or the instance
 * is deleted. The host may stop what it does for it. Completing it all the same does nothing.
 */
typedef void (*sluice_call_cancelled)(void *user, sluice_call call);

/**
 * Makes a function of the host's callable from Lua, in a task, as
 *
 *     local host = require "sluice.host"
 *     local value, err = host.NAME(...)
 *
 * The arguments must have a JSON form; nil is null. A name that is registered already gets the new
 * functions, for calls to come.
 *
 * @param name      copied; UTF-8, not empty.
 * @param cancelled may be NULL.
 */
SLUICE_API int sluice_register(sluice *s, const char *name, sluice_function function,
                               sluice_call_cancelled cancelled, void *user);

/**
 * Ends a call: `json`, `len` bytes of one JSON value, is what it returns to Lua. NULL: true. No Lua
 * runs before the next pump. From other threads: leave the result where the thread of the handle
 * finds it, and call sluice_wake().
 *
 * @param json not needed after the call. What is not JSON arrives as an err of kind "HostError".
 * @return 0; 1 when nobody waits for it any more. SLUICE_ENOMEM: the call is still open; without an
 *         answer, and by sluice_fail() without kind and message, it can always be ended.
 */
SLUICE_API int sluice_complete(sluice *s, sluice_call call, const char *json, size_t len);

/**
 * As sluice_complete(), but the call returns nil and an err with this kind and message.
 *
 * @param kind err.kind, for scripts to decide by: one of those in docs/errors.md or a word of your
 *             own. NULL: "HostError".
 */
SLUICE_API int sluice_fail(sluice *s, sluice_call call, const char *kind, const char *message);

/** A descriptor is ready for `events`, or broken, which is all of them. */
typedef void (*sluice_watcher)(void *user, int fd, unsigned events);

/**
 * Watches a descriptor of the host's on the loop of the instance, beside its own: sluice_pump() and
 * sluice_wait() call `watcher` as long as it is ready. For hosts without a loop: where the loop is
 * the host's it is SLUICE_EUNSUPPORTED.
 *
 * @param fd     the host's; stop watching before it is closed. Files are always ready.
 * @param events enum sluice_event, together; 0 stops. Calling it again replaces what was said.
 */
SLUICE_API int sluice_watch(sluice *s, int fd, unsigned events, sluice_watcher watcher, void *user);

/**
 * Works for about `budget_us` microseconds (see above): descriptors, timers, tasks; slices Lua that
 * computes for longer, at any point of a script's own code. 0: one turn of the loop, and Lua is not
 * sliced. Never blocks. Calls `done`, functions of the host's, watchers, on_log, on_error.
 *
 * @return 1 when there is work left that needs no waiting, 0 when idle.
 */
SLUICE_API int sluice_pump(sluice *s, unsigned budget_us);

/**
 * Blocks until there may be work, for `timeout_us` microseconds at most; -1: no limit. Runs no Lua:
 * sluice_pump() comes next. Calls watchers. For hosts without a loop, else SLUICE_EUNSUPPORTED.
 * SLUICE_ESTALLED when it would block for ever: nothing is watched, no timer runs, no function of
 * the host's is waited for.
 */
SLUICE_API int sluice_wait(sluice *s, long timeout_us);

/**
 * Does at once what the first requests would do one by one: loads the modules of the library that
 * most programs need and, where the instance may connect, makes the shared HTTP client with its TLS
 * context and reads the file of authorities. Blocks for about 20 ms; frames after it hold their
 * budget. SLUICE_ESCRIPT or SLUICE_ENOMEM where it fails; on_error is told.
 */
SLUICE_API int sluice_warm_up(sluice *s);

/** Microseconds until a timer is due, 0: there is work; -1: none (descriptors may still become
 * ready); SLUICE_ETHREAD. */
SLUICE_API long sluice_next_due(sluice *s);

/** A descriptor of the host's loop is ready; see sluice_loop. No Lua runs before the next pump. */
SLUICE_API int sluice_ready(sluice *s, int fd, unsigned events);

/** Ends a sluice_wait(), the one that runs or the next. From any thread while the handle lives, and
 * from a signal handler. */
SLUICE_API void sluice_wake(sluice *s);

/**
 * Makes the running sluice_pump() return soon, even out of Lua that computes; from a signal handler
 * on the thread of the handle. When the task is cancelled before the next pump, it is raised there.
 */
SLUICE_API void sluice_interrupt(sluice *s);

/**
 * Has the file that sluice.log writes to opened anew, for a host that moves its logs away. A file
 * that was moved is noticed by the next lines as well.
 *
 * @return 1; 0 when the lines go to no file.
 */
SLUICE_API int sluice_reopen_log(sluice *s);

/**
 * Cancels every task, lets them unwind for a second at most, tells the ends, and frees everything.
 * In a callback: marked, and done at the end of the call. Descriptors of a host's loop are not
 * served meanwhile. NULL is fine.
 */
SLUICE_API void sluice_delete(sluice *s);

/** The text of an enum sluice_err; static. */
SLUICE_API const char *sluice_strerror(int err);

#ifdef __cplusplus
}
#endif

#endif
