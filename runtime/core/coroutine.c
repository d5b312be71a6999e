/* SPDX-License-Identifier: MIT */
/*
 * The user's own coroutines inside a task: our waits and our time slices pass through them.
 *
 * A coroutine that yields our mark, or from our hook, has not yielded to the one that resumed it:
 * resume and wrap yield on in their turn, and go on with it when the task is resumed.
 */
#include "internal.h"

#include <string.h>

enum {
    /* Instructions between two looks at the clock, in a pump with a budget. */
    SLICE_INSTRUCTIONS = 1000,
    /* What a resume counts for: a new coroutine begins to count at 0. */
    RESUME_INSTRUCTIONS = 100,
    /* Instructions of our own Lua until the next look whether they have ended. */
    LIBRARY_INSTRUCTIONS = 50,
    /* Instructions behind the end of a slice that a task with limits may take where Lua cannot
     * yield: in a comparator, in a function given to gsub. About 5 ms. */
    UNSLICED_MOST = 1000000,
};

/* ---- time slices ---- */

static void slice_hook(lua_State *L, lua_Debug *frame);

/** Setting a hook again begins its count again: a script that waits often would never be counted.
 */
static void arm_after(lua_State *co, int instructions)
{
    if (lua_gethook(co) != slice_hook || lua_gethookmask(co) != LUA_MASKCOUNT ||
        lua_gethookcount(co) != instructions)
        lua_sethook(co, slice_hook, LUA_MASKCOUNT, instructions);
}

/** Where Lua cannot yield now (in a comparator of table.sort): once that function has returned. */
static void slice_when_possible(lua_State *L)
{
    lua_sethook(L, slice_hook, LUA_MASKCOUNT | LUA_MASKRET, SLICE_INSTRUCTIONS);
}

/** Our own Lua files count on it that others run only where they wait or call: a slice that ended
 * between two lines of theirs could find a semaphore half taken. */
static bool is_in_library(lua_State *L, const sl_core *core, lua_Debug *frame)
{
    const char *source = core->library_source;
    return source && lua_getinfo(L, "S", frame) &&
           strncmp(frame->source, source, strlen(source)) == 0;
}

/** Raises from the hook, where handlers of scripts must not run: hooks are off then. */
static void raise_in_hook(lua_State *L, sl_core *core)
{
    core->raised_in_hook = true;
    lua_error(L);
}

/** What ends the computation rather than its slice: the instructions of the task are used up, or
 * its cancellation is to be raised. */
static void end_computation(lua_State *L, sl_core *core, lua_Debug *frame)
{
    if (!sl_meter_count(core->current->meter, (uint64_t)lua_gethookcount(L))) {
        sl_slice_arm(core, L);
        sl_push_exhausted(L, core);
        raise_in_hook(L, core);
    }
    if (core->raise_in_slice && !is_in_library(L, core, frame)) {
        core->raise_in_slice = core->interrupt_seen = false;
        sl_slice_arm(core, L);
        sl_pending_push(L, core->current);
        raise_in_hook(L, core);
    }
}

/** The slice is over where Lua cannot yield. A task with limits may not stay there. */
static void hold_on(lua_State *L, sl_core *core)
{
    core->unsliced += (uint32_t)lua_gethookcount(L);
    if (!core->current->meter || core->unsliced < UNSLICED_MOST) {
        slice_when_possible(L);
        return;
    }
    lua_sethook(L, slice_hook, LUA_MASKCOUNT,
                1); /* until it is left: pcall in there does not help */
    sl_error_push(L, SL_LIMIT_KIND, "more than %d instructions where Lua cannot yield",
                  UNSLICED_MOST);
    raise_in_hook(L, core);
}

static void slice_hook(lua_State *L, lua_Debug *frame)
{
    sl_core *core = sl_core_find(L);
    if (!core || !core->current) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    core->raised_in_hook = false;
    if (L != core->running)
        return; /* resumed by other means than ours: whoever did would take the yield for its own */
    if (frame->event == LUA_HOOKRET) {
        if (lua_isyieldable(L)) /* not in this event: at the next instruction */
            lua_sethook(L, slice_hook, LUA_MASKCOUNT, 1);
        return;
    }
    end_computation(L, core, frame);
    if (!core->interrupted && sl_clock_read() < core->slice_end) {
        sl_slice_arm(core, L); /* after sl_slice_look */
        return;
    }
    if (!lua_isyieldable(L) || core->current->pinned) {
        hold_on(L, core);
        return;
    }
    if (is_in_library(L, core, frame)) {
        arm_after(L, LIBRARY_INSTRUCTIONS);
        return;
    }
    if (core->interrupted) {
        core->interrupted = 0;
        core->interrupt_seen = true;
        sl_slice_arm(core, L);
    }
    core->slicing = true;
    lua_yield(L, 0);
}

