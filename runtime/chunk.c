/* SPDX-License-Identifier: MIT */
/* Chunks that a host spawns: started, cancelled, and their ends told. */
#include "instance.h"
#include "modules/json/json.h"

#include <limits.h>
#include <string.h>

struct sl_chunk {
    sl_chunk *next;
    sl_task *task;
    /** Keeps the task's handle in the registry. */
    int ref;
    sluice_done done;
    void *user;
    /** The reason of sluice_cancel: the task and its children point to it. */
    char *reason;
    /** What `done` was told: it is the host's until the next pump. */
    sl_json_buffer text;
    int status;
};

/* ---- spawning ---- */

void *sl_instance_allocate(void *user, void *block, size_t old_size, size_t size)
{
    const sluice *s = user;
    (void)old_size;
    /* a small value that holds itself many times over is a long text */
    if (s->options.memory_limit && size > s->options.memory_limit)
        return NULL;
    return s->options.allocator(s->options.allocator_user, block, size);
}

/** What l_spawn needs, and gives back. */
typedef struct spawn_call {
    sluice *s;
    const char *name, *chunk;
    size_t len;
    sl_chunk *row;
    int status;
} spawn_call;

/* What may fail comes before the task: a task that was spawned is told of. */
static int l_spawn(lua_State *L)
{
    spawn_call *call = lua_touserdata(L, 1);
    const sluice_options *options = &call->s->options;
    lua_settop(L, 0);
    lua_pushboolean(L, 1);
    call->row->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    bool bytecode = (options->capabilities & SLUICE_CAN_READ_FILES) && !options->untrusted;
    const char *mode = bytecode ? "bt" : "t";
    int status = luaL_loadbufferx(L, call->chunk, call->len, call->name, mode);
    if (status != LUA_OK) {
        call->status = status == LUA_ERRSYNTAX ? SLUICE_ESYNTAX : SLUICE_ENOMEM;
        return lua_error(L);
    }
    luaL_checkstack(L, options->argc + SL_STACK_NEEDED, NULL);
    for (int i = 0; i < options->argc; i++)
        lua_pushstring(L, options->argv[i]);
    sl_core *core = call->s->core;
    call->row->task = sl_task_spawn(L, core, &core->root);
    call->row->task->observed = true;
    lua_rawseti(L, LUA_REGISTRYINDEX, call->row->ref);
    return 0;
}

static void free_chunk(sluice *s, sl_chunk *row)
{
    luaL_unref(s->L, LUA_REGISTRYINDEX, row->ref);
    sl_json_buffer_fini(&row->text);
    sl_free(s->core, row->reason);
    sl_free(s->core, row);
}

static int start_chunk(sluice *s, spawn_call *call)
{
    sl_chunk *row = call->row;
    lua_pushcfunction(s->L, l_spawn);
    lua_pushlightuserdata(s->L, call);
    if (lua_pcall(s->L, 1, 0, 0) != LUA_OK) {
        sl_instance_tell_error(s);
        free_chunk(s, row);
        sl_instance_leave(s);
        return call->status;
    }
    row->next = s->chunks;
    s->chunks = row;
    int number = (int)(row->task->base.serial & INT_MAX);
    sl_instance_announce_due(s);
    sl_instance_leave(s);
    return number;
}

int sluice_spawn(sluice *s, const char *name, const char *chunk, size_t len, sluice_done done,
                 void *user)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    sl_chunk *row = sl_alloc_array(s->core, 1, sizeof *row);
    if (!row) {
        sl_instance_leave(s);
        return SLUICE_ENOMEM;
    }
    row->ref = LUA_NOREF;
    row->done = done;
    row->user = user;
    sl_json_buffer_init(&row->text, sl_instance_allocate, s);
    spawn_call call = {s, name, chunk, len, row, SLUICE_ENOMEM};
    return start_chunk(s, &call);
}

/** The reason outlives the call in a copy of ours. */
static const char *keep_reason(sluice *s, sl_chunk *row, const char *reason)
{
    if (!reason)
        return "no reason given";
    size_t size = strlen(reason) + 1;
    row->reason = sl_alloc(s->core, size);
    if (!row->reason)
        return "cancelled by the host";
    return memcpy(row->reason, reason, size);
}

