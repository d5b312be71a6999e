/* SPDX-License-Identifier: MIT */
/* string.find, match, gmatch, gsub over the bounded matcher, for scripts of strangers. */
#include "sandbox.h"

#include "core/core.h"
#include "pattern.h"

#include <string.h>

enum {
    /* Steps of one call: what a call may hold up a frame. About 3 ns each. */
    STEPS_OF_A_CALL = 200000,
    STEPS_OF_A_BYTE = 32,
};

/** Of the subject at 1 and the pattern at 2, which stay on the stack. */
static sl_pattern begin_pattern(lua_State *L)
{
    sl_pattern self = {.count = 0};
    size_t subject, pattern;
    self.subject = luaL_checklstring(L, 1, &subject);
    self.subject_end = self.subject + subject;
    self.pattern = luaL_checklstring(L, 2, &pattern);
    self.pattern_end = self.pattern + pattern;
    self.steps = STEPS_OF_A_CALL + STEPS_OF_A_BYTE * (uint64_t)subject;
    return self;
}

/** Without the '^' that holds it to the place where it begins. */
static bool take_anchor(sl_pattern *self)
{
    bool anchored = self->pattern < self->pattern_end && *self->pattern == '^';
    self->pattern += anchored;
    return anchored;
}

/** A match, counted as instructions; raises what is wrong. */
static const char *match_at(lua_State *L, sl_pattern *self, const char *at)
{
    uint64_t before = self->steps;
    const char *end = sl_pattern_match(self, at);
    sl_count_instructions(L, before - self->steps);
    if (self->wrong)
        luaL_error(L, "%s", self->wrong);
    return end;
}

/** From `*at` on: the first match, `*at` where it begins. */
static const char *search(lua_State *L, sl_pattern *self, const char **at, bool anchored)
{
    do {
        const char *end = match_at(L, self, *at);
        if (end)
            return end;
    } while (!anchored && (*at)++ < self->subject_end);
    return NULL;
}

/* ---- captures ---- */

/** Capture `i`; all of the match where the pattern has none. */
static void push_capture(lua_State *L, const sl_pattern *self, int i, const char *at,
                         const char *end)
{
    if (i >= self->count) {
        if (i > 0)
            luaL_error(L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(L, at, (size_t)(end - at));
        return;
    }
    const sl_capture *capture = &self->captures[i];
    if (capture->length == PATTERN_OPEN)
        luaL_error(L, "unfinished capture");
    if (capture->length == PATTERN_POSITION)
        lua_pushinteger(L, capture->start - self->subject + 1);
    else
        lua_pushlstring(L, capture->start, capture->length);
}

static int push_captures(lua_State *L, const sl_pattern *self, const char *at, const char *end)
{
    int count = self->count > 0 ? self->count : 1;
    luaL_checkstack(L, count, "too many captures");
    for (int i = 0; i < count; i++)
        push_capture(L, self, i, at, end);
    return count;
}

/* ---- find, match, gmatch ---- */

/** Where the search begins (argument 3); NULL: behind the end. */
static const char *first_place(lua_State *L, const sl_pattern *self)
{
    lua_Integer length = self->subject_end - self->subject, first = luaL_optinteger(L, 3, 1);
    if (first < 0)
        first = -first > length ? 1 : length + first + 1;
    if (first < 1)
        first = 1;
    return first > length + 1 ? NULL : self->subject + (first - 1);
}

static int find_plain(lua_State *L, const sl_pattern *self, const char *at)
{
    size_t size = (size_t)(self->pattern_end - self->pattern);
    size_t length = (size_t)(self->subject_end - at);
    sl_count_instructions(L, 1 + length / STEPS_OF_A_BYTE);
    const char *found = size == 0 ? at : memmem(at, length, self->pattern, size);
    if (!found) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, found - self->subject + 1);
    lua_pushinteger(L, found - self->subject + (lua_Integer)size);
    return 2;
}

static int find_or_match(lua_State *L, bool find)
{
    sl_pattern self = begin_pattern(L);
    const char *at = first_place(L, &self);
    size_t size = (size_t)(self.pattern_end - self.pattern);
    if (at && find && (lua_toboolean(L, 4) || sl_pattern_is_plain(self.pattern, size)))
        return find_plain(L, &self, at);
    bool anchored = take_anchor(&self);
    const char *end = at ? search(L, &self, &at, anchored) : NULL;
    if (!end) {
        lua_pushnil(L);
        return 1;
    }
    if (!find)
        return push_captures(L, &self, at, end);
    lua_pushinteger(L, at - self.subject + 1);
    lua_pushinteger(L, end - self.subject);
    return 2 + (self.count > 0 ? push_captures(L, &self, at, end) : 0);
}

