/* SPDX-License-Identifier: MIT */
/* Scripts of strangers: what stops each of them, and that nothing else in the host is harmed. */
#include "check.h"

#include <unistd.h>

static char logged[4096];

static void on_log(void *user, const char *line, size_t len)
{
    (void)user;
    snprintf(logged + strlen(logged), sizeof logged - strlen(logged), "%.*s\n", (int)len, line);
}

static sluice_options strict_options(void)
{
    sluice_options options = plain_options();
    options.untrusted = 1;
    options.memory_limit = 8 << 20;
    options.instruction_limit = 20000000;
    options.on_log = on_log;
    return options;
}

static sluice *open_strict(void)
{
    sluice_options options = strict_options();
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    return s;
}

/** Runs a chunk; it must end with this status, and this in its text, and no pump may hang. */
static void expect(sluice *s, const char *chunk, int status, const char *text)
{
    outcome end;
    int spawned = spawn(s, chunk, &end);
    if (spawned < 0) {
        CHECK(spawned == status);
        return;
    }
    double start = seconds_now();
    while (!end.calls && seconds_now() - start < 60) {
        if (sluice_pump(s, 2000) == 0 && !end.calls)
            CHECK(sluice_wait(s, -1) == SLUICE_OK);
    }
    if (end.calls != 1 || end.status != status || !strstr(end.text, text)) {
        fprintf(stderr, "%s\n gave %d: %s\n not %d: %s\n", chunk, end.status, end.text, status,
                text);
        exit(1);
    }
}

static void expect_each(const char *const *chunks, int status, const char *text)
{
    sluice *s = open_strict();
    for (; *chunks; chunks++)
        expect(s, *chunks, status, text);
    expect(s, "return 'still here'", SLUICE_OK, "still here");
    sluice_delete(s);
}

/* Loops for ever, also where it catches errors, and where Lua cannot be sliced. */
static void runaways(void)
{
    static const char *const chunks[] = {
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local function f() while true do pcall(f) end end f()",
        "local c <close> = setmetatable({}, { __close = function() while true do end end })\n"
        "while true do end",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end)\n"
        "while true do co() end",
        "while true do coroutine.wrap(function() local x = 1 end)() end",
        "while true do local ok = pcall(coroutine.wrap(function() while true do end end)) end",
        "xpcall(function() while true do end end, function() while true do end end)",
        "while true do xpcall(error, function() error 'again' end) end",
        "local function f() while true do pcall(coroutine.wrap(f)) end end f()",
        "local function g(n) if n > 0 then return 1 + g(n - 1) end\n"
        "  while true do pcall(error) end end g(30000)",
        "local task = require 'sluice.task'\n"
        "local function f() while true do pcall(task.scope, f) end end f()",
        "local task = require 'sluice.task'\n"
        "task.spawn(function() while true do end end) task.sleep(3600)",
        "local task = require 'sluice.task'\n"
        "while true do local n = 0 for i = 1, 300 do n = n + i end task.sleep(0) end",
        "local task = require 'sluice.task'\n"
        "local function many() task.spawn(many) task.sleep(0) end many() while true do end",
        "for i = 1, math.huge do local s = ('x'):rep(100) end",
        NULL,
    };
    expect_each(chunks, SLUICE_ELIMIT, "instructions of Lua");
}

