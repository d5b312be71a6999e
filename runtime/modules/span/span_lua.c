/* SPDX-License-Identifier: MIT */
/* The module sluice.core.span: spans, and which of them the running task works for. */
#include "span.h"

#include <string.h>
#include <strings.h>

LUAMOD_API int luaopen_sluice_core_span(lua_State *L);

/** The name of the task-local value. */
#define SPAN_LOCAL "trace"

/** Upvalues of every function here. */
enum {
    SPAN_METATABLE = 1,
    SPAN_METHODS,
    SPAN_FIELDS,
    SPAN_SEED,
    SPAN_UPVALUES = SPAN_SEED,
};

enum {
    /** More parts than this a waterfall does not show; they are exported all the same. */
    SPAN_MOST_PARTS = 256,
};

static sl_trace_span *span_at(lua_State *L, int index)
{
    sl_trace_span *self = lua_touserdata(L, index);
    if (!self || !lua_getmetatable(L, index))
        return NULL;
    bool is_span = lua_rawequal(L, -1, lua_upvalueindex(SPAN_METATABLE));
    lua_pop(L, 1);
    return is_span ? self : NULL;
}

static sl_trace_span *span_check(lua_State *L, int index)
{
    sl_trace_span *self = span_at(L, index);
    luaL_argexpected(L, self != NULL, index, "span");
    return self;
}

/* ---- ids ---- */

/** SplitMix64 from a seed that the system gives: ids must differ between programs, not be secret.
 */
static uint64_t span_random(lua_State *L)
{
    uint64_t *state = lua_touserdata(L, lua_upvalueindex(SPAN_SEED));
    *state += 0x9E3779B97F4A7C15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/** An id of zeros alone is none. */
static uint64_t span_new_id(lua_State *L)
{
    return span_random(L) | 1;
}

void sl_span_write_id(char *out, uint64_t id)
{
    for (int i = SPAN_DIGITS - 1; i >= 0; i--, id >>= 4)
        out[i] = "0123456789abcdef"[id & 15];
}

static bool span_read_digits(const char *digits, uint64_t *id)
{
    *id = 0;
    for (int i = 0; i < SPAN_DIGITS; i++) {
        char c = digits[i];
        if (c >= '0' && c <= '9')
            *id = *id << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            *id = *id << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    return true;
}

static void span_push_id(lua_State *L, uint64_t id)
{
    char digits[SPAN_DIGITS];
    sl_span_write_id(digits, id);
    lua_pushlstring(L, digits, sizeof digits);
}

static void span_push_trace(lua_State *L, const sl_trace_span *self)
{
    char digits[SPAN_TRACE_DIGITS];
    sl_span_write_id(digits, self->trace[0]);
    sl_span_write_id(digits + SPAN_DIGITS, self->trace[1]);
    lua_pushlstring(L, digits, sizeof digits);
}

/* ---- beginning ---- */

/** Arguments of start(). */
enum {
    START_NAME = 1,
    START_KIND,
    START_PARENT,
    START_EXPORTER,
    START_SAMPLED,
    START_ARGUMENTS = START_SAMPLED
};

/** Pushes one that is nobody's part yet. */
static sl_trace_span *span_new(lua_State *L)
{
    sl_trace_span *self = lua_newuserdatauv(L, sizeof *self, SPAN_VALUES);
    memset(self, 0, sizeof *self);
    self->id = span_new_id(L);
    self->kind = (int)lua_tointeger(L, START_KIND);
    self->started = (double)sl_now_running(L) / 1e6;
    self->duration = -1;
    lua_pushvalue(L, START_NAME);
    lua_setiuservalue(L, -2, SPAN_NAME);
    lua_pushvalue(L, lua_upvalueindex(SPAN_METATABLE));
    lua_setmetatable(L, -2);
    return self;
}

/** Reads a field of `digits` hexadecimal digits from the context of who called. */
static void span_read_id(lua_State *L, const char *field, uint64_t *ids, size_t count)
{
    size_t length;
    lua_getfield(L, START_PARENT, field);
    const char *digits = lua_tolstring(L, -1, &length);
    bool is_good = digits && length == count * SPAN_DIGITS;
    for (size_t i = 0; is_good && i < count; i++)
        is_good = span_read_digits(digits + i * SPAN_DIGITS, &ids[i]);
    if (!is_good)
        luaL_error(L, "a context of a trace needs \"%s\", %d hexadecimal digits", field,
                   (int)(count * SPAN_DIGITS));
    lua_pop(L, 1);
}

/** The new span at the top belongs to who called. */
static void span_take_caller(lua_State *L, sl_trace_span *self)
{
    span_read_id(L, "trace_id", self->trace, 2);
    span_read_id(L, "span_id", &self->parent, 1);
    lua_getfield(L, START_PARENT, "sampled");
    self->is_sampled = lua_toboolean(L, -1);
    lua_pop(L, 1);
    lua_getfield(L, START_PARENT, "state");
    lua_setiuservalue(L, -2, SPAN_STATE);
}

static int span_start_root(lua_State *L)
{
    sl_trace_span *self = span_new(L);
    self->started_at = sl_wall_running(L);
    if (lua_isnil(L, START_PARENT)) {
        self->trace[0] = span_random(L);
        self->trace[1] = span_new_id(L);
        self->is_sampled = lua_isnil(L, START_SAMPLED) || lua_toboolean(L, START_SAMPLED);
    } else {
        span_take_caller(L, self);
    }
    lua_pushvalue(L, START_EXPORTER);
    lua_setiuservalue(L, -2, SPAN_EXPORTER);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, -2, SPAN_ROOT);
    return 1;
}

/** The new span at the top becomes a part of the root below it. */
static void span_add_part(lua_State *L, sl_trace_span *root)
{
    if (root->parts == SPAN_MOST_PARTS)
        return;
    if (lua_getiuservalue(L, -2, SPAN_PARTS) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_createtable(L, 4, 0);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, -4, SPAN_PARTS);
    }
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, ++root->parts);
    lua_pop(L, 1);
}

