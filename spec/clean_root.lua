-- SPDX-License-Identifier: MIT
-- The Debian package, `make install` and a bundle on a Debian that has nothing else: `make test-clean-root`.
-- A root of its own is made each time, by debootstrap from the mirror.

local support = require "support"

local quote = support.quote

local function output(command, ...)
  local result = support.shell(command:format(...))
  local said = "%s: status %s\n%s%s"
  if result.status ~= 0 then
    error(said:format(command, result.status, result.out, result.err), 0)
  end
  return result.out
end

-- Why there cannot be a root here, else nil.
local function missing()
  if support.shell("command -v debootstrap").status ~= 0 then return "debootstrap is not installed" end
  if output("id -u") ~= "0\n" then return "debootstrap needs root" end
end

local MIRROR <const> = os.getenv "DEBIAN_MIRROR" or "http://deb.debian.org/debian"

describe("a clean root", function()
  local root, reason

  local function inside(command, ...)
    local path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    local words = quote(command:format(...))
    return support.shell(("chroot %s /usr/bin/env -i %s sh -c %s"):format(root, path, words))
  end

  local function succeeds(command, ...)
    local result = inside(command, ...)
    assert.are.equal(0, result.status, result.out .. result.err)
    return result.out
  end

  setup(function()
    reason = missing()
    if reason then return end
    root = output("mktemp -d"):gsub("%s+$", "")
    local made = support.shell(("debootstrap --variant=minbase bookworm %s %s"):format(root, MIRROR))
    if made.status ~= 0 then reason = "debootstrap: " .. (made.out .. made.err):sub(-300) end
    if not reason then output("cp /etc/resolv.conf %s/etc/", root) end
  end)

  teardown(function()
    if root then support.shell("rm -rf --one-file-system " .. root) end
  end)

  it("runs a bundle before anything is installed", function()
    if reason then return pending(reason) end
    output("echo 'print(..., require(\"sluice.task\").now() > 0)' >%s/app.lua", root)
    output("%s bundle %s/app.lua -o %s/app", quote(support.binary), root, root)
    assert.are.equal("one\ttrue\n", succeeds "/app one")
  end)

  it("says which library is missing when a request needs one", function()
    if reason then return pending(reason) end
    output("cp %s %s/sluice", quote(support.binary), root)
    local asked = inside [[/sluice -e 'require("sluice").http.request { url = "http://127.0.0.1:1/" }']]
    assert.are_not.equal(0, asked.status)
    assert.matches("libcurl.so.4: cannot open shared object", asked.err)
  end)

  it("takes the package with what it depends on, and gives it back", function()
    if reason then return pending(reason) end
    local package = output("make -s deb BUILD=%s", quote(support.build)):match "([^\n]*)\n$"
    output("cp %s %s/sluice.deb", package, root)
    local before = succeeds "find /usr /etc -type f | sort"
    succeeds "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq /sluice.deb"
    assert.matches("^sluice %d", succeeds "sluice --version")
    assert.matches("\n", succeeds "sluice --emulator /usr/share/doc/sluice/examples/quickstart.lua")
    assert.matches("libsluice.so.0", succeeds "ldconfig -p")
    succeeds "dpkg --purge sluice"
    assert.are.equal("", succeeds "find /usr -name '*sluice*'")
    assert.is_true(#before > 0)
  end)

  it("takes make install, and is as it was after make uninstall", function()
    if reason then return pending(reason) end
    local before = succeeds "find /usr | sort"
    output("make -s install BUILD=%s DESTDIR=%s PREFIX=/usr/local", quote(support.build), root)
    assert.matches("^sluice %d", succeeds "sluice --version")
    assert.are.equal("done\n", succeeds [[sluice -e 'require("sluice").task.sleep(0.01) print "done"']])
    output("make -s uninstall DESTDIR=%s PREFIX=/usr/local", root)
    assert.are.equal(before, succeeds "find /usr | sort")
  end)
end)
