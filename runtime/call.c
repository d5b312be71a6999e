/* SPDX-License-Identifier: MIT */
/*
 * Functions of the host's that Lua calls and waits for, and the calls that are open.
 *
 * A call is a userdata on the stack of the coroutine that waits in it. The host knows it by a
 * number only: a place in the table of the instance, and how often that place was used before.
 */
#include "instance.h"
#include "modules/json/json.h"

#include <string.h>

enum {
    CALL_PLACES_FIRST = 16,
    CALL_PLACES_MOST = 1 << 24,
};

static const char call_type[] = "sluice.host_call";

/** A registered function: a userdata, kept by the instance, upvalue of what Lua calls. */
struct sl_function {
    /** NULL: the instance is gone. */
    sluice *s;
    sl_function *next;
    sluice_function function;
    sluice_call_cancelled cancelled;
    void *user;
    /** "host.NAME". */
    char what[];
};

enum call_state {
    /** The host does not know of it yet. */
    CALL_NEW,
    CALL_OPEN,
    CALL_COMPLETED,
    CALL_FAILED,
};

typedef struct host_call {
    /** NULL: closed. */
    sluice *s;
    const sl_function *function;
    /** Who waits; NULL while the host's function runs. */
    sl_task *task;
    /** Its place; 0: none. */
    sluice_call number;
    /** What the host is given, and what it gave: a JSON text, or kind, NUL, message. */
    sl_json_buffer arguments, answer;
    size_t kind_length;
    enum call_state state;
} host_call;

/** Where a call is until it is closed. */
struct sl_place {
    host_call *call;
    uint32_t uses, next_free;
};

/* ---- places ---- */

static bool add_places(sl_calls *calls, sl_core *core)
{
    uint32_t size = calls->size ? calls->size * 2 : CALL_PLACES_FIRST;
    sl_place *places =
        size <= CALL_PLACES_MOST ? sl_realloc(core, calls->places, size * sizeof *places) : NULL;
    if (!places)
        return false;
    for (uint32_t i = size; i > calls->size; i--) {
        places[i - 1] = (sl_place){.next_free = calls->free};
        calls->free = i;
    }
    calls->places = places;
    calls->size = size;
    return true;
}

static bool take_place(sluice *s, host_call *call)
{
    sl_calls *calls = &s->calls;
    if (calls->free == 0 && !add_places(calls, s->core))
        return false;
    uint32_t at = calls->free;
    sl_place *place = &calls->places[at - 1];
    calls->free = place->next_free;
    place->call = call;
    call->number = (sluice_call)place->uses << 32 | at;
    return true;
}

static void leave_place(host_call *call)
{
    if (call->number == 0)
        return;
    sl_calls *calls = &call->s->calls;
    uint32_t at = (uint32_t)call->number;
    sl_place *place = &calls->places[at - 1];
    *place = (sl_place){.uses = place->uses + 1, .next_free = calls->free};
    calls->free = at;
    call->number = 0;
}

static host_call *find_call(const sluice *s, sluice_call number)
{
    uint32_t at = (uint32_t)number;
    if (at == 0 || at > s->calls.size)
        return NULL;
    const sl_place *place = &s->calls.places[at - 1];
    return place->uses == number >> 32 ? place->call : NULL;
}

/* ---- the life of a call ---- */

static void close_call(host_call *call)
{
    if (!call->s)
        return;
    if (call->state == CALL_OPEN)
        call->s->core->outside--;
    leave_place(call);
    sl_json_buffer_fini(&call->arguments);
    sl_json_buffer_fini(&call->answer);
    call->task = NULL;
    call->s = NULL;
}

static int l_host_call_gc(lua_State *L)
{
    close_call(luaL_checkudata(L, 1, call_type));
    return 0;
}

/** The task is cancelled, or late, or abandoned; or the instance goes. */
static void cancel_call(sl_task *task, void *object)
{
    host_call *call = object;
    const sl_function *function = call->function;
    sluice_call number = call->number;
    bool is_open = call->s && call->state == CALL_OPEN;
    (void)task;
    close_call(call);
    if (is_open && function->cancelled)
        function->cancelled(function->user, number);
}

static host_call *push_call(lua_State *L, const sl_function *function)
{
    host_call *call = lua_newuserdatauv(L, sizeof *call, 0);
    *call = (host_call){.function = function};
    luaL_setmetatable(L, call_type);
    sl_json_buffer_init(&call->arguments, sl_instance_allocate, function->s);
    sl_json_buffer_init(&call->answer, sl_instance_allocate, function->s);
    call->s = function->s;
    if (!take_place(function->s, call))
        luaL_error(L, "%s: not enough memory, or too many calls", function->what);
    return call;
}

