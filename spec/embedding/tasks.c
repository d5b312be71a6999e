/* SPDX-License-Identifier: MIT */
/* Chunks as tasks: results, errors, cancellation, time slices. */
#include "check.h"

static void results(void)
{
    sluice *s = open_plain();
    outcome end;
    run(s, "return { answer = 42, list = { 1, 2.5, 'three' } }", &end);
    CHECK(end.status == SLUICE_OK);
    CHECK(strstr(end.text, "\"answer\":42") && strstr(end.text, "[1,2.5,\"three\"]"));
    run(s, "", &end);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "null") == 0);
    run(s, "return 'first', 'second'", &end);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "\"first\"") == 0);
    run(s, "return print", &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "the result of the chunk"));
    run(s, "local task = require 'sluice.task'; task.sleep(0.01); return task.now() > 0", &end);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "true") == 0);
    sluice_delete(s);
}

static void errors(void)
{
    sluice *s = open_plain();
    outcome end;
    run(s, "local function deep() error 'broken' end\ndeep()", &end);
    CHECK(end.status == SLUICE_ESCRIPT && end.calls == 1);
    CHECK(strstr(end.text, "chunk:1: broken") && strstr(end.text, "stack traceback:"));
    CHECK(strstr(end.text, "in upvalue 'deep'") || strstr(end.text, "in local 'deep'"));
    run(s, "error { code = 7 }", &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "table:"));
    run(s, "error(nil)", &end);
    CHECK(end.status == SLUICE_ESCRIPT && strncmp(end.text, "nil", 3) == 0);
    run(s, "error(setmetatable({}, { __tostring = function() error 'worse' end }))", &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "worse"));
    run(s,
        "local task = require 'sluice.task'\n"
        "task.spawn(error, 'of a child') task.sleep(3600)",
        &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "of a child"));
    CHECK(spawn(s, "return return", &end) == SLUICE_ESYNTAX && end.calls == 0);
    CHECK(spawn(s, "\x1bLua", &end) == SLUICE_ESYNTAX);
    run(s, "return 1", &end);
    CHECK(end.status == SLUICE_OK);
    sluice_delete(s);
}

static void cancellation(void)
{
    sluice *s = open_plain();
    outcome end;
    const char *chunk = "local task = require 'sluice.task'\n"
                        "local closed <close> = setmetatable({}, { __close = function()\n"
                        "  task.shield(function() task.sleep(0.01) end) unwound = true end })\n"
                        "task.sleep(3600)";
    int number = spawn(s, chunk, &end);
    CHECK(number > 0);
    sluice_pump(s, 2000);
    char reason[] = "the player left";
    CHECK(sluice_cancel(s, number, reason) == SLUICE_OK);
    memset(reason, '?', sizeof reason - 1); /* a reason is the caller's again after the call */
    run_to_end(s, &end);
    CHECK(end.status == SLUICE_ECANCELLED && strstr(end.text, "the player left"));
    run(s, "return unwound", &end);
    CHECK(strcmp(end.text, "true") == 0);
    number = spawn(s, "ran = true", &end); /* before its first turn: it does not run at all */
    CHECK(sluice_cancel(s, number, NULL) == SLUICE_OK);
    run_to_end(s, &end);
    CHECK(end.status == SLUICE_ECANCELLED);
    CHECK(sluice_cancel(s, number, "again") == SLUICE_OK);
    run(s, "return ran", &end);
    CHECK(strcmp(end.text, "null") == 0);
    sluice_delete(s);
}

/** The longest of many pumps of 2 ms, in seconds of processor time; the median would hide a frame
 * that was lost. */
static double second_longest_pump(sluice *s, int count)
{
    double longest = 0, second = 0;
    for (int i = 0; i < count; i++) {
        double start = processor_seconds();
        sluice_pump(s, 2000);
        double took = processor_seconds() - start;
        if (took > longest) {
            second = longest;
            longest = took;
        } else if (took > second) {
            second = took;
        }
    }
    return second;
}