static int span_start_part(lua_State *L, const sl_trace_span *parent)
{
    lua_getiuservalue(L, START_PARENT, SPAN_ROOT);
    sl_trace_span *self = span_new(L);
    self->trace[0] = parent->trace[0];
    self->trace[1] = parent->trace[1];
    self->parent = parent->id;
    self->is_sampled = parent->is_sampled;
    lua_getiuservalue(L, START_PARENT, SPAN_STATE);
    lua_setiuservalue(L, -2, SPAN_STATE);
    if (lua_isnil(L, START_EXPORTER))
        lua_getiuservalue(L, START_PARENT, SPAN_EXPORTER);
    else
        lua_pushvalue(L, START_EXPORTER);
    lua_setiuservalue(L, -2, SPAN_EXPORTER);
    lua_pushvalue(L, -2);
    lua_setiuservalue(L, -2, SPAN_ROOT);
    if (self->is_sampled)
        span_add_part(L, lua_touserdata(L, -2));
    return 1;
}

/* start(name, kind [, parent [, exporter [, sampled]]]) -> span */
static int l_span_start(lua_State *L)
{
    luaL_checktype(L, START_NAME, LUA_TSTRING);
    luaL_checkinteger(L, START_KIND);
    lua_settop(L, START_ARGUMENTS);
    const sl_trace_span *parent = span_at(L, START_PARENT);
    return parent ? span_start_part(L, parent) : span_start_root(L);
}

/* inside(name, kind) -> span | nil: a part of what the task works for, where that is recorded */
static int l_span_inside(lua_State *L)
{
    luaL_checktype(L, START_NAME, LUA_TSTRING);
    luaL_checkinteger(L, START_KIND);
    lua_settop(L, START_KIND);
    sl_local_push(L, SPAN_LOCAL);
    const sl_trace_span *parent = span_at(L, START_PARENT);
    if (!parent || !parent->is_sampled)
        return 0;
    lua_settop(L, START_ARGUMENTS);
    return span_start_part(L, parent);
}

