/* SPDX-License-Identifier: MIT */
/* What the files of the core share; no module includes this. */
#ifndef SL_INTERNAL_H
#define SL_INTERNAL_H

#include "core.h"

#include <signal.h>

typedef struct sl_scope sl_scope;
typedef struct sl_backend sl_backend;
/** Values of a task and of those it spawned; of locals.c. */
typedef struct sl_locals sl_locals;

/** Owns tasks: the body of a task, a task.scope, a task.timeout, a task.shield, or a group. */
struct sl_scope {
    /** The scope around it in the same task; NULL for the body of a task and for a group. */
    sl_scope *outer;
    /** The task that runs in it; NULL for a group. */
    sl_task *owner;
    sl_task *children;
    /** The deadline that holds inside, on the owner's clock; INT64_MAX none. */
    int64_t due;
    /** The scope that set `due`: this one, or one further out. */
    sl_scope *due_scope;
    /** Tells this scope's errors from others'; also the id of a task. */
    uint64_t serial;
    /** Why it was cancelled: a static text, or the registry reference beside it. */
    const char *reason;
    int reason_ref;
    /** The first error of a child that nobody joined. */
    int error_ref;
    /** The seconds of its own limit, for the error's text. */
    float limit;
    /** Scopes around it in the same task. */
    unsigned short depth;
    bool cancelled : 1;
    bool shield : 1;
    /** The body ended with an error. */
    bool failed : 1;
    /** The owner waits for the last child. */
    bool leaving : 1;
    /** A child ended because an inherited deadline had passed. */
    bool child_timed_out : 1;
};

/** Instructions that a spawned chunk and all tasks that come from it may still take. */
typedef struct sl_meter {
    uint64_t left;
    size_t users;
} sl_meter;

/** Lists end with NULL; a NULL list or a 0 is no limit. As in sluice_options. */
typedef struct sl_limits {
    const char *const *hosts, *const *methods, *const *environment;
    uint64_t instructions, requests, bytes;
} sl_limits;

enum sl_task_state {
    SL_TASK_NEW,
    SL_TASK_READY,
    SL_TASK_RUNNING,
    SL_TASK_WAITING,
    SL_TASK_ENDED,
};

enum {
    /* Bytes that the writer's thread may be behind, where the host does not say. */
    SL_WRITER_QUEUE = 4 << 20,
};

enum sl_outcome {
    SL_DONE,
    SL_CANCELLED,
    SL_TIMED_OUT,
};

/** A task; this is the memory of its handle (userdata "sluice.task", user value 1: its results). */
struct sl_task {
    sl_core *core;
    /** NULL once it has ended. */
    lua_State *co;
    sl_clock *clock;
    /** Where it was spawned; NULL once it has ended. */
    sl_scope *parent;
    sl_task *next_sibling, *previous_sibling;
    /** Its body, and the innermost scope it is in. */
    sl_scope base;
    sl_scope *scope;
    /** The scope around the coroutine that runs: it cannot yield out of one further in. */
    sl_scope *floor;
    /** Its place in the ready queue or in a waitlist. */
    sl_task *next, *previous;
    sl_waitlist *list;
    sl_waitlist joiners;
    sl_timer timer;
    /** NULL: no limit, or it has ended. */
    sl_meter *meter;
    /** NULL: none. */
    sl_locals *locals;
    /* the wait: one at a time */
    const char *what;
    sl_cancel cancel;
    void *object;
    lua_KContext ctx;
    lua_KFunction k;
    int64_t since;
    int thread_ref;
    /** Results kept in user value 1: none, the value, or (from 2 on) a table. */
    int results;
    unsigned char state, outcome;
    /** Budgets used up since it last waited. */
    unsigned char slices;
    /** Coroutines in it that were resumed where Lua cannot yield. */
    int pinned;
    /** The wait ignores cancellation and deadlines: the edge of a scope waits for children. */
    bool uninterruptible : 1;
    bool failed : 1;
    bool sliced : 1;
    /** The host takes its error: nobody else is told. */
    bool observed : 1;
    /** It ended after its instructions had been used up. */
    bool exhausted : 1;
    /** Our mark stands on the stack of its coroutine: nobody else resumes it. */
    bool marked : 1;
};

