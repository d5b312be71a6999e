/* SPDX-License-Identifier: MIT */
/* A host that has a Lua state of its own: what changes in it, and that it is as before afterwards.
 */
#include "check.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

static sluice *open_on(lua_State *L)
{
    sluice_options options = plain_options();
    options.state = L;
    options.capabilities = SLUICE_CAN_EVERYTHING;
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    return s;
}

static lua_State *new_state(void)
{
    lua_State *L = luaL_newstate();
    CHECK(L);
    luaL_openlibs(L);
    return L;
}

static void lua(lua_State *L, const char *chunk)
{
    if (luaL_dostring(L, chunk) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        exit(1);
    }
    lua_settop(L, 0);
}

static const char remember[] =
    "before = {}\n"
    "for name, value in pairs(coroutine) do before[name] = value end\n"
    "exit, req, count = os.exit, require, #package.searchers\n"
    "globals = {} for name in pairs(_G) do globals[name] = true end globals.globals = true";

static const char compare[] =
    "for name, value in pairs(before) do assert(coroutine[name] == value, name) end\n"
    "assert(os.exit == exit and require == req and #package.searchers == count)\n"
    "assert(not package.preload['sluice.core.http'])\n"
    "for name in pairs(_G) do assert(globals[name], name) end";

static void restored(void)
{
    lua_State *L = new_state();
    lua(L, remember);
    for (int i = 0; i < 3; i++) {
        sluice *s = open_on(L);
        outcome end;
        CHECK(lua_gettop(L) == 0);
        lua(L, "assert(coroutine.wrap ~= before.wrap and os.exit == exit)");
        lua(L, "assert(require 'sluice.task'.sleep)");
        run(s,
            "local task = require 'sluice.task'\n"
            "local each = coroutine.wrap(function()\n"
            "  for i = 1, 3 do task.sleep(0) coroutine.yield(i) end end)\n"
            "local sum = 0 for i in each do sum = sum + i end return sum",
            &end);
        CHECK(end.status == SLUICE_OK && strcmp(end.text, "6") == 0);
        sluice_delete(s);
        CHECK(lua_gettop(L) == 0);
        lua(L, compare);
        lua(L, "assert(coroutine.wrap(function() return 5 end)() == 5)");
        lua(L, "local ok, why = pcall(require 'sluice.task'.spawn, print)\n"
               "assert(not ok and why:find 'there is no loop here', why)");
    }
    lua_close(L);
}

static void one_at_a_time(void)
{
    lua_State *L = new_state();
    sluice *s = open_on(L), *other = NULL;
    sluice_options options = plain_options();
    options.state = L;
    CHECK(sluice_new(&other, &options) == SLUICE_EBUSY && other == NULL);
    outcome end;
    run(s, "return 'still here'", &end);
    CHECK(end.status == SLUICE_OK);
    sluice_delete(s);
    lua_close(L);
}

/* What a script has left in the host's state when the instance goes. */
static const char leftovers[] =
    "local task, http, web = require 'sluice.task', require 'sluice.http', require 'sluice.web'\n"
    "group = task.group() left = {}\n"
    "left.waiting = group:spawn(function() task.shield(task.sleep, 3600) end)\n"
    "left.channel = task.channel(0)\n"
    "left.sender = group:spawn(function()\n"
    "  task.shield(function() left.channel:send 'never' end) end)\n"
    "left.joiner = group:spawn(function() task.shield(left.waiting.join, left.waiting) end)\n"
    "group:spawn(function() task.simulate(function() task.shield(function()\n"
    "  left.channel:receive() left.channel:receive() end) end) end)\n"
    "left.inner = group:spawn(function() task.scope(function(scope) left.scope = scope\n"
    "  scope:spawn(function() task.shield(task.sleep, 3600) end) end) end)\n"
    "left.each = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end) left.each()\n"
    "local app = web.app()\n"
    "app:get('/', function() return { status = 200, body = 'served' } end)\n"
    "app:get('/never', function() task.shield(task.sleep, 3600) end)\n"
    "left.server = assert(app:listen '127.0.0.1:0')\n"
    "left.client = http.client{}\n"
    "local url = 'http://' .. left.server.address\n"
    "local answer = assert(left.client:request { url = url .. '/' })\n"
    "assert(answer.body == 'served')\n"
    "left.answer = answer\n"
    "left.asker = group:spawn(function()\n"
    "  task.shield(function() left.client:request { url = url .. '/never' } end) end)\n"
    "task.sleep(0.05)\n"
    "return 'left'";

static const char poke[] =
    "for name, value in pairs(left) do\n"
    "  tostring(value)\n"
    "  for _, method in ipairs { 'join', 'cancel', 'status', 'spawn', 'close', 'send', 'receive',\n"
    "      'request', 'stop' } do\n"
    "    pcall(function() return value[method](value, function() end) end)\n"
    "  end\n"
    "end\n"
    "assert(left.waiting:status() == 'failed' and left.inner:status() == 'failed')\n"
    "pcall(left.each)\n"
    "pcall(group.spawn, group, print) pcall(group.cancel, group) pcall(group.close, group)\n"
    "assert(tostring(group):find 'closed')\n"
    "if last then left, group = nil end collectgarbage() collectgarbage()";

