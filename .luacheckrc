std = "lua54"
cache = false
max_line_length = 110
max_comment_line_length = 250
include_files = { "lua", "scripts", "spec", "runtime/host", "tools" }
exclude_files = { "build", "node_modules" }
files["spec"] = { std = "lua54+busted" }
