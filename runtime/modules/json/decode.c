/* SPDX-License-Identifier: MIT */
/*
 * JSON text to Lua values.
 *
 * No recursion: what is open is kept in frames, and the members of an open container wait on Lua's
 * stack, so that its table can be made once, with the right size. When the stack gets long the
 * members move into the table at once. The text is a Lua string, so a NUL byte follows it.
 */
#include "binding.h"
#include "names.h"

#include <lauxlib.h>
#include <limits.h>

enum {
    JSON_DECODE_FRAMES = 24,   /* on the C stack; more move into a userdata */
    JSON_DECODE_WAITING = 4096 /* slots of Lua's stack, beyond which members do not wait */
};

/* Upvalues, as sl_json_decode_push makes them. */
enum {
    JSON_DECODE_ARRAY = 1, /* the array metatable */
    JSON_DECODE_KEEPER,    /* memory that outlives a call */
    JSON_DECODE_NAMES,
    JSON_DECODE_STRINGS,
    JSON_DECODE_CHECK, /* a function that checks the options, or nil */
    JSON_DECODE_FAIL,  /* a function that makes the error, or nil */
};

struct json_decode_frame {
    int slot;      /* of the table, or of what will be it; the members wait above */
    bool is_array; /* or an object */
    bool is_made;  /* the table is there and members go into it at once */
    lua_Integer count;
};

typedef struct json_decoder {
    lua_State *L;
    const char *text, *end;
    sl_json_fault fault;
    struct json_decode_frame *frames;
    size_t depth, capacity, max_depth;
    int used;       /* slots of Lua's stack, as lua_gettop would say */
    int room;       /* as far as which Lua's stack has been checked */
    int array_slot; /* the array metatable */
    int names_slot; /* the strings of the cache of keys */
    int new_names;  /* what this text may still add to it */
    sl_json_name *names;
    int frames_slot;  /* the userdata with the frames, when they are many */
    int scratch_slot; /* the memory of `scratch` */
    bool replace;     /* invalid UTF-8 becomes U+FFFD */
    bool has_scratch;
    sl_json_scratch scratch; /* strings with escapes; initialised when first needed */
    struct json_decode_frame first[JSON_DECODE_FRAMES];
} json_decoder;

static const char *json_fault(json_decoder *d, const char *at, const char *message)
{
    d->fault = (sl_json_fault){message, at};
    return NULL;
}

static const char *json_unexpected(json_decoder *d, const char *at)
{
    return json_fault(d, at, at == d->end ? "the text ends too early" : "unexpected character");
}

