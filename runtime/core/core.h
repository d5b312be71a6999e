/* SPDX-License-Identifier: MIT */
/*
 * What the core gives to the modules: memory, descriptors, timers, tasks that wait, errors.
 *
 * One core belongs to one Lua state and to the thread that made it. Nothing here may be called
 * from another thread, and no callback registered here may call Lua or raise: it stores what
 * came, marks the task ready with sl_wake(), and the pump resumes the task later.
 */
#ifndef SL_CORE_H
#define SL_CORE_H

#include <lua.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What every luaopen_sluice_core_NAME is declared with: a stock Lua finds them by name. */
#if defined(__GNUC__)
#undef LUAMOD_API
#define LUAMOD_API __attribute__((visibility("default")))
#endif

/** One instance of the runtime. */
typedef struct sl_core sl_core;
/** One task; valid while it lives, and only on the core's thread. */
typedef struct sl_task sl_task;
/** A source of time: the real one, or a simulated one that jumps from timer to timer. */
typedef struct sl_clock sl_clock;

/** The core of this Lua state. Raises where the state has none (outside sluice.run). */
sl_core *sl_core_of(lua_State *L);

/* ---- memory: the host's allocator; NULL when there is none left; sl_free takes NULL ---- */

void *sl_alloc(sl_core *core, size_t size);
/** Zeroed; NULL as well when count * size overflows. */
void *sl_alloc_array(sl_core *core, size_t count, size_t size);
/** On failure the old block is untouched. */
void *sl_realloc(sl_core *core, void *block, size_t size);
void sl_free(sl_core *core, void *block);

/* ---- descriptors ---- */

enum {
    SL_READ = 1,
    SL_WRITE = 2,
};

/** A watched descriptor, embedded in its owner; zero it before first use. One at a time for each
 * descriptor. */
typedef struct sl_io sl_io;
struct sl_io {
    /** The descriptor; set before the first watch, not changed while watched. */
    int fd;
    /** What is watched now: SL_READ | SL_WRITE, 0 none; kept by the core. */
    unsigned events;
    /** Called from the loop, with the events seen. It may stop or free any sl_io, this one too. */
    void (*on_ready)(sl_io *io, unsigned events);
    /* the rest is the core's: what was seen, and the place in the queue of those to be told */
    unsigned seen;
    sl_io *next, **link;
    /** As sl_io_park leaves it; kept by the core. */
    bool is_parked;
};

/** Watches for exactly these events; 0 stops. Returns 0, or -1 without memory. Idempotent. */
int sl_io_watch(sl_core *core, sl_io *io, unsigned events);
/** Nobody waits for it at present: what is watched stays so, but keeps no loop from ending. Until
 * the next sl_io_watch, which then costs no system call where the events are the same. */
void sl_io_park(sl_core *core, sl_io *io);

/* ---- time, in microseconds ---- */

/** Now on the real clock, as of the last turn of the loop. */
int64_t sl_now(sl_core *core);
/** Reads the clock again: call it after long work, before starting a timer. */
int64_t sl_now_update(sl_core *core);
/** Now as task.now() tells it, read afresh: on the clock of the running task, real or simulated. */
int64_t sl_now_running(lua_State *L);

/** The wall clock beside it, in seconds since 1970. */
double sl_wall_running(lua_State *L);

/** A timer, embedded in its owner; zero it before first use. */
typedef struct sl_timer sl_timer;
struct sl_timer {
    /** Called once from the loop when due; it may start this timer again, or free it. */
    void (*on_due)(sl_timer *timer);
    /** When, on its clock. */
    int64_t due;
    /* the rest is the core's: a pairing heap, so starting a timer never needs memory */
    sl_clock *clock;
    sl_timer *child, *next, *previous;
    uint64_t serial;
};

/** Starts, or moves, the timer on the real clock. */
void sl_timer_start(sl_core *core, sl_timer *timer, int64_t due);
/** Idempotent. */
void sl_timer_stop(sl_timer *timer);
static inline bool sl_timer_is_active(const sl_timer *timer)
{
    return timer->clock != NULL;
}

/* ---- tasks that wait ---- */

/** The task that runs now; NULL outside of tasks. */
sl_task *sl_task_current(sl_core *core);

/** Pushes a value of the running task; nil where it has none, or outside of tasks. */
void sl_local_push(lua_State *L, const char *name);
/** Sets a value of the running task to the one on top, and puts there what it was. It raises
 * outside of tasks. */
void sl_local_replace(lua_State *L, const char *name);

/**
 * Stops what the task waits for: cancelled, or past its deadline. Called from the pump or from
 * another task's call, never from inside the task. It must detach `object` from the task, so that
 * sl_wake() is not called for this wait any more, and give back what is outside at once (close the
 * connection). It must not call Lua.
 */
typedef void (*sl_cancel)(sl_task *task, void *object);

/**
 * Suspends the running task until sl_wake(task). Use as `return sl_wait(L, ...)` from a C function
 * that Lua called; `k` continues as after lua_yieldk, with the same stack, and gives the results.
 *
 * Raises, at once or when the task goes on, instead of calling `k`: TaskCancelled, TimeoutError
 * (the deadline of a scope), or, where Lua cannot yield, a text that says so.
 *
 * @param what   what the task waits for, shown by task.tree(); must outlive the wait (static, or
 *               in the object).
 * @param cancel see sl_cancel.
 */