static int l_bounded_find(lua_State *L)
{
    return find_or_match(L, true);
}

static int l_bounded_match(lua_State *L)
{
    return find_or_match(L, false);
}

/* Upvalues: subject, pattern, where to go on, where the last match ended (-1: none). */
static int l_gmatch_next(lua_State *L)
{
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, lua_upvalueindex(2));
    sl_pattern self = begin_pattern(L);
    const char *at = self.subject + lua_tointeger(L, lua_upvalueindex(3));
    lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
    for (; at <= self.subject_end; at++) {
        const char *end = match_at(L, &self, at);
        if (!end || end - self.subject == last)
            continue;
        lua_pushinteger(L, end - self.subject);
        lua_copy(L, -1, lua_upvalueindex(3));
        lua_replace(L, lua_upvalueindex(4));
        return push_captures(L, &self, at, end);
    }
    return 0;
}

static int l_bounded_gmatch(lua_State *L)
{
    sl_pattern self = begin_pattern(L);
    const char *at = first_place(L, &self);
    if (!at)
        at = self.subject_end + 1;
    lua_settop(L, 2);
    lua_pushinteger(L, at - self.subject);
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, l_gmatch_next, 4);
    return 1;
}

/* ---- gsub ---- */

/** A call of gsub: the subject at 1, the pattern at 2, the replacement at 3. */
typedef struct substitution {
    sl_pattern pattern;
    luaL_Buffer out;
    int kind;
} substitution;

/** The text at 3, with its %1. */
static void add_text(lua_State *L, substitution *sub, const char *at, const char *end)
{
    size_t length;
    const char *text = lua_tolstring(L, 3, &length), *last = text + length;
    for (const char *percent; (percent = memchr(text, '%', (size_t)(last - text))) != NULL;) {
        luaL_addlstring(&sub->out, text, (size_t)(percent - text));
        char which = percent + 1 < last ? percent[1] : '\0';
        if (which == '%')
            luaL_addchar(&sub->out, '%');
        else if (which == '0')
            luaL_addlstring(&sub->out, at, (size_t)(end - at));
        else if (which >= '1' && which <= '9') {
            push_capture(L, &sub->pattern, which - '1', at, end);
            luaL_tolstring(L, -1, NULL);
            lua_remove(L, -2);
            luaL_addvalue(&sub->out);
        } else
            luaL_error(L, "invalid use of '%%' in replacement string");
        text = percent + 2;
    }
    luaL_addlstring(&sub->out, text, (size_t)(last - text));
}

static void add_replacement(lua_State *L, substitution *sub, const char *at, const char *end)
{
    if (sub->kind == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(L, &sub->pattern, at, end), 1);
    } else if (sub->kind == LUA_TTABLE) {
        push_capture(L, &sub->pattern, 0, at, end);
        lua_gettable(L, 3);
    } else {
        add_text(L, sub, at, end);
        return;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(&sub->out, at, (size_t)(end - at));
        return;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(&sub->out);
}

static int l_bounded_gsub(lua_State *L)
{
    substitution sub = {.pattern = begin_pattern(L), .kind = lua_type(L, 3)};
    const char *at = sub.pattern.subject, *limit = sub.pattern.subject_end, *last = NULL;
    lua_Integer most = luaL_optinteger(L, 4, limit - at + 1), count = 0;
    luaL_argexpected(L,
                     sub.kind == LUA_TNUMBER || sub.kind == LUA_TSTRING ||
                         sub.kind == LUA_TFUNCTION || sub.kind == LUA_TTABLE,
                     3, "string/function/table");
    bool anchored = take_anchor(&sub.pattern);
    luaL_buffinit(L, &sub.out);
    while (count < most) {
        const char *end = match_at(L, &sub.pattern, at);
        if (end && end != last) {
            count++;
            add_replacement(L, &sub, at, end);
            at = last = end;
        } else if (at < limit) {
            luaL_addchar(&sub.out, *at++);
        } else {
            break;
        }
        if (anchored)
            break;
    }
    luaL_addlstring(&sub.out, at, (size_t)(limit - at));
    luaL_pushresult(&sub.out);
    lua_pushinteger(L, count);
    return 2;
}

static const luaL_Reg bounded_functions[] = {
    {"find", l_bounded_find},
    {"match", l_bounded_match},
    {"gmatch", l_bounded_gmatch},
    {"gsub", l_bounded_gsub},
    {NULL, NULL},
};

void sl_pattern_install(lua_State *L)
{
    luaL_setfuncs(L, bounded_functions, 0);
}
