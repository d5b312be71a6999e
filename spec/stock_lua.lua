#!/usr/bin/env lua5.4
-- SPDX-License-Identifier: MIT
-- The command line of `sluice` by a stock Lua with the rock: with it the specs that run scripts, or several programs
-- at once, do so there too. It has no signals, no REPL and nothing else that the program does in C.

local folder <const> = arg[0]:match "^(.*)/" or "."
local command = assert(loadfile(folder .. "/../runtime/host/command.lua"))
os.exit(require("sluice.core.task").run(command, "", "sluice", table.unpack(arg)), true)
