/* SPDX-License-Identifier: MIT */
/* What an answer, its failure and its times become in Lua; a part of the binding. */
#ifndef SL_HTTP_ANSWER_LUA_H
#define SL_HTTP_ANSWER_LUA_H

#include "engine.h"

/** Pushes { timing = { ... }, remote_address = }, as sluice.meta shows it. */
void sl_http_push_facts(lua_State *L, const sl_http_transfer *transfer);
/** Pushes nil and { kind =, message =, phase =, limit =, code =, object =, facts =, ... }; 2. */
int sl_http_push_failure(lua_State *L, const sl_http_transfer *transfer);
/** Pushes what is known beside status and body, as bytes for the functions below: most answers are
 * never asked for it. */
void sl_http_push_record(lua_State *L, const sl_http_transfer *transfer);

/* Lua functions of such bytes: */
/** The facts, as of sl_http_push_facts. */
int sl_http_record_facts(lua_State *L);
/** The header fields, { name, value, name, value, ... }. */
int sl_http_record_fields(lua_State *L);
/** The reason phrase. */
int sl_http_record_reason(lua_State *L);

#endif
