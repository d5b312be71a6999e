rockspec_format = "3.0"
package = "sluice"
version = "scm-1"
source = {
  url = "git+file://.", -- `luarocks make` in a clone
}
description = {
  summary = "Model endpoints from Lua: HTTP, streams, retries and caches on one event loop",
  detailed = [[
The library of Sluice for a stock Lua 5.4: sluice.run(f) gives the loop. The program `sluice`, which
needs no Lua, and libsluice, for hosts in C, come from the same Makefile.]],
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "make",
  build_target = "rock",
  install_target = "install-rock",
  install_variables = {
    ROCK_LIBDIR = "$(LIBDIR)",
    ROCK_LUADIR = "$(LUADIR)",
  },
}