/* ---- what Lua calls ---- */

static void append(lua_State *L, sl_json_buffer *out, char byte)
{
    char *room = sl_json_reserve(out, 1);
    if (!room)
        luaL_error(L, "not enough memory");
    else
        *room = byte;
    out->length++;
}

/** The values at 1 to `count` as a JSON array, with a NUL behind it. */
static void write_arguments(lua_State *L, host_call *call, int count)
{
    sl_json_buffer *out = &call->arguments;
    append(L, out, '[');
    for (int i = 1; i <= count; i++) {
        if (i > 1)
            append(L, out, ',');
        if (sl_json_encode(L, i, NULL, out) < 0)
            luaL_error(L, "%s: argument %d: %s", call->function->what, i, lua_tostring(L, -1));
    }
    append(L, out, ']');
    append(L, out, '\0');
    out->length--;
}

static int push_call_failure(lua_State *L, const char *what, const char *kind, const char *message)
{
    lua_pushnil(L);
    sl_error_push(L, kind, "%s", "");
    lua_pushfstring(L, "%s: %s", what, message);
    lua_setfield(L, -2, "message");
    return 2;
}

/* Stack: the call. Upvalue 2: decode. */
static int call_answered(lua_State *L, int status, lua_KContext ctx)
{
    host_call *call = lua_touserdata(L, 1);
    const char *what = call->function->what;
    (void)status;
    (void)ctx;
    bool is_empty = call->answer.length == 0;
    const char *text = is_empty ? "" : call->answer.data;
    if (call->state == CALL_FAILED) {
        push_call_failure(L, what, is_empty ? "HostError" : text,
                          is_empty ? "no message given" : text + call->kind_length + 1);
        close_call(call);
        return 2;
    }
    if (is_empty) {
        close_call(call);
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_pushlstring(L, text, call->answer.length);
    close_call(call);
    lua_call(L, 1, 2);
    if (!lua_isnil(L, -2)) {
        lua_pop(L, 1);
        return 1;
    }
    lua_pushfstring(L, "the answer of the host is not JSON: %s", lua_tostring(L, -1));
    return push_call_failure(L, what, "HostError", lua_tostring(L, -1));
}

/* Upvalues: the function, decode. */
static int l_host_function(lua_State *L)
{
    const sl_function *function = lua_touserdata(L, lua_upvalueindex(1));
    sluice *s = function->s;
    if (!s)
        return luaL_error(L, "%s: the instance that it belongs to is gone", function->what);
    sl_wait_check(L);
    sl_task *task = s->core->current;
    if (task->clock->simulated)
        return luaL_error(L, "%s needs real time: the host does not know of simulated time",
                          function->what);
    int count = lua_gettop(L);
    luaL_checkstack(L, SL_STACK_NEEDED, NULL);
    host_call *call = push_call(L, function);
    write_arguments(L, call, count);
    lua_insert(L, 1);
    lua_settop(L, 1);
    call->state = CALL_OPEN;
    s->core->outside++;
    function->function(function->user, call->number, call->arguments.data, call->arguments.length);
    sl_json_buffer_fini(&call->arguments);
    if (call->state != CALL_OPEN)
        return call_answered(L, LUA_OK, 0);
    call->task = task;
    /* without a second look at what is pending, which might raise with the call open */
    return sl_wait_checked(L, function->what, cancel_call, call, 0, call_answered);
}

/* ---- registering ---- */

/** What l_register needs. */
typedef struct register_call {
    sluice *s;
    const char *name;
    sluice_function function;
    sluice_call_cancelled cancelled;
    void *user;
} register_call;

int luaopen_sluice_core_host(lua_State *L)
{
    lua_newtable(L);
    return 1;
}

/* Stack: the register_call, the table of the instance in the registry, the functions. */
static sl_function *push_function(lua_State *L, const register_call *given)
{
    static const char prefix[] = "host.";
    size_t size = sizeof prefix + strlen(given->name);
    sl_function *function = lua_newuserdatauv(L, sizeof *function + size, 0);
    function->s = given->s;
    function->function = given->function;
    function->cancelled = given->cancelled;
    function->user = given->user;
    memcpy(function->what, prefix, sizeof prefix - 1);
    memcpy(function->what + sizeof prefix - 1, given->name, size - sizeof prefix + 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, 2, function);
    return function;
}

static int l_register(lua_State *L)
{
    register_call *given = lua_touserdata(L, 1);
    sluice *s = given->s;
    if (luaL_newmetatable(L, call_type)) {
        lua_pushcfunction(L, l_host_call_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushliteral(L, "sluice.host_call");
        lua_setfield(L, -2, "__metatable");
    }
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, s);
    luaL_requiref(L, "sluice.core.host", luaopen_sluice_core_host, 0);
    sl_function *function = push_function(L, given);
    luaL_requiref(L, "sluice.core.json", luaopen_sluice_core_json, 0);
    lua_getfield(L, -1, "decode");
    lua_remove(L, -2);
    lua_pushcclosure(L, l_host_function, 2);
    lua_setfield(L, 3, given->name);
    function->next = s->functions;
    s->functions = function;
    return 0;
}

static sl_function *find_function(const sluice *s, const char *name)
{
    sl_function *function = s->functions;
    while (function && strcmp(strchr(function->what, '.') + 1, name) != 0)
        function = function->next;
    return function;
}

int sluice_register(sluice *s, const char *name, sluice_function function,
                    sluice_call_cancelled cancelled, void *user)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    register_call call = {s, name, function, cancelled, user};
    sl_function *known = name ? find_function(s, name) : NULL;
    if (!name || !*name || !function) {
        status = SLUICE_EINVAL;
    } else if (known) {
        known->function = function;
        known->cancelled = cancelled;
        known->user = user;
    } else {
        lua_pushcfunction(s->L, l_register);
        lua_pushlightuserdata(s->L, &call);
        if (lua_pcall(s->L, 1, 0, 0) != LUA_OK) {
            sl_instance_tell_error(s);
            status = SLUICE_ENOMEM;
        }
    }
    sl_instance_leave(s);
    return status;
}

