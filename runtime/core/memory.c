/* SPDX-License-Identifier: MIT */
/* Memory outside the Lua heap, through the allocator of the host. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

void *sl_memory_default(void *user, void *block, size_t size)
{
    (void)user;
    if (size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, size);
}

void *sl_alloc(sl_core *core, size_t size)
{
    return core->allocator(core->allocator_user, NULL, size ? size : 1);
}

void *sl_alloc_array(sl_core *core, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    void *block = sl_alloc(core, count * size);
    if (block)
        memset(block, 0, count * size);
    return block;
}

void *sl_realloc(sl_core *core, void *block, size_t size)
{
    return core->allocator(core->allocator_user, block, size ? size : 1);
}

void sl_free(sl_core *core, void *block)
{
    if (block)
        core->allocator(core->allocator_user, block, 0);
}