/* Where Lua cannot yield, they end after a million instructions. */
static void runaways_in_c(void)
{
    static const char *const chunks[] = {
        "table.sort({ 3, 1, 2 }, function() while true do end end)",
        "local s = ('x'):gsub('x', function() while true do end end)",
        "local s = ('x'):gsub('x', function() while true do pcall(function()\n"
        "  while true do end end) end end)",
        "tostring(setmetatable({}, { __tostring = function() while true do end end }))",
        "return xpcall(error, function() while true do end end) or error 'where Lua cannot yield'",
        "assert(load(function() while true do end end))",
        NULL,
    };
    sluice_options options = strict_options();
    options.instruction_limit = (uint64_t)1 << 40;
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    double longest = 0;
    for (int i = 0; chunks[i]; i++) {
        outcome end;
        CHECK(spawn(s, chunks[i], &end) > 0);
        while (!end.calls) {
            double start = seconds_now();
            CHECK(sluice_pump(s, 1000) >= 0);
            double took = seconds_now() - start;
            longest = took > longest ? took : longest;
        }
        if (end.status != SLUICE_ESCRIPT)
            fprintf(stderr, "%s\n gave %d: %s\n", chunks[i], end.status, end.text);
        CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "where Lua cannot yield"));
    }
    CHECK(longest < 0.2); /* 6 ms and what else runs on the machine */
    sluice_delete(s);
}

/* Outside of every task: what an error or a result does when the host is told of it. */
static void runaways_at_the_end(void)
{
    static const char *const chunks[] = {
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
        "error(setmetatable({}, { __tostring = function()\n"
        "  while true do pcall(function() while true do end end) end end }))",
        "return setmetatable({}, { __tojson = function() while true do end end })",
        NULL,
    };
    sluice *s = open_plain(); /* these must end in every instance */
    for (int i = 0; chunks[i]; i++)
        expect(s, chunks[i], SLUICE_ESCRIPT, "it takes too long");
    sluice_delete(s);
    s = open_strict();
    expect(s, "local t = {} for i = 1, 60 do t = { t, t } end return t", SLUICE_ESCRIPT,
           "not enough memory");
    sluice_delete(s);
}

static void long_calls(void)
{
    static const char *const chunks[] = {
        "return (('a'):rep(300) .. 'b'):find(('a*'):rep(30) .. 'c')",
        "return (('a'):rep(300)):match('(.-)(.-)(.-)(.-)(.-)b')",
        "return (('('):rep(20000)):find '%b()'",
        "for x in (('a'):rep(3000)):gmatch('.-.-.-b') do end",
        "return (('a'):rep(3000)):gsub('.-.-.-b', '')",
        "return (('a'):rep(500)):find(('a?'):rep(500) .. ('a'):rep(500))",
        "return (('x'):rep(1 << 16)):find('[' .. ('y'):rep(1 << 12) .. ']')",
        NULL,
    };
    expect_each(chunks, SLUICE_ESCRIPT, "too complex");
    static const char *const many[] = {
        "table.move({}, 1, 1 << 62, 2)",
        "table.insert(setmetatable({}, { __len = function() return 1 << 40 end }), 1, 'x')",
        "table.remove(setmetatable({}, { __len = function() return 1 << 40 end }), 1)",
        "table.sort(setmetatable({}, { __len = function() return 1 << 30 end }), rawequal)",
        "return table.concat(setmetatable({}, { __index = table.concat }), '', 1, 1 << 62)",
        "return table.unpack({}, 1, 1 << 40)",
        "table.move({}, math.mininteger, math.maxinteger, 2)",
        NULL,
    };
    expect_each(many, SLUICE_ESCRIPT, "too many elements");
    static const char *const fine[] = {
        "return (('').rep('', 1 << 60))",
        "return ('a'):rep(1000, ',') and '' or 1",
        "return (('a'):rep(1 << 20) .. 'b'):find('b', 1, true) == (1 << 20) + 1 and ''",
        "local a, b = ('a'):rep(1 << 20), ('a'):rep(1 << 19) .. 'b' return a:find(b, 1, true) or "
        "''",
        "collectgarbage() return collectgarbage 'count' > 10 and ''",
        NULL,
    };
    expect_each(fine, SLUICE_OK, "\"\"");
}