static void runaways(void)
{
    static const char *const chunks[] = {
        "while true do end",
        "local each = coroutine.wrap(function() while true do end end) each()",
        /* spends its time where Lua cannot yield, but never long at once */
        "local t = { 5, 3, 1, 4, 2 }\n"
        "while true do table.sort({ table.unpack(t) }, function(a, b)\n"
        "  for _ = 1, 1000 do end return a < b end) end",
    };
    sluice *s = open_plain();
    outcome ends[50], polite;
    for (int i = 0; i < 50; i++)
        CHECK(spawn(s, chunks[i % 3], &ends[i]) > 0);
    CHECK(second_longest_pump(s, 50) < 0.020);
    int number = spawn(s, "return 'served'", &polite);
    CHECK(number > 0);
    for (int i = 0; i < 200 && !polite.calls; i++)
        CHECK(sluice_pump(s, 2000) == 1);
    CHECK(polite.calls == 1 && strcmp(polite.text, "\"served\"") == 0);
    double start = seconds_now();
    sluice_delete(s); /* runaways do not hold up the end for more than its second */
    CHECK(seconds_now() - start < 3);
    for (int i = 0; i < 50; i++)
        CHECK(ends[i].calls == 1 && ends[i].status == SLUICE_ECANCELLED);
}

static void cancelled_runaway(void)
{
    sluice *s = open_plain();
    outcome end;
    int number = spawn(s, "local n = 0 while true do n = n + 1 end", &end);
    sluice_pump(s, 2000);
    sluice_cancel(s, number, "too long");
    double start = seconds_now();
    while (!end.calls && seconds_now() - start < 10)
        sluice_pump(s, 2000);
    CHECK(end.status == SLUICE_ECANCELLED && strstr(end.text, "too long"));
    sluice_delete(s);
}

static void slices(void)
{
    sluice *s = open_plain();
    outcome end;
    const char *chunk =
        "local function produce(n)\n"
        "  return coroutine.wrap(function()\n"
        "    for i = 1, n do local x = 0 for j = 1, 500 do x = x + j end\n"
        "      coroutine.yield(i, x) end\n"
        "  end)\n"
        "end\n"
        "local function doubled(source) return coroutine.wrap(function()\n"
        "  for i, x in source do coroutine.yield(2 * i, x) end end) end\n"
        "local sum, count = 0, 0\n"
        "for i, x in doubled(produce(3000)) do\n"
        "  assert(x == 125250) sum = sum + i count = count + 1 end\n"
        "local co = coroutine.create(function(a) for i = 1, 1e6 do a = a + 1 end return a end)\n"
        "local ok, a = coroutine.resume(co, 5)\n"
        "assert(ok and a == 1000005 and coroutine.status(co) == 'dead')\n"
        "local sorted = {} for i = 1, 2000 do sorted[i] = (i * 7919) % 2003 end\n"
        "table.sort(sorted, function(x, y) for _ = 1, 20 do end return x < y end)\n"
        "for i = 2, #sorted do assert(sorted[i - 1] <= sorted[i]) end\n"
        "return { sum, count }";
    int pumps = 0;
    CHECK(spawn(s, chunk, &end) > 0);
    for (; !end.calls; pumps++)
        sluice_pump(s, 500);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "[9003000,3000]") == 0);
    CHECK(pumps > 3);
    sluice_delete(s);
}

/* The programs of spec/random_trees.lua, cut into slices of a few instructions. */
static void sliced_trees(void)
{
    sluice_options options = {.size = sizeof options, .capabilities = SLUICE_CAN_EVERYTHING};
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    outcome end;
    const char *chunk = "arg = { 1, 200 } print = function() end\n"
                        "dofile 'spec/random_trees.lua' return 'ended'";
    CHECK(spawn(s, chunk, &end) > 0);
    while (!end.calls)
        if (sluice_pump(s, 1) == 0 && !end.calls)
            CHECK(sluice_wait(s, 1000000) == SLUICE_OK);
    if (end.status != SLUICE_OK)
        fprintf(stderr, "%s\n", end.text);
    CHECK(end.status == SLUICE_OK);
    sluice_delete(s);
}

static const test_case cases[] = {
    {"results", results},
    {"errors", errors},
    {"cancellation", cancellation},
    {"runaways", runaways},
    {"cancelled_runaway", cancelled_runaway},
    {"slices", slices},
    {"sliced_trees", sliced_trees},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