static void outlived(void)
{
    lua_State *L = new_state();
    outcome end;
    for (int i = 0; i < 2; i++) {
        sluice *s = open_on(L);
        run(s, leftovers, &end);
        if (end.status != SLUICE_OK)
            fprintf(stderr, "%s\n", end.text);
        CHECK(end.status == SLUICE_OK);
        sluice_delete(s);
        lua(L, poke);
    }
    sluice *s = open_on(L); /* things of a gone instance, in the next one */
    lua(L, "last = true");
    run(s, poke, &end);
    if (end.status != SLUICE_OK)
        fprintf(stderr, "%s\n", end.text);
    CHECK(end.status == SLUICE_OK);
    sluice_delete(s);
    lua(L, "collectgarbage()");
    lua_close(L);
}

static int count_registry(lua_State *L)
{
    int count = 0;
    lua_gc(L, LUA_GCCOLLECT);
    for (lua_pushnil(L); lua_next(L, LUA_REGISTRYINDEX); lua_pop(L, 1))
        count += lua_type(L, -1) != LUA_TNUMBER; /* numbers are the list of free references */
    return count;
}

static void registry_is_clean(void)
{
    lua_State *L = new_state();
    int before = 0;
    for (int i = 0; i < 5; i++) {
        sluice *s = open_on(L);
        outcome end;
        run(s,
            "local task = require 'sluice.task'\n"
            "local group = task.group()\n"
            "for i = 1, 50 do group:spawn(task.sleep, 0.001) group:spawn(task.shield, task.sleep, "
            "9) end\n"
            "for i = 1, 50 do task.spawn(task.sleep, 0.001) end\n"
            "group:spawn(task.shield, task.sleep, 9):cancel {}\n"
            "group:spawn(task.shield, task.scope, function(scope)\n"
            "  scope:cancel {} task.shield(task.sleep, 9) end)",
            &end);
        CHECK(end.status == SLUICE_OK);
        CHECK(spawn(s, "require 'sluice.task'.shield(require 'sluice.task'.sleep, 9)", &end) > 0);
        sluice_pump(s, 0);
        sluice_delete(s);
        int count = count_registry(L);
        CHECK(i == 0 || count <= before);
        before = count;
    }
    lua_close(L);
}

static int l_pump(lua_State *L)
{
    sluice *s = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushinteger(L, sluice_pump(s, 1000));
    return 1;
}

/* The host is itself inside Lua, even inside a coroutine, when it pumps. */
static void pumped_from_lua(void)
{
    lua_State *L = new_state();
    lua_State *co = lua_newthread(L); /* the state that is given may be a coroutine */
    sluice *s = open_on(co);
    lua_pushlightuserdata(L, s);
    lua_pushcclosure(L, l_pump, 1);
    lua_setglobal(L, "pump");
    lua_settop(L, 0);
    outcome end;
    CHECK(spawn(s,
                "local task = require 'sluice.task'\n"
                "for i = 1, 5 do task.sleep(0.001) seen = i end return seen",
                &end) > 0);
    lua(L, "local co = coroutine.wrap(function() while seen ~= 5 do pump() end end) co()\n"
           "collectgarbage()");
    CHECK(sluice_pump(s, 1000) == 0);
    CHECK(end.calls == 1 && strcmp(end.text, "5") == 0);
    sluice_delete(s);
    lua_close(L);
}

/* A function that was kept from before takes our yields for its own: it is refused, not confused.
 */
static void kept_functions(void)
{
    lua_State *L = new_state();
    lua(L, "stock_wrap = coroutine.wrap");
    sluice *s = open_on(L);
    outcome end;
    run(s,
        "local task = require 'sluice.task'\n"
        "local each = stock_wrap(function() local ok, why = pcall(task.sleep, 0) return ok, why "
        "end)\n"
        "local ok, why = each() assert(not ok) return why",
        &end);
    CHECK(end.status == SLUICE_OK && strstr(end.text, "resumed by a function that is not"));
    CHECK(spawn(s,
                "local each = stock_wrap(function()\n"
                "  for i = 1, 3e5 do end coroutine.yield(7) end)\n"
                "return each()",
                &end) > 0);
    while (!end.calls)
        sluice_pump(s, 100);
    CHECK(strcmp(end.text, "7") == 0);
    sluice_delete(s);
    lua_close(L);
}

static const test_case cases[] = {
    {"restored", restored},
    {"one_at_a_time", one_at_a_time},
    {"outlived", outlived},
    {"registry_is_clean", registry_is_clean},
    {"pumped_from_lua", pumped_from_lua},
    {"kept_functions", kept_functions},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