struct sl_clock {
    sl_core *core;
    /** Simulated: its time. Real: the time of the last reading. Microseconds. */
    int64_t now;
    /** What wall time was when `now` was 0. */
    double epoch;
    /** The root of the pairing heap. */
    sl_timer *heap;
    /** State of the generator that shuffles the ready tasks; 0: first come first served. */
    uint64_t seed;
    bool simulated;
    /** A simulated one: tasks and task.simulate calls that use it. */
    size_t users;
    sl_clock *next;
};

/** A coroutine kept for the next task. */
typedef struct sl_thread {
    lua_State *co;
    int ref;
} sl_thread;

typedef void *(*sl_allocator)(void *user, void *block, size_t size);
typedef void (*sl_error_callback)(void *user, const char *text);
typedef void (*sl_log_callback)(void *user, const char *line, size_t len);

struct sl_core {
    /** The main thread, never the caller's. */
    lua_State *L;
    sl_allocator allocator;
    void *allocator_user;
    sl_backend *backend;
    /** Watched descriptors, by their number. */
    sl_io **ios;
    size_t ios_size, ios_watched;
    /** Watched ones with those that are parked. */
    size_t ios_open;
    /** Those that are ready, in the order in which the loop saw them. */
    sl_io *seen, **seen_end;
    /** Turns of the loop in which something was to be done, and microseconds they took in all. */
    uint64_t turns;
    int64_t busy;
    /** The longest turn since `lag_since`, and of the window before that. */
    int64_t lag, lag_before, lag_since;
    sl_clock real;
    /** Simulated clocks that have users. */
    sl_clock *simulated;
    sl_waitlist ready;
    sl_task *current;
    /** The coroutine that runs now, the innermost one. */
    lua_State *volatile running;
    /** Tasks of sluice_spawn and sluice.run. */
    sl_scope root;
    /** Groups that live, in a list through `outer`. */
    sl_scope *groups;
    size_t tasks;
    /** What the host will bring, so that waiting for ever is no mistake. */
    size_t outside;
    sl_thread *pool;
    size_t pool_size, pool_used;
    uint64_t serial;
    unsigned capabilities;
    /** What the chunk names of our own Lua files begin with; NULL: none is known. */
    const char *library_source;
    sl_limits limits;
    /** Of the limits, so far. */
    uint64_t requests, bytes;
    /** When the pump's budget ends; INT64_MAX: no budget, no hook. */
    int64_t slice_end;
    volatile sig_atomic_t interrupted;
    /** The task yields from the hook, in the middle of a computation. */
    bool slicing;
    /** The host asked for the thread in the middle of a computation. */
    bool interrupt_seen;
    /** The hook raises the cancellation of the task instead of yielding. */
    bool raise_in_slice;
    /** Instructions behind the end of the slice, where Lua cannot yield. */
    uint32_t unsliced;
    /** The hook has raised, and no hook has run since: hooks may be off. */
    bool raised_in_hook;
    /** A wait has looked at the descriptors, and no pump since. */
    bool has_looked;
    bool pumping, closing, exiting;
    int exit_status;
    sl_close_hook *close_hooks;
    sl_error_callback on_error;
    void *on_error_user;
    sl_log_callback on_log;
    void *on_log_user;
    /** See sl_log_descriptor and sl_writer_queue. */
    int log_descriptor;
    size_t writer_queue;
    sl_io wake_io;
};

/** Where descriptors are watched: libev, or a host's own loop. */
struct sl_backend {
    /** Watches for exactly these events, 0: no more. 0, or -1 without memory. */
    int (*watch)(sl_backend *backend, int fd, unsigned events);
    /** Marks what is ready (sl_io_see); waits for at most `timeout` microseconds, -1: for ever.
     * NULL: the host's loop does. */
    void (*poll)(sl_backend *backend, int64_t timeout);
    /** Tells the loop when the next timer is due, -1: none. NULL: not needed. */
    void (*wake_at)(sl_backend *backend, int64_t delay);
    void (*close)(sl_backend *backend);
};

/** Limits that a host of the core sets; zeroed means the defaults. */
typedef struct sl_core_options {
    sl_allocator allocator;
    void *allocator_user;
    unsigned capabilities;
    const char *library_source;
    sl_limits limits;
    sl_error_callback on_error;
    void *on_error_user;
    sl_log_callback on_log;
    void *on_log_user;
    int log_descriptor;
    size_t writer_queue;
    /** A loop of the host's; NULL: libev. Closed with the core. */
    sl_backend *backend;
} sl_core_options;

