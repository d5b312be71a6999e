-- SPDX-License-Identifier: MIT
-- Prints a line and waits for the end of its input: what first_line.c starts.

io.write "ready\n"
io.flush()
io.read "a"