static void memory(void)
{
    static const char *const chunks[] = {
        "return #('x'):rep(100 << 20)",
        "local t = {} for i = 1, 1e9 do t[i] = { i } end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end",
        "local function f() return f() + 1 end f()",
        "local t = {} while true do t = setmetatable({}, { __index = t }) end",
        "return (('x'):rep(1000):gsub('.', ('y'):rep(1 << 20)))",
        "local task, all = require 'sluice.task', {}\n"
        "for i = 1, 1e9 do all[i] = task.spawn(task.sleep, 3600) end",
        NULL,
    };
    sluice *s = open_strict();
    for (int i = 0; chunks[i]; i++) {
        outcome end;
        run(s, chunks[i], &end);
        if (end.status != SLUICE_ESCRIPT && end.status != SLUICE_ELIMIT)
            fprintf(stderr, "%s\n gave %d: %s\n", chunks[i], end.status, end.text);
        CHECK(end.status == SLUICE_ESCRIPT || end.status == SLUICE_ELIMIT);
    }
    expect(s, "return #('x'):rep(1 << 20)", SLUICE_OK, "1048576");
    sluice_delete(s);
}

/* What could take the guards away. */
static void escapes(void)
{
    static const char *const absent[] = {
        "return { io == nil, os == nil, debug == nil, package == nil, dofile == nil }",
        "return { loadfile == nil, not pcall(require, 'io'), not pcall(require, 'os'),\n"
        "  not pcall(require, 'debug'), not pcall(require, 'package') }",
        "return { (load(string.dump(function() end))) == nil, (load('\\27Lua', 'c', 'b')) == nil,\n"
        "  not pcall(require, 'sluice.core.socket'), not pcall(require, 'sluice.core.system'),\n"
        "  not pcall(require, 'cjson.no') }",
        "local task = require 'sluice.task' local group = task.group()\n"
        "return { getmetatable(group) == false, not pcall(getmetatable), getmetatable('').__index\n"
        "  == string, getmetatable(setmetatable({}, { __metatable = 5 })) == 5,\n"
        "  getmetatable({}) == nil }",
        NULL,
    };
    expect_each(absent, SLUICE_OK, "[true,true,true,true,true]");
    static const char *const finalizers[] = {
        "setmetatable({}, { __gc = function() while true do end end })",
        "setmetatable({}, { __gc = true })",
        "require 'sluice.json'.array_mt.__gc = function() while true do end end",
        "rawset(require 'sluice.json'.array_mt, '__gc', function() while true do end end)",
        "local mt = getmetatable((require 'sluice.json'.decode '[]')) mt.__gc = print",
        "local _, err = require 'sluice.json'.decode '['\n"
        "getmetatable(err).__gc = function() while true do end end",
        "local _, err = require 'sluice.json'.decode '['\n"
        "setmetatable({}, { __newindex = getmetatable(err) }).__gc = print",
        NULL,
    };
    expect_each(finalizers, SLUICE_ESCRIPT, "__gc is not allowed here");
    sluice *s = open_strict();
    expect(s, "load('while true do end', '@lua/x')()", SLUICE_ESCRIPT,
           "a chunk name of the library");
    CHECK(sluice_spawn(s, "=c", "\x1bLuaT", 5, NULL, NULL) == SLUICE_ESYNTAX);
    expect(s, "print('seen', 1, nil) return 1", SLUICE_OK, "1");
    CHECK(strstr(logged, "seen\t1\tnil\n"));
    sluice_delete(s);
}

/* The library in the sandbox: what needs no grant works as elsewhere. */
static void library(void)
{
    sluice *s = open_strict();
    expect(
        s,
        "local task, json, errors = require 'sluice.task', require 'sluice.json', "
        "require 'sluice.errors'\n"
        "local sum = 0\n"
        "for _, row in ipairs(task.map({ 1, 2, 3 }, function(n) task.sleep(0.001) return n end))\n"
        "do sum = sum + row.value end\n"
        "local _, err = json.decode '{'\n"
        "assert(errors.is(err) and err:is 'JsonError', tostring(err))\n"
        "local ok, why = pcall(task.map, {}, print, { concurency = 1 })\n"
        "assert(why:find 'did you mean', why)\n"
        "return sum",
        SLUICE_OK, "6");
    expect(
        s,
        "local sluice = require 'sluice'\n"
        "local app = require 'sluice.emulator'.new { deploy_time = 0 }.app\n"
        "local w = assert(sluice.workspace { host = 'http://emulator', token = 'none',\n"
        "  transport = app })\n"
        "assert(w.serving_endpoints:create_and_wait { name = 'e', config = { served_entities = {\n"
        "  { entity_name = 'main.demo.talk', entity_version = '1', workload_size = 'Small',\n"
        "  scale_to_zero_enabled = true } } } })\n"
        "local text = {}\n"
        "for delta in assert(w:endpoint 'e':stream { messages = { { role = 'user',\n"
        "  content = 'ping' } } }):text() do text[#text + 1] = delta end\n"
        "return #table.concat(text) > 0",
        SLUICE_OK, "true");
    sluice_delete(s);
}