/* ---- the task that works for it ---- */

/* enter(span) -> span */
static int l_span_enter(lua_State *L)
{
    sl_trace_span *self = span_check(L, 1);
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    sl_local_replace(L, SPAN_LOCAL);
    lua_setiuservalue(L, 1, SPAN_BEFORE);
    self->is_entered = true;
    return 1;
}

static void span_leave(lua_State *L, sl_trace_span *self)
{
    if (!self->is_entered)
        return;
    self->is_entered = false;
    lua_getiuservalue(L, 1, SPAN_BEFORE);
    sl_local_replace(L, SPAN_LOCAL);
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setiuservalue(L, 1, SPAN_BEFORE);
}

/* leave(span) */
static int l_span_leave(lua_State *L)
{
    span_leave(L, span_check(L, 1));
    return 0;
}

/* finish(span): leaves, and the first time hands the span to its exporter */
static int l_span_finish(lua_State *L)
{
    sl_trace_span *self = span_check(L, 1);
    lua_settop(L, 1);
    span_leave(L, self);
    if (self->duration >= 0)
        return 0;
    double seconds = (double)sl_now_running(L) / 1e6 - self->started;
    self->duration = seconds > 0 ? seconds : 0;
    if (!self->is_sampled || lua_getiuservalue(L, 1, SPAN_EXPORTER) == LUA_TNIL)
        return 0;
    lua_getfield(L, -1, "export");
    lua_insert(L, -2);
    lua_pushvalue(L, 1);
    lua_call(L, 2, 0);
    return 0;
}

/* ---- telling others ---- */

/** Pushes the traceparent of a span, or of who called: the value at `index`. */
static void span_push_header(lua_State *L, int index)
{
    const sl_trace_span *self = span_at(L, index);
    if (!self) {
        lua_getfield(L, index, "trace_id");
        lua_getfield(L, index, "span_id");
        lua_getfield(L, index, "sampled");
        lua_pushfstring(L, "00-%s-%s-%s", luaL_checkstring(L, -3), luaL_checkstring(L, -2),
                        lua_toboolean(L, -1) ? "01" : "00");
        lua_replace(L, -4);
        lua_pop(L, 2);
        return;
    }
    char text[] = "00-00000000000000000000000000000000-0000000000000000-00";
    sl_span_write_id(text + 3, self->trace[0]);
    sl_span_write_id(text + 3 + SPAN_DIGITS, self->trace[1]);
    sl_span_write_id(text + 4 + SPAN_TRACE_DIGITS, self->id);
    if (self->is_sampled)
        text[sizeof text - 2] = '1';
    lua_pushlstring(L, text, sizeof text - 1);
}

/* header(context) -> text: traceparent */
static int l_span_header(lua_State *L)
{
    luaL_checkany(L, 1);
    span_push_header(L, 1);
    return 1;
}

/** Whether the name at the top is traceparent, and pops it. */
static bool span_is_traceparent(lua_State *L)
{
    static const char wanted[] = "traceparent";
    size_t length;
    const char *name = lua_tolstring(L, -1, &length);
    bool is_it = name && length == sizeof wanted - 1 && strncasecmp(name, wanted, length) == 0;
    lua_pop(L, 1);
    return is_it;
}

/*
 * carry(fields, context) -> fields: name, value, name, value, ... with traceparent and tracestate
 * in a copy; the same where somebody has set a traceparent.
 */
