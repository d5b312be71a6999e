/* SPDX-License-Identifier: MIT */
/* What an answer, its failure and its times become in Lua; a part of the binding. */
#ifndef SL_HTTP_ANSWER_LUA_H
#define SL_HTTP_ANSWER_LUA_H

#include "engine.h"

/** Pushes { timing = { ... }, remote_address = }, as sluice.meta shows it. */
void sl_http_push_facts(lua_State *L, const sl_http_transfer *transfer);
/** Pushes nil and { kind =, message =, phase =, limit =, code =, object =, facts =, ... }; 2. */
int sl_http_push_failure(lua_State *L, const sl_http_transfer *transfer);
/** Pushes the reason phrase and the fields as { name, value, name, value, ... }. */
void sl_http_push_head(lua_State *L, const sl_http_buffer *head);

#endif