void sl_slice_arm(sl_core *core, lua_State *co)
{
    const sl_meter *meter = core->current ? core->current->meter : NULL;
    if (core->raise_in_slice || core->interrupted || (meter && meter->left == 0))
        arm_after(co, 1);
    else if (meter || core->slice_end != INT64_MAX)
        arm_after(co, SLICE_INSTRUCTIONS);
    else if (lua_gethook(co) == slice_hook)
        lua_sethook(co, NULL, 0, 0);
}

void sl_slice_look(sl_core *core, lua_State *co)
{
    if (core->slice_end != INT64_MAX && lua_gethook(co) == slice_hook)
        lua_sethook(co, slice_hook, LUA_MASKCOUNT, 1);
}

void sl_slice_interrupt(sl_core *core)
{
    lua_State *running = core->running;
    if (!running)
        return;
    core->interrupted = 1;
    lua_sethook(running, slice_hook, LUA_MASKCOUNT, 1);
}

/* ---- what a suspended coroutine is suspended in ---- */

/** In a wait of ours: our mark is what it yielded, and stays on its stack. Or in our hook: a
 * coroutine that yielded by itself stands in the C function `yield`, not in a Lua function. */
static bool is_suspended_by_us(lua_State *co)
{
    if (lua_status(co) != LUA_YIELD)
        return false;
    if (lua_gettop(co) > 0 && lua_touserdata(co, -1) == (void *)sl_wait_mark)
        return true;
    lua_Debug frame;
    return lua_gethook(co) == slice_hook && lua_getstack(co, 0, &frame) &&
           lua_getinfo(co, "S", &frame) && strcmp(frame.what, "C") != 0;
}

static bool is_new(lua_State *co)
{
    lua_Debug frame;
    return lua_status(co) == LUA_OK && !lua_getstack(co, 0, &frame) && lua_gettop(co) > 0;
}

static lua_State *check_coroutine(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    return co;
}

static const char *refusal(lua_State *co, int arguments)
{
    if (is_suspended_by_us(co))
        return "cannot resume a coroutine in which a task waits";
    if (!lua_checkstack(co, arguments))
        return "too many arguments to resume";
    return NULL;
}

/* ---- resume ---- */

/** Flags of a resume, kept in the context of its continuation. */
enum {
    WRAPPED = 1,
    /** The coroutine carries our mark on its stack. */
    MARKED = 2,
};

static int resume_go_on(lua_State *L, lua_State *co, sl_scope *floor, int arguments, int flags);

/* Stack: ..., the coroutine's address, the floor inside it. */
static int resumed(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    lua_State *co = lua_touserdata(L, -2);
    sl_scope *floor = lua_touserdata(L, -1);
    lua_pop(L, 2);
    if (ctx & MARKED)
        lua_pop(co, 1);
    return resume_go_on(L, co, floor, 0, (int)ctx & WRAPPED);
}

/** Yields on what came from inside: a wait of the task, or the end of its time slice. */
static int pass_on(lua_State *L, lua_State *co, sl_scope *floor, int flags)
{
    luaL_checkstack(L, 3, NULL);
    lua_pushlightuserdata(L, co);
    lua_pushlightuserdata(L, floor);
    lua_pushlightuserdata(L, (void *)sl_wait_mark);
    return lua_yieldk(L, 1, flags, resumed);
}