/* The bounded matcher against Lua's own. */
static void same_patterns(void)
{
    static const char chunk[] =
        "local items = { 'a', 'b', '.', '%a', '%A', '%d', '[ab]', '[^a]', '[a-c%d]', '%w', '%s',\n"
        "  '%S', 'x', '[%]]', '[]]', '[^]x]', '%%', '%.', '(', ')', '()', '%1', '%2', '%b()',\n"
        "  '%bab', '%f[%a]', '%f[^%a]', '%', '[', '[a', '[%', '%b', '%bx', '%f', '$', '^', '\\0' "
        "}\n"
        "local marks = { '', '', '', '*', '+', '-', '?' }\n"
        "local bytes = { 'a', 'b', 'c', 'x', '1', '(', ')', ' ', '.', '%', ']', '\\0', 'A' }\n"
        "local seed, out = SEED, {}\n"
        "local function pick(list) seed = (seed * 1103515245 + 12345) & 0x7fffffff\n"
        "  return list[(seed >> 8) % #list + 1] end\n"
        "local function make(lists, n) local t = {}\n"
        "  for i = 1, n do for _, list in ipairs(lists) do t[#t + 1] = pick(list) end end\n"
        "  return table.concat(t) end\n"
        "local counts = { 0, 1, 2, 3, 5, 8, 12 }\n"
        "local function show(...) local t = table.pack(...)\n"
        "  for i = 1, t.n do t[i] = tostring(t[i]) end\n"
        "  if t[1] == 'false' then t = { 'false', (t[2]:gsub('^.-:%d+: ', '')) } end\n"
        "  return table.concat(t, '|') end\n"
        "local digest = 0\n"
        "local function note(what, p, s, text)\n"
        "  local line = what .. ' ' .. p .. ' ' .. s .. ' -> ' .. text\n"
        "  for i = 1, #line do digest = (digest * 31 + line:byte(i)) & 0x7fffffffffff end\n"
        "  out[#out + 1] = line end\n"
        "for i = 1, 400 do\n"
        "  local p = make({ items, marks }, pick(counts) // 2) if i % 5 == 0 then p = '^' .. p "
        "end\n"
        "  local s = make({ bytes }, pick(counts))\n"
        "  local init = pick { 1, 2, -1, 0, 20, -20 }\n"
        "  note('find', p, s, show(pcall(string.find, s, p, init)))\n"
        "  note('match', p, s, show(pcall(string.match, s, p, init)))\n"
        "  note('gsub', p, s, show(pcall(string.gsub, s, p, pick { '<%0>', '%1', '%2', '%', '' },\n"
        "    pick { 1, 2, 100 })))\n"
        "  note('table', p, s, show(pcall(string.gsub, s, p, { a = 'A', b = false, x = 7 })))\n"
        "  note('call', p, s, show(pcall(string.gsub, s, p, function(...) return select('#', ...)\n"
        "    > 1 and 'many' or (...) end)))\n"
        "  local all = {} local ok, why = pcall(function()\n"
        "    for a, b in s:gmatch(p) do all[#all + 1] = tostring(a) .. ',' .. tostring(b) end "
        "end)\n"
        "  note('gmatch', p, s, table.concat(all, ';') .. show(ok, why))\n"
        "end\n"
        "if LINES then return table.concat(out, '\\n') end\n"
        "return digest";
    /* texts of errors may differ in their details */
    sluice *strict = open_strict(), *plain = open_plain();
    char text[sizeof chunk + 64];
    for (int seed = 1; seed <= 50; seed++) {
        outcome ours, theirs;
        snprintf(text, sizeof text, "local SEED, LINES = %d, false %s", seed, chunk);
        run(strict, text, &ours);
        run(plain, text, &theirs);
        if (strcmp(ours.text, theirs.text) != 0)
            fprintf(stderr, "seed %d: %s, not %s\n", seed, ours.text, theirs.text);
        CHECK(ours.status == SLUICE_OK && theirs.status == SLUICE_OK);
        CHECK(strcmp(ours.text, theirs.text) == 0);
    }
    sluice_delete(strict);
    sluice_delete(plain);
}