static int l_span_carry(lua_State *L)
{
    enum { FIELDS = 1, CONTEXT, COPY };
    luaL_checktype(L, FIELDS, LUA_TTABLE);
    lua_settop(L, CONTEXT);
    lua_Integer count = (lua_Integer)lua_rawlen(L, FIELDS);
    for (lua_Integer i = 1; i <= count; i += 2) {
        lua_rawgeti(L, FIELDS, i);
        if (span_is_traceparent(L)) {
            lua_settop(L, FIELDS);
            return 1;
        }
    }
    lua_createtable(L, (int)count + 4, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, FIELDS, i);
        lua_rawseti(L, COPY, i);
    }
    lua_pushliteral(L, "traceparent");
    lua_rawseti(L, COPY, count + 1);
    span_push_header(L, CONTEXT);
    lua_rawseti(L, COPY, count + 2);
    if (lua_getfield(L, CONTEXT, "state") == LUA_TSTRING) {
        lua_pushliteral(L, "tracestate");
        lua_rawseti(L, COPY, count + 3);
        lua_rawseti(L, COPY, count + 4);
    }
    lua_settop(L, COPY);
    return 1;
}

/* json(span, rest_of, value_of) -> text */
static int l_span_json(lua_State *L)
{
    return sl_span_json(L, span_check(L, 1));
}

/* ---- fields ---- */

typedef enum sl_span_field {
    FIELD_TRACE_ID = 1,
    FIELD_SPAN_ID,
    FIELD_PARENT_ID,
    FIELD_SAMPLED,
    FIELD_STATE,
    FIELD_NAME,
    FIELD_KIND,
    FIELD_STARTED,
    FIELD_STARTED_AT,
    FIELD_DURATION,
    FIELD_ATTRIBUTES,
    FIELD_ROOT,
    FIELD_PARTS,
} sl_span_field;

static const char *const span_field_names[] = {
    [FIELD_TRACE_ID] = "trace_id",
    [FIELD_SPAN_ID] = "span_id",
    [FIELD_PARENT_ID] = "parent_id",
    [FIELD_SAMPLED] = "sampled",
    [FIELD_STATE] = "state",
    [FIELD_NAME] = "name",
    [FIELD_KIND] = "kind",
    [FIELD_STARTED] = "started",
    [FIELD_STARTED_AT] = "started_at",
    [FIELD_DURATION] = "duration",
    [FIELD_ATTRIBUTES] = "attributes",
    [FIELD_ROOT] = "root",
    [FIELD_PARTS] = "parts",
};

/** The user values that are fields as they are. */
static const int span_field_values[FIELD_PARTS + 1] = {
    [FIELD_STATE] = SPAN_STATE, [FIELD_NAME] = SPAN_NAME,   [FIELD_ATTRIBUTES] = SPAN_ATTRIBUTES,
    [FIELD_ROOT] = SPAN_ROOT,   [FIELD_PARTS] = SPAN_PARTS,
};

/** Which field the key at index 2 names; 0: none of these. */
static sl_span_field span_field(lua_State *L)
{
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(SPAN_FIELDS));
    sl_span_field field = (sl_span_field)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return field;
}

static void span_push_seconds(lua_State *L, double seconds, bool is_known)
{
    if (is_known)
        lua_pushnumber(L, seconds);
    else
        lua_pushnil(L);
}

/** Pushes what is noted under the key at index 2. */
static int span_push_noted(lua_State *L)
{
    if (lua_getiuservalue(L, 1, SPAN_REST) == LUA_TNIL)
        return 1;
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return 1;
}

static int span_push_field(lua_State *L, const sl_trace_span *self, sl_span_field field)
{
    switch (field) {
    case FIELD_TRACE_ID:
        span_push_trace(L, self);
        return 1;
    case FIELD_SPAN_ID:
        span_push_id(L, self->id);
        return 1;
    case FIELD_PARENT_ID:
        if (self->parent)
            span_push_id(L, self->parent);
        else
            lua_pushnil(L);
        return 1;
    case FIELD_SAMPLED:
        lua_pushboolean(L, self->is_sampled);
        return 1;
    case FIELD_KIND:
        lua_pushinteger(L, self->kind);
        return 1;
    case FIELD_STARTED:
        lua_pushnumber(L, self->started);
        return 1;
    case FIELD_STARTED_AT:
        span_push_seconds(L, self->started_at, self->started_at > 0);
        return 1;
    case FIELD_DURATION:
        span_push_seconds(L, self->duration, self->duration >= 0);
        return 1;
    default:
        break;
    }
    if (!span_field_values[field])
        return span_push_noted(L);
    lua_getiuservalue(L, 1, span_field_values[field]);
    return 1;
}