/* core.c */
sl_core *sl_core_new(const sl_core_options *options);
/** Ties the core to a state; protected. Returns a Lua status. */
int sl_core_attach(sl_core *core, lua_State *L);
/** Forgets the core in its state. May raise for want of memory. */
void sl_core_detach(lua_State *L);
/** Cancels everything and lets it unwind for at most `grace` microseconds. */
void sl_core_shut_down(sl_core *core, int64_t grace);
/** Runs the close hooks and frees everything outside the Lua state. */
void sl_core_close(sl_core *core);
/** Frees the core itself, after the Lua state was closed or detached. */
void sl_core_delete(sl_core *core);
/** Returns 1 while something could go on at once, else 0. */
int sl_core_pump(sl_core *core, int64_t budget);
/** Blocks until there may be work. -1 when nothing could ever bring any. */
int sl_core_wait(sl_core *core, int64_t timeout);
int64_t sl_core_next_due(sl_core *core);
sl_core *sl_core_find(lua_State *L);
/** Ends the program: cancels every task; the host reads core->exiting. */
void sl_core_exit(sl_core *core, int status);

/* memory.c */
void *sl_memory_default(void *user, void *block, size_t size);

/* limits.c */
/** Gives the task the meter of the running one, or a new one. False without memory. */
bool sl_meter_take(sl_core *core, sl_task *task);
void sl_meter_release(sl_core *core, sl_task *task);
/** Takes `count` off; false when nothing is left. `meter` may be NULL. */
bool sl_meter_count(sl_meter *meter, uint64_t count);
/** Pushes the err that says that the instructions are used up. */
void sl_push_exhausted(lua_State *L, sl_core *core);
/** As lua_pcall, outside of tasks: what runs for long ends with an error. */
int sl_call_briefly(lua_State *L, int arguments, int results);

/* loop.c */
sl_backend *sl_backend_libev(sl_core *core);
/** The descriptor is ready: its owner is told by the next sl_io_tell. */
void sl_io_see(sl_core *core, int fd, unsigned events);
/** The same, told at once. */
void sl_io_notify(sl_core *core, int fd, unsigned events);
/** Tells the owners of what was seen, until the clock has come to `end`. */
void sl_io_tell(sl_core *core, int64_t end);
int sl_wake_open(sl_core *core);

/* clock.c */
int64_t sl_clock_read(void);
double sl_clock_wall(sl_clock *clock);
void sl_clock_timer_start(sl_clock *clock, sl_timer *timer, int64_t due);
/** Fires what is due at clock->now; returns how many. */
size_t sl_clock_fire(sl_clock *clock);
/** Moves simulated clocks to their next timer; returns how many timers fired. */
size_t sl_clock_advance(sl_core *core);
/** A simulated clock with one user; NULL without memory. */
sl_clock *sl_clock_new(sl_core *core, double epoch, uint64_t seed);
void sl_clock_release(sl_clock *clock);
/** Frees the simulated clocks that are left. */
void sl_clocks_free(sl_core *core);

/* task.c */
extern const char sl_task_type[];
/** Stack of L: f and its arguments, all of it, are replaced by the handle. */
sl_task *sl_task_spawn(lua_State *L, sl_core *core, sl_scope *parent);
void sl_task_run(sl_core *core, sl_task *task);
sl_task *sl_ready_pop(sl_core *core);
void sl_ready_push(sl_core *core, sl_task *task);
int l_task_join(lua_State *L);
/** The body of the task and its children have ended: the stack is as sl_scope_body_done left it. */
int sl_task_finish(lua_State *L, sl_task *task);
int sl_task_push_results(lua_State *L, int handle, sl_task *task);
int sl_message_handler(lua_State *L);
/** Tells the host's error callback of the error at `index`. Needs 3 slots; never raises. */
void sl_report_error(lua_State *L, sl_core *core, int index);
/** Pushes what tostring gives for the value at `index`, or why it fails. Raises no error of Lua
 * code's. */
void sl_push_text(lua_State *L, int index);
/** Pushes the text of the error at `index` with its traceback. */
void sl_push_error_text(lua_State *L, int index);
/** Ends a task that will never run again. Does not raise. */
void sl_task_abandon(sl_task *task);
void sl_thread_pool_free(sl_core *core);