static inline const char *json_skip_space(const char *p)
{
    while ((unsigned char)*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* Room for a few more slots; false when Lua's stack is at its limit. */
static inline bool json_decode_room(json_decoder *d)
{
    enum { FEW = 8, STEP = 64 };
    if (d->used + FEW <= d->room)
        return true;
    d->room = d->used + FEW + STEP + d->used / 2;
    return lua_checkstack(d->L, d->room - d->used);
}

/* ---- scalars: each pushes one value and returns the byte behind it ---- */

static const char *json_decode_escaped(json_decoder *d, const char *p, const char *stop)
{
    sl_json_buffer *buffer = &d->scratch.buffer;
    if (!d->has_scratch) {
        sl_json_scratch_init(&d->scratch, d->L, d->scratch_slot,
                             lua_upvalueindex(JSON_DECODE_KEEPER));
        d->has_scratch = true;
    }
    buffer->length = 0;
    p = sl_json_read_string(buffer, p, stop, d->end, d->replace, &d->fault);
    if (p == NULL)
        return NULL;
    lua_pushlstring(d->L, buffer->data, buffer->length);
    return p + 1;
}

/* p is behind the opening quote */
static inline const char *json_decode_string(json_decoder *d, const char *p)
{
    const char *stop = sl_json_scan_string(p, d->end);
    if (*stop != '"')
        return json_decode_escaped(d, p, stop);
    lua_pushlstring(d->L, p, (size_t)(stop - p));
    return stop + 1;
}

static const char *json_decode_number(json_decoder *d, const char *p)
{
    sl_json_number number;
    const char *after = sl_json_read_number(p, &number);
    switch (number.kind) {
    case SL_JSON_INTEGER:
        lua_pushinteger(d->L, number.integer);
        return after;
    case SL_JSON_FLOAT:
        lua_pushnumber(d->L, number.value);
        return after;
    case SL_JSON_OUT_OF_RANGE:
        return json_fault(d, p, "a number beyond the range of a double");
    case SL_JSON_BAD_NUMBER:
    default:
        return after == d->end ? json_unexpected(d, after)
                               : json_fault(d, after, "not a number as JSON writes it");
    }
}

static const char *json_decode_word(json_decoder *d, const char *p)
{
    static const char *const words[] = {"null", "true", "false"};
    for (int i = 0; i < 3; i++) {
        size_t length = strlen(words[i]);
        if (*p != words[i][0])
            continue;
        if (strncmp(p, words[i], length) != 0)
            return json_fault(d, p, "not a word of JSON (true, false, null)");
        if (i == 0)
            lua_pushlightuserdata(d->L, NULL);
        else
            lua_pushboolean(d->L, i == 1);
        return p + length;
    }
    return json_unexpected(d, p);
}

static inline const char *json_decode_scalar(json_decoder *d, const char *p)
{
    if (*p == '"')
        return json_decode_string(d, p + 1);
    if (sl_json_is_digit(*p) || *p == '-')
        return json_decode_number(d, p);
    return json_decode_word(d, p);
}

/* ---- containers ---- */

/* Moves the waiting members into a table of the right size, in the frame's slot. */
static void json_make_table(json_decoder *d, struct json_decode_frame *frame, int spare)
{
    lua_State *L = d->L;
    int slot = frame->slot, count = d->used - slot;
    if (frame->is_array) {
        lua_createtable(L, count + spare, 0);
        lua_replace(L, slot);
        for (int i = count; i > 0; i--)
            lua_rawseti(L, slot, i);
        lua_pushvalue(L, d->array_slot);
        lua_setmetatable(L, slot);
    } else {
        lua_createtable(L, 0, count / 2 + spare);
        lua_replace(L, slot);
        for (int i = slot + 1; i < slot + count; i += 2) { /* forwards: the last of two keys wins */
            lua_pushvalue(L, i);
            lua_pushvalue(L, i + 1);
            lua_rawset(L, slot);
        }
        lua_settop(L, slot);
    }
    frame->count = count;
    frame->is_made = true;
    d->used = slot;
}

/* The value on top of the stack is complete: hand it to the container around it. */
static inline void json_add_value(json_decoder *d)
{
    struct json_decode_frame *frame = &d->frames[d->depth - 1];
    d->used++;
    if (!frame->is_made) {
        if (d->used > JSON_DECODE_WAITING)
            json_make_table(d, frame, d->used - frame->slot);
    } else if (frame->is_array) {
        lua_rawseti(d->L, frame->slot, ++frame->count);
        d->used--;
    } else {
        lua_rawset(d->L, frame->slot);
        d->used -= 2;
    }
}

static void json_more_frames(json_decoder *d)
{
    size_t capacity = d->capacity * 2;
    struct json_decode_frame *frames = lua_newuserdatauv(d->L, capacity * sizeof *frames, 0);
    memcpy(frames, d->frames, d->capacity * sizeof *frames);
    lua_replace(d->L, d->frames_slot);
    d->frames = frames;
    d->capacity = capacity;
}

/* p is at the bracket */
static const char *json_open_container(json_decoder *d, const char *p)
{
    struct json_decode_frame *frame;
    if (d->depth >= d->max_depth || !json_decode_room(d))
        return json_fault(d, p, "arrays and objects nested too deeply");
    if (d->depth == d->capacity)
        json_more_frames(d);
    lua_pushnil(d->L); /* holds the place of the table */
    d->used++;
    frame = &d->frames[d->depth++];
    *frame = (struct json_decode_frame){.slot = d->used, .is_array = *p == '['};
    return p + 1;
}

static inline void json_close_container(json_decoder *d)
{
    struct json_decode_frame *frame = &d->frames[--d->depth];
    if (!frame->is_made)
        json_make_table(d, frame, 0);
    d->used = frame->slot - 1; /* the table itself is a value on top, not yet handed over */
}

static void json_push_name(json_decoder *d, const char *text, size_t length)
{
    sl_json_name name = sl_json_name_of(text, length), *known;
    size_t place = sl_json_name_place(&name);
    known = &d->names[place];
    if (sl_json_name_equals(&name, known)) {
        lua_rawgeti(d->L, d->names_slot, (lua_Integer)place + 1);
        return;
    }
    lua_pushlstring(d->L, text, length);
    if (d->new_names == 0)
        return;
    d->new_names--;
    lua_pushvalue(d->L, -1);
    lua_rawseti(d->L, d->names_slot, (lua_Integer)place + 1);
    *known = name;
}

/* p is behind the opening quote */
static inline const char *json_decode_name(json_decoder *d, const char *p)
{
    const char *stop = sl_json_scan_string(p, d->end);
    size_t length = (size_t)(stop - p);
    if (*stop != '"')
        return json_decode_escaped(d, p, stop);
    if (SL_JSON_WORDS && length - 1 < SL_JSON_NAME_LONGEST && d->end - p >= 8)
        json_push_name(d, p, length);
    else
        lua_pushlstring(d->L, p, length);
    return stop + 1;
}

/* A key and its colon; leaves the key on the stack. */
static inline const char *json_decode_key(json_decoder *d, const char *p)
{
    p = json_skip_space(p);
    if (*p != '"')
        return p == d->end ? json_unexpected(d, p) : json_fault(d, p, "a key must be a string");
    p = json_decode_name(d, p + 1);
    if (p == NULL)
        return NULL;
    d->used++;
    p = json_skip_space(p);
    return *p == ':' ? p + 1 : json_unexpected(d, p);
}

/* Behind a value: closes what ends here, up to where the next value begins, or the text ends. */
static inline const char *json_after_value(json_decoder *d, const char *p)
{
    while (d->depth > 0) {
        bool is_array = d->frames[d->depth - 1].is_array;
        json_add_value(d);
        p = json_skip_space(p);
        if (*p == ',')
            return is_array ? p + 1 : json_decode_key(d, p + 1);
        if (*p != (is_array ? ']' : '}'))
            return json_unexpected(d, p);
        p++;
        json_close_container(d);
    }
    return p;
}

/* One value with everything in it; leaves it on the stack. */
static const char *json_decode_value(json_decoder *d, const char *p)
{
    do {
        p = json_skip_space(p);
        if (!json_decode_room(d))
            return json_fault(d, p, "arrays and objects nested too deeply");
        if (*p == '[' || *p == '{') {
            bool is_array = *p == '[';
            p = json_open_container(d, p);
            if (p == NULL)
                return NULL;
            p = json_skip_space(p);
            if (*p != (is_array ? ']' : '}')) {
                if (!is_array)
                    p = json_decode_key(d, p);
                continue;
            }
            p++;
            json_close_container(d);
        } else {
            p = json_decode_scalar(d, p);
            if (p == NULL)
                return NULL;
        }
        p = json_after_value(d, p);
    } while (p != NULL && d->depth > 0);
    return p;
}

static const char *json_decode_text(json_decoder *d)
{
    const char *p = d->text;
    if (strncmp(p, "\xEF\xBB\xBF", 3) == 0)
        return json_fault(d, p, "a byte order mark must not begin the text");
    p = json_decode_value(d, p);
    if (p == NULL)
        return NULL;
    p = json_skip_space(p);
    return p == d->end ? p : json_fault(d, p, "the text goes on behind the value");
}

static int json_decode_failed(const json_decoder *d)
{
    lua_State *L = d->L;
    lua_Integer offset = d->fault.at - d->text + 1;
    lua_settop(L, 1);
    lua_pushnil(L);
    if (lua_isnil(L, lua_upvalueindex(JSON_DECODE_FAIL))) {
        lua_pushstring(L, d->fault.message);
        lua_pushinteger(L, offset);
        return 3;
    }
    lua_pushvalue(L, lua_upvalueindex(JSON_DECODE_FAIL));
    lua_pushvalue(L, 1);
    lua_pushstring(L, d->fault.message);
    lua_pushinteger(L, offset);
    lua_call(L, 3, 1);
    return 2;
}

/* What there is before options are read; reserves the slots up to `used`. */
static void json_decoder_init(json_decoder *d, lua_State *L)
{
    enum { SCRATCH = 3, FRAMES, ARRAY, STRINGS };
    lua_settop(L, FRAMES);
    lua_pushvalue(L, lua_upvalueindex(JSON_DECODE_ARRAY));
    lua_pushvalue(L, lua_upvalueindex(JSON_DECODE_STRINGS));
    d->L = L;
    d->frames = d->first;
    d->depth = 0;
    d->capacity = JSON_DECODE_FRAMES;
    d->max_depth = SL_JSON_DEPTH;
    d->scratch_slot = SCRATCH;
    d->frames_slot = FRAMES;
    d->array_slot = ARRAY;
    d->names_slot = d->used = STRINGS;
    d->names = lua_touserdata(L, lua_upvalueindex(JSON_DECODE_NAMES));
    d->new_names = SL_JSON_NAMES_A_TEXT;
    d->room = 0;
    d->replace = d->has_scratch = false;
}

static int l_json_decode(lua_State *L)
{
    enum { TEXT = 1, OPTIONS };
    json_decoder d;
    size_t length;
    luaL_checktype(L, TEXT, LUA_TSTRING);
    json_decoder_init(&d, L);
    d.text = lua_tolstring(L, TEXT, &length);
    d.end = d.text + length;
    d.fault = (sl_json_fault){"", d.text};
    if (!lua_isnil(L, OPTIONS)) {
        sl_json_options_check(L, OPTIONS, lua_upvalueindex(JSON_DECODE_CHECK));
        d.max_depth = sl_json_option_depth(L, OPTIONS);
        d.replace = !sl_json_option_strict(L, OPTIONS, true);
    }
    if (json_decode_text(&d) == NULL)
        return json_decode_failed(&d);
    if (d.has_scratch)
        sl_json_scratch_fini(&d.scratch);
    return 1;
}

void sl_json_decode_push(lua_State *L, int check, int fail)
{
    sl_json_push_array_metatable(L);
    sl_json_keeper_push(L);
    sl_json_names_push(L);
    lua_pushvalue(L, check);
    lua_pushvalue(L, fail);
    lua_pushcclosure(L, l_json_decode, JSON_DECODE_FAIL);
}