static int resume_finish(lua_State *L, lua_State *co, int status, int results, int wrapped)
{
    if (status == LUA_OK || status == LUA_YIELD) {
        if (!lua_checkstack(L, results + 1)) {
            lua_pop(co, results);
            return luaL_error(L, "too many results to resume");
        }
        if (!wrapped)
            lua_pushboolean(L, 1);
        lua_xmove(co, L, results);
        return results + (wrapped ? 0 : 1);
    }
    if (!wrapped) {
        lua_xmove(co, L, 1); /* nothing where a coroutine resumes itself: it is there already */
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD)
        lua_resetthread(co); /* an error in it; else it could not be resumed, and may be running */
    lua_xmove(co, L, 1);
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int resume_go_on(lua_State *L, lua_State *co, sl_scope *floor, int arguments, int flags)
{
    int results = 0;
    sl_core *core = sl_core_find(L);
    sl_task *task = core ? core->current : NULL;
    if (!task) {
        int status = lua_resume(co, L, arguments, &results);
        return resume_finish(L, co, status, results, flags & WRAPPED);
    }
    sl_scope *outer_floor = task->floor;
    bool pins = !lua_isyieldable(L);
    task->floor = floor ? floor : task->scope;
    task->pinned += pins;
    core->running = co;
    sl_slice_arm(core, co);
    int status = lua_resume(co, L, arguments, &results);
    core->running = L;
    if (task->meter && !sl_meter_count(task->meter, RESUME_INSTRUCTIONS))
        sl_slice_arm(core, L);
    else if (pins && (core->interrupted || core->slice_end != INT64_MAX))
        slice_when_possible(L);
    sl_scope *inner_floor = task->floor;
    task->floor = outer_floor;
    task->pinned -= pins;
    if (status == LUA_YIELD && results == 0 && core->slicing)
        return pass_on(L, co, inner_floor, flags);
    if (status == LUA_YIELD && results == 1 && lua_touserdata(co, -1) == (void *)sl_wait_mark)
        return pass_on(L, co, inner_floor, flags | MARKED);
    return resume_finish(L, co, status, results, flags & WRAPPED);
}

static int l_resume(lua_State *L)
{
    lua_State *co = check_coroutine(L);
    int arguments = lua_gettop(L) - 1;
    const char *why = refusal(co, arguments);
    if (why) {
        lua_pushboolean(L, 0);
        lua_pushstring(L, why);
        return 2;
    }
    lua_xmove(L, co, arguments);
    return resume_go_on(L, co, NULL, arguments, 0);
}

/* ---- wrap, yield, close ---- */

static int l_wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int arguments = lua_gettop(L);
    const char *why = refusal(co, arguments);
    if (why)
        return luaL_error(L, "%s", why);
    bool begins = is_new(co);
    lua_xmove(L, co, arguments);
    if (begins)
        arguments++; /* f, for wrap_main */
    return resume_go_on(L, co, NULL, arguments, WRAPPED);
}

static int wrap_done(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    if (status != LUA_OK && status != LUA_YIELD)
        return lua_error(L);
    return lua_gettop(L);
}

/* Stack: f, its arguments. Protected, so that an error or a cancellation runs the <close> variables
 * of f where they can still wait, and not when the coroutine is reset. */
static int wrap_main(lua_State *L)
{
    int status = lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, wrap_done);
    return wrap_done(L, status, 0);
}

static int l_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushcfunction(co, wrap_main);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, l_wrapped, 1);
    return 1;
}

static int l_yield(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    sl_task *task = core ? core->current : NULL;
    if (task && L == task->co)
        return luaL_error(L, "attempt to yield from outside a coroutine");
    if (task && task->scope != task->floor)
        return luaL_error(L, "cannot yield out of a task.scope, task.timeout or task.shield: "
                             "return from it first");
    return lua_yield(L, lua_gettop(L));
}

/* The stock close refuses a running or normal coroutine; we refuse one in which a task waits. */
static int l_close(lua_State *L)
{
    lua_State *co = check_coroutine(L);
    if (is_suspended_by_us(co))
        return luaL_error(L, "cannot close a coroutine in which a task waits");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static const luaL_Reg coroutine_functions[] = {
    {"resume", l_resume}, {"wrap", l_wrap}, {"yield", l_yield}, {"close", l_close}, {NULL, NULL},
};

void sl_coroutine_install(lua_State *L)
{
    lua_newtable(L);
    lua_getglobal(L, "coroutine");
    for (const luaL_Reg *entry = coroutine_functions; entry->name; entry++) {
        lua_getfield(L, -1, entry->name);
        lua_pushvalue(L, -1);
        lua_setfield(L, -4, entry->name);
        lua_pushcclosure(L, entry->func, 1);
        lua_setfield(L, -2, entry->name);
    }
    lua_pop(L, 1);
}

void sl_coroutine_restore(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    lua_getglobal(L, "coroutine");
    for (const luaL_Reg *entry = coroutine_functions; entry->name; entry++) {
        lua_getfield(L, index, entry->name);
        lua_setfield(L, -2, entry->name);
    }
    lua_pop(L, 1);
}