/* wait.c */
extern const char sl_wait_mark[];
/** Sleeps until `due` on the clock of the task; INT64_MIN: lets the others run once. */
int sl_wait_until(lua_State *L, sl_task *task, int64_t due);
/** As sl_wait, but `k` is called whatever came: it looks at task->outcome itself. */
int sl_wait_raw(lua_State *L, sl_task *task, bool uninterruptible, lua_KContext ctx,
                lua_KFunction k);
void sl_waitlist_remove(sl_waitlist *list, sl_task *task);
void sl_waitlist_append(sl_waitlist *list, sl_task *task);
/** Ends a wait that was not served: cancelled, or past its deadline. */
void sl_wait_interrupt(sl_task *task, enum sl_outcome outcome);
/** Pushes what a wait would raise now and returns true; false when nothing is pending. */
bool sl_pending_push(lua_State *L, sl_task *task);
bool sl_is_pending(sl_task *task);
/**
 * For the edge of a scope, which must not be left by an error: pushes the err of what is pending,
 * or of the wait that was interrupted. Needs 3 slots and never raises; pushes what went wrong where
 * there is no memory for the err.
 */
void sl_interruption_push(lua_State *L, sl_task *task);
/** Whether the running task can wait where it is. */
bool sl_can_wait(lua_State *L, sl_core *core);
int sl_raise_cannot_wait(lua_State *L);

/* scope.c */
void sl_scope_init(sl_scope *scope, sl_task *owner, sl_scope *outer);
/** Gives up what it keeps in the registry. Idempotent, does not raise. */
void sl_scope_release(lua_State *L, sl_scope *scope);
void sl_scope_cancel(sl_scope *scope, const char *reason, int reason_ref);
void sl_scope_add(sl_scope *scope, sl_task *task);
void sl_scope_remove(sl_task *task);
/** The serial of the scope whose cancellation or deadline made this error; 0 for any other. Does
 * not raise: the name of the field lives as long as the core. */
uint64_t sl_error_origin(lua_State *L, int index);
int sl_scope_body_done(lua_State *L, int status, lua_KContext ctx);
/** A task has failed with the error at the top: its scope hears of it. Needs 3 slots; never raises.
 */
void sl_scope_child_failed(lua_State *L, sl_task *task);
int l_scope_run(lua_State *L);
int l_scope_timeout(lua_State *L);
int l_scope_shield(lua_State *L);
int l_scope_simulate(lua_State *L);
int l_group_new(lua_State *L);
void sl_scope_register(lua_State *L);
/** Ends what is left of tasks and groups, for the core goes; their handles may stay. */
void sl_scopes_abandon(sl_core *core);

/* coroutine.c */
/** Puts our resume, wrap, yield and close into the table `coroutine`; pushes the old ones. */
void sl_coroutine_install(lua_State *L);
/** Puts the functions of the table at `index` back. */
void sl_coroutine_restore(lua_State *L, int index);
/** Sets or clears the hook that ends a slice, before `co` is resumed. */
void sl_slice_arm(sl_core *core, lua_State *co);
/** Has the hook look at the clock at the next instruction, after long work in C. */
void sl_slice_look(sl_core *core, lua_State *co);
/** Ends the slice soon; from a signal handler on the core's thread. */
void sl_slice_interrupt(sl_core *core);

/* require.c */
/** Replaces the global `require`. */
void sl_require_install(lua_State *L);

/* stats.c */
/** Counts a turn of the loop that began then. */
void sl_turn_end(sl_core *core, int64_t begun);
int l_core_stats(lua_State *L);

/* locals.c */
/** Shares the values of the running task with the new one. */
void sl_locals_inherit(sl_core *core, sl_task *task);
/** Does not raise. */
void sl_locals_release(sl_core *core, sl_task *task);
int l_local_get(lua_State *L);
int l_local_set(lua_State *L);

/* tree.c */
int l_task_tree(lua_State *L);

/* task_binding.c */
int l_core_exit(lua_State *L);

/* run.c */
int l_core_run(lua_State *L);

/* task_binding.c */
LUAMOD_API int luaopen_sluice_core_task(lua_State *L);

#endif