/* ---- ending a call ---- */

static int end_call(sluice *s, host_call *call, enum call_state state)
{
    call->state = state;
    s->core->outside--;
    if (call->task)
        sl_wake(call->task);
    if (call->task && !s->busy)
        sl_instance_announce_due(s);
    return SLUICE_OK;
}

/** SLUICE_OK and the call, 1 where it has ended, or an error. */
static int open_call(const sluice *s, sluice_call number, host_call **call)
{
    if (!sl_instance_is_here(s))
        return SLUICE_ETHREAD;
    if (number == 0)
        return SLUICE_EINVAL;
    *call = find_call(s, number);
    return *call && (*call)->state == CALL_OPEN ? SLUICE_OK : 1;
}

int sluice_complete(sluice *s, sluice_call call, const char *json, size_t len)
{
    host_call *open = NULL;
    int status = open_call(s, call, &open);
    if (status != SLUICE_OK)
        return status;
    if (json) {
        char *room = sl_json_reserve(&open->answer, len + 1);
        if (!room)
            return SLUICE_ENOMEM;
        memcpy(room, json, len);
        room[len] = '\n'; /* an empty text is no JSON, and not the same as none */
        open->answer.length = len + 1;
    }
    return end_call(s, open, CALL_COMPLETED);
}

int sluice_fail(sluice *s, sluice_call call, const char *kind, const char *message)
{
    host_call *open = NULL;
    int status = open_call(s, call, &open);
    if (status != SLUICE_OK)
        return status;
    if (!kind && !message)
        return end_call(s, open, CALL_FAILED); /* needs no memory */
    if (!kind)
        kind = "HostError";
    if (!message)
        message = "no message given";
    size_t kind_length = strlen(kind), length = kind_length + strlen(message) + 2;
    char *room = sl_json_reserve(&open->answer, length);
    if (!room)
        return SLUICE_ENOMEM;
    memcpy(room, kind, kind_length + 1);
    memcpy(room + kind_length + 1, message, length - kind_length - 1);
    open->kind_length = kind_length;
    open->answer.length = length;
    return end_call(s, open, CALL_FAILED);
}

/* ---- the end of the instance ---- */

void sl_calls_close(sluice *s)
{
    for (uint32_t i = 0; i < s->calls.size; i++)
        if (s->calls.places[i].call)
            cancel_call(NULL, s->calls.places[i].call);
    sl_free(s->core, s->calls.places);
    s->calls = (sl_calls){NULL, 0, 0};
    for (sl_function *function = s->functions; function; function = function->next)
        function->s = NULL;
}

void sl_functions_remove(lua_State *L, sluice *s)
{
    luaL_requiref(L, "sluice.core.host", luaopen_sluice_core_host, 0);
    for (sl_function *function = s->functions; function; function = function->next) {
        lua_pushnil(L);
        lua_setfield(L, -2, strchr(function->what, '.') + 1);
    }
    s->functions = NULL;
    lua_pop(L, 1);
}