int sluice_cancel(sluice *s, int task, const char *reason)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    for (sl_chunk *row = s->chunks; row; row = row->next)
        if ((int)(row->task->base.serial & INT_MAX) == task && !row->task->base.cancelled)
            sl_task_cancel(row->task, keep_reason(s, row, reason));
    sl_instance_announce_due(s);
    sl_instance_leave(s);
    return SLUICE_OK;
}

/* ---- telling the ends ---- */

/** Makes it the text that the host is told; false without memory. */
static bool set_text(sl_chunk *row, const char *text, size_t len)
{
    row->text.length = 0;
    char *room = sl_json_reserve(&row->text, len);
    if (!room)
        return false;
    memcpy(room, text, len);
    row->text.length = len;
    return true;
}

/** A task that was cancelled may still end as it likes: what counts is the error that came out. */
static int end_status(lua_State *L, const sl_task *task, int result)
{
    if (task->core->exiting)
        return SLUICE_EEXIT;
    if (!task->failed)
        return SLUICE_OK;
    if (task->exhausted)
        return SLUICE_ELIMIT;
    return sl_error_origin(L, result) == task->base.serial ? SLUICE_ECANCELLED : SLUICE_ESCRIPT;
}

/* Stack: the handle, the row. Sets the status; leaves the text, or nothing where the row has it. */
static int l_end_text(lua_State *L)
{
    sl_chunk *row = lua_touserdata(L, 2);
    const sl_task *task = row->task;
    lua_getiuservalue(L, 1, 1);
    row->status = end_status(L, task, 3);
    if (row->status == SLUICE_EEXIT) {
        lua_pushfstring(L, "%d", task->core->exit_status);
        return 1;
    }
    if (task->failed && task->results == 0)
        return luaL_error(L, "not enough memory");
    if (task->failed) {
        sl_push_error_text(L, 3);
        return 1;
    }
    if (task->results > 1)
        lua_rawgeti(L, 3, 1);
    if (sl_json_encode(L, -1, NULL, &row->text) < 0)
        return luaL_error(L, "the result of the chunk: %s", lua_tostring(L, -1));
    lua_pushnil(L);
    return 1;
}

/** Writes status and text to the row; false where there is no memory for the text. */
static bool describe_end(sluice *s, sl_chunk *row)
{
    lua_State *L = s->L;
    if (row->task->state != SL_TASK_ENDED) {
        static const char text[] = "the instance was deleted before the task had unwound";
        row->status = SLUICE_ECANCELLED;
        return set_text(row, text, sizeof text - 1);
    }
    row->status = SLUICE_ESCRIPT;
    lua_pushcfunction(L, l_end_text);
    lua_rawgeti(L, LUA_REGISTRYINDEX, row->ref);
    lua_pushlightuserdata(L, row);
    if (sl_call_briefly(L, 2, 1) != LUA_OK && row->status == SLUICE_OK)
        row->status = SLUICE_ESCRIPT;
    bool written = true;
    if (!lua_isnil(L, -1)) {
        size_t len = 0;
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
        written = text && set_text(row, text, len);
    }
    lua_pop(L, 1);
    return written;
}

static void tell_end(sluice *s, sl_chunk *row)
{
    static const char no_memory[] = "not enough memory";
    char *end = describe_end(s, row) ? sl_json_reserve(&row->text, 1) : NULL;
    if (end)
        *end = '\0';
    if (row->done && end)
        row->done(row->user, row->status, row->text.data, row->text.length);
    else if (row->done)
        row->done(row->user, row->status, no_memory, sizeof no_memory - 1);
    row->next = s->told;
    s->told = row;
}

void sl_chunks_forget_told(sluice *s)
{
    while (s->told) {
        sl_chunk *row = s->told;
        s->told = row->next;
        free_chunk(s, row);
    }
}

void sl_chunks_tell(sluice *s, bool all)
{
    sl_chunk **link = &s->chunks;
    while (*link) {
        sl_chunk *row = *link;
        if (!all && row->task->state != SL_TASK_ENDED) {
            link = &row->next;
            continue;
        }
        *link = row->next;
        tell_end(s, row);
    }
}
