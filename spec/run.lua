-- SPDX-License-Identifier: MIT
-- Runs busted inside a task of our own binary, so that specs can wait.
--
--     build/sluice spec/run.lua [busted's options] spec/NAME_spec.lua...

package.path = "spec/?.lua;" .. package.path
table.insert(arg, 1, "--helper=spec/guard.lua")
require "busted.runner" { standalone = false }