int sl_wait(lua_State *L, const char *what, sl_cancel cancel, void *object, lua_KContext ctx,
            lua_KFunction k);

/**
 * Raises what the next sl_wait would raise (cancelled, deadline passed, cannot yield here).
 * Call it before taking resources for something that will be waited for.
 */
void sl_wait_check(lua_State *L);

/**
 * As sl_wait, right after a sl_wait_check in the same call: raises nothing at once, so that what
 * was taken in between has its waiter.
 */
int sl_wait_checked(lua_State *L, const char *what, sl_cancel cancel, void *object,
                    lua_KContext ctx, lua_KFunction k);

/** Marks a waiting task ready; the pump resumes it. Once per wait. */
void sl_wake(sl_task *task);

/**
 * Cancels a living task, from the pump or from anywhere else on the core's thread.
 * @param reason static text.
 */
void sl_task_cancel(sl_task *task, const char *reason);

/** Whether the running code could wait for something real: a thread, a socket. */
bool sl_can_wait_outside(lua_State *L);

/** Raises when the running task is in simulated time: "OPERATION needs a real socket, ...". */
void sl_require_real_time(lua_State *L, const char *operation);

/** Tasks that wait for one thing, first come first served. Zeroed is empty. */
typedef struct sl_waitlist {
    sl_task *first, *last;
} sl_waitlist;

/** As sl_wait, in a list: whoever owns the list wakes. */
int sl_waitlist_wait(lua_State *L, sl_waitlist *list, const char *what, lua_KContext ctx,
                     lua_KFunction k);
/** Wakes the first `count` tasks of the list; returns how many that were. */
size_t sl_waitlist_wake(sl_waitlist *list, size_t count);

/* ---- capabilities: what the host granted to this instance ---- */

enum {
    SL_CAN_READ_ENVIRONMENT = 1,
    SL_CAN_READ_FILES = 2,
    SL_CAN_WRITE_FILES = 4,
    SL_CAN_CONNECT = 8,
    SL_CAN_LISTEN = 16,
    SL_CAN_SPAWN_PROCESSES = 32,
    SL_CAN_EXIT = 64,
    SL_CAN_DEBUG = 128,
};

/** Raises "OPERATION is not allowed here: ..." where the host did not grant the capability. */
void sl_require_capability(lua_State *L, unsigned capability, const char *operation);

/** Whether the host granted all of them. */
bool sl_has_capability(lua_State *L, unsigned capability);

/* ---- limits: what the host allows of what it has granted ---- */

/**
 * Why nobody may connect there (static text), or NULL. `host` as in a URL, "unix:" and a path with
 * port 0, or NULL: anywhere at all.
 */
const char *sl_refuse_connection(sl_core *core, const char *host, unsigned port);
/** The same for the method of an HTTP request. */
const char *sl_refuse_method(sl_core *core, const char *method);
/** Counts a request, or bytes to or from outside: false when the host's limit is used up. */
bool sl_count_request(sl_core *core);
bool sl_count_bytes(sl_core *core, size_t size);
/** What a limit that is used up is called in errors, and the text. */
#define SL_LIMIT_KIND "LimitExceeded"
#define SL_LIMIT_TEXT "a limit that the host has set is used up"
/** The value of an environment variable; NULL where there is none, or it is not for scripts. */
const char *sl_environment_get(lua_State *L, const char *name);
/** Raises when the running task has no instructions left: for work in C that a script can make
 * long. `count` as if it were Lua's. */
void sl_count_instructions(lua_State *L, uint64_t count);
/**
 * Whether long work in C of the running task, outside of Lua, should be given up: the task is
 * cancelled, past its deadline or out of instructions, or the program was interrupted. Counts
 * `count` instructions. sl_stop_check() then raises what there is to raise.
 */
bool sl_should_stop(sl_core *core, uint64_t count);
void sl_stop_check(lua_State *L);
/** In a handler of errors: it is called out of a hook, and Lua that it calls could not be stopped.
 * Until sl_hooks_are_on, where the error was caught. */
bool sl_hooks_may_be_off(lua_State *L);
void sl_hooks_are_on(lua_State *L);

/* ---- errors ---- */

/** Pushes an err table { kind =, message = } with the error metatable. */
void sl_error_push(lua_State *L, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Hands a log line, without its newline, to the host; dropped where the host takes none. */
void sl_log(lua_State *L, const char *line, size_t len);
/** The descriptor that the host wants log lines to be written to; 0: it takes them by sl_log. */
int sl_log_descriptor(sl_core *core);
/** Tells the host of an error that nobody else can be told of. */
void sl_complain(sl_core *core, const char *text);

/* ---- what is written on a thread of its own ---- */

/** Bytes that may be queued for it; 0: the host wants no thread. */
size_t sl_writer_queue(sl_core *core);

/* ---- life of a module's state ---- */

/** Called when the core closes, before the Lua state does; embedded in the module's state. */
typedef struct sl_close_hook sl_close_hook;
struct sl_close_hook {
    /** Must release everything outside (descriptors, timers, memory) and may be called once. */
    void (*on_close)(sl_close_hook *hook);
    sl_close_hook *next, **previous;
};

void sl_close_hook_add(sl_core *core, sl_close_hook *hook);
/** The hook with this function, for what an instance has one of; NULL: none yet. */
sl_close_hook *sl_close_hook_find(sl_core *core, void (*on_close)(sl_close_hook *hook));
/** Idempotent. */
void sl_close_hook_remove(sl_close_hook *hook);

#endif
