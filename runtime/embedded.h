/* SPDX-License-Identifier: MIT */
/*
 * Lua files compiled into the program. tools/embed.lua writes the tables.
 */
#ifndef SL_EMBEDDED_H
#define SL_EMBEDDED_H

#include <stddef.h>

/** One Lua module as bytecode with its debug information, or as text; a table ends with a NULL
 * name. */
struct sl_embedded_file {
    /** The module's name, as require takes it. Static. */
    const char *name;
    /** What luaL_loadbufferx takes; in bytecode the chunk name is inside. Static. */
    const unsigned char *bytes;
    /** In bytes. */
    size_t size;
    /** 0, or the bytes are a block of LZ4, of this size once it is unpacked. */
    size_t unpacked_size;
};

/** The Lua library, packed, as the build embeds it; the dictionary that its blocks reach back into;
 * what the chunk names of its files begin with. */
extern const struct sl_embedded_file sl_library[];
extern const unsigned char sl_library_dictionary[];
extern const size_t sl_library_dictionary_size;
extern const char sl_library_source[];
/** The module whose `run` is what sluice_warm_up() calls. */
extern const char sl_library_warm_up[];

#endif