static int l_span_index(lua_State *L)
{
    const sl_trace_span *self = span_check(L, 1);
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(SPAN_METHODS)) != LUA_TNIL)
        return 1;
    return span_push_field(L, self, span_field(L));
}

/** Notes the value at index 3 under the key at index 2. */
static void span_note(lua_State *L)
{
    if (lua_getiuservalue(L, 1, SPAN_REST) == LUA_TNIL) {
        lua_createtable(L, 0, 2);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, 1, SPAN_REST);
    }
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_rawset(L, -3);
}

static int l_span_newindex(lua_State *L)
{
    sl_trace_span *self = span_check(L, 1);
    lua_settop(L, 3);
    sl_span_field field = span_field(L);
    if (field == FIELD_NAME) {
        luaL_checktype(L, 3, LUA_TSTRING);
        lua_setiuservalue(L, 1, SPAN_NAME);
    } else if (field == FIELD_ATTRIBUTES) {
        luaL_checktype(L, 3, LUA_TTABLE);
        lua_setiuservalue(L, 1, SPAN_ATTRIBUTES);
    } else if (field == FIELD_STARTED) {
        self->started = luaL_checknumber(L, 3);
    } else if (field) {
        return luaL_error(L, "the field \"%s\" of a span cannot be set", span_field_names[field]);
    } else {
        span_note(L);
    }
    return 0;
}

/* ---- the module ---- */

static const luaL_Reg span_functions[] = {
    {"start", l_span_start}, {"inside", l_span_inside}, {"enter", l_span_enter},
    {"leave", l_span_leave}, {"finish", l_span_finish}, {"header", l_span_header},
    {"carry", l_span_carry}, {"json", l_span_json},     {NULL, NULL},
};

static const luaL_Reg span_metamethods[] = {
    {"__index", l_span_index},
    {"__newindex", l_span_newindex},
    {NULL, NULL},
};

/** Pushes the upvalues: the metatable, its methods, the fields by name, the state of the ids. */
static void span_push_upvalues(lua_State *L, lua_Integer seed)
{
    lua_newtable(L);
    lua_newtable(L);
    lua_newtable(L);
    for (int i = FIELD_TRACE_ID; i <= FIELD_PARTS; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, span_field_names[i]);
    }
    uint64_t *state = lua_newuserdatauv(L, sizeof *state, 0);
    *state = (uint64_t)seed;
}

/** Adds functions to the table at `index`; the upvalues are at 2 and above. */
static void span_register(lua_State *L, int index, const luaL_Reg *functions)
{
    lua_pushvalue(L, index);
    for (int i = 1; i <= SPAN_UPVALUES; i++)
        lua_pushvalue(L, 1 + i);
    luaL_setfuncs(L, functions, SPAN_UPVALUES);
    lua_pop(L, 1);
}

/*
 * make(seed) -> functions, metatable, methods. Spans look into the last two, whose owner fills
 * them.
 */
static int l_span_make(lua_State *L)
{
    lua_Integer seed = luaL_checkinteger(L, 1);
    lua_settop(L, 0);
    luaL_newlibtable(L, span_functions);
    span_push_upvalues(L, seed);
    span_register(L, 1, span_functions);
    span_register(L, 1 + SPAN_METATABLE, span_metamethods);
    lua_settop(L, 1 + SPAN_METHODS);
    return 3;
}

int luaopen_sluice_core_span(lua_State *L)
{
    lua_newtable(L);
    lua_pushcfunction(L, l_span_make);
    lua_setfield(L, -2, "make");
    return 1;
}
