-- SPDX-License-Identifier: MIT
-- Runs busted inside a task, so that specs can wait: of our own binary, or under a stock Lua with the rock.
--
--     build/sluice spec/run.lua [busted's options] spec/NAME_spec.lua...
--     lua5.4 spec/run.lua ...

package.path = "spec/?.lua;" .. package.path
table.insert(arg, 1, "--helper=spec/guard.lua")

local function run()
  require "busted.runner" { standalone = false }
end

-- what is loaded before busted begins stays for all specs: the core alone
if package.preload["sluice.core.task"] then run() else require("sluice.core.task").run(run) end