/* Limits that could not hold are refused, in words. */
static char refusal[256];

static void on_refusal(void *user, const char *text)
{
    (void)user;
    snprintf(refusal, sizeof refusal, "%s", text);
}

static void refuse(const sluice_options *options, const char *text)
{
    sluice *s = NULL;
    refusal[0] = '\0';
    CHECK(sluice_new(&s, options) == SLUICE_EINVAL && s == NULL);
    if (!strstr(refusal, text))
        fprintf(stderr, "refused with: %s\n not: %s\n", refusal, text);
    CHECK(strstr(refusal, text));
}

static void refused_options(void)
{
    struct lua_State *state = (struct lua_State *)refusal; /* nothing is done with it */
    sluice_options options = {.size = sizeof options, .on_error = on_refusal, .state = state};
    options.memory_limit = 1 << 20;
    refuse(&options, "memory_limit cannot hold in a lua_State of the host's");
    options.memory_limit = 0;
    options.instruction_limit = 1000;
    refuse(&options, "instruction_limit cannot hold");
    options.instruction_limit = 0;
    options.untrusted = 1;
    refuse(&options, "untrusted cannot hold");
    options.state = NULL;
    refuse(&options, "untrusted needs a memory_limit and an instruction_limit");
    options = strict_options();
    options.on_error = on_refusal;
    options.capabilities = SLUICE_CAN_EVERYTHING;
    refuse(&options, "no limit holds against SLUICE_CAN_DEBUG");
    options.capabilities = 1 << 20;
    refuse(&options, "a capability that does not exist");
}

/* A struct of an older or a newer header. */
static void sizes(void)
{
    struct {
        sluice_options options;
        char more[64];
    } newer = {.options = plain_options()};
    sluice *s = NULL;
    newer.options.size = sizeof newer;
    CHECK(sluice_new(&s, &newer.options) == SLUICE_OK);
    sluice_delete(s);
    newer.more[63] = 1;
    CHECK(sluice_new(&s, &newer.options) == SLUICE_EINVAL && s == NULL);
    sluice_options older = plain_options();
    older.untrusted = 1; /* beyond what it has */
    older.size = offsetof(sluice_options, untrusted);
    CHECK(sluice_new(&s, &older) == SLUICE_OK);
    sluice_delete(s);
    older.size = sizeof older.size;
    CHECK(sluice_new(&s, &older) == SLUICE_OK);
    sluice_delete(s);
    static const size_t wrong[] = {0, 4, 9, sizeof older + 3, (size_t)-8};
    for (int i = 0; i < 5; i++) {
        older.size = wrong[i];
        CHECK(sluice_new(&s, &older) == SLUICE_EINVAL && s == NULL);
    }
}

static const test_case cases[] = {
    {"runaways", runaways},
    {"runaways_in_c", runaways_in_c},
    {"runaways_at_the_end", runaways_at_the_end},
    {"long_calls", long_calls},
    {"memory", memory},
    {"escapes", escapes},
    {"library", library},
    {"same_patterns", same_patterns},
    {"refused_options", refused_options},
    {"sizes", sizes},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
