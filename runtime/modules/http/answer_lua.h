/* SPDX-License-Identifier: MIT */
/* What an answer, its failure and its times become in Lua; a part of the binding. */
#ifndef SL_HTTP_ANSWER_LUA_H
#define SL_HTTP_ANSWER_LUA_H

#include "engine.h"

/** Pushes { timing = { ... }, remote_address = }, as sluice.meta shows it. */
void sl_http_push_facts(lua_State *L, const sl_http_transfer *transfer);
/** Pushes nil and { kind =, message =, phase =, limit =, code =, object =, facts =, ... }; 2. */
int sl_http_push_failure(lua_State *L, const sl_http_transfer *transfer);
/** Pushes the reason phrase and the header lines as they came. */
void sl_http_push_head(lua_State *L, const sl_http_buffer *head);
/** A Lua function: (header lines) gives { name, value, name, value, ... }. */
int sl_http_fields(lua_State *L);

#endif
