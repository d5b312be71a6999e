/* SPDX-License-Identifier: MIT */
/* JSON text to a tree of C values. No recursion: what is open is kept on a stack of its own. */
#include "json_tree.h"

enum { TREE_DEPTH = 64 };

typedef struct tree_reader {
    json_arena *arena;
    const char *p, *end;
    size_t depth;
    json_node *open[TREE_DEPTH];
    /** Where the next member of each goes. */
    json_node **tail[TREE_DEPTH];
} tree_reader;

static void *tree_take(json_arena *arena, size_t size)
{
    size = (size + 7) & ~(size_t)7;
    if (size > arena->capacity - arena->used)
        return NULL;
    void *block = arena->data + arena->used;
    arena->used += size;
    return block;
}

static void tree_skip_space(tree_reader *r)
{
    while (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t')
        r->p++;
}

/* r->p is behind the opening quote */
static const char *tree_string(tree_reader *r, size_t *length)
{
    json_arena *arena = r->arena;
    const char *from = r->p, *stop = sl_json_scan_string(from, r->end), *close = stop;
    size_t size = (size_t)(stop - from);
    if (*stop != '"') {
        sl_json_fault fault;
        arena->scratch.length = 0;
        close = sl_json_read_string(&arena->scratch, from, stop, r->end, false, &fault);
        from = arena->scratch.data;
        size = arena->scratch.length;
    }
    char *text = close ? tree_take(arena, size + 1) : NULL;
    if (!text)
        return NULL;
    memcpy(text, from, size);
    text[size] = '\0';
    r->p = close + 1;
    *length = size;
    return text;
}

static bool tree_number(tree_reader *r, json_node *node)
{
    sl_json_number number;
    r->p = sl_json_read_number(r->p, &number);
    if (number.kind == SL_JSON_INTEGER) {
        node->type = JSON_INTEGER;
        node->as.integer = number.integer;
        return true;
    }
    node->type = JSON_FLOAT;
    node->as.number = number.value;
    return number.kind == SL_JSON_FLOAT;
}

static bool tree_word(tree_reader *r, json_node *node, const char *word, json_type type)
{
    size_t length = strlen(word);
    if (strncmp(r->p, word, length) != 0)
        return false;
    r->p += length;
    node->type = type;
    return true;
}

static bool tree_open(tree_reader *r, json_node *node, json_type type)
{
    if (r->depth == TREE_DEPTH)
        return false;
    r->p++;
    node->type = type;
    node->as.first = NULL;
    r->open[r->depth] = node;
    r->tail[r->depth++] = &node->as.first;
    return true;
}

static bool tree_value(tree_reader *r, json_node *node)
{
    switch (*r->p) {
    case '{':
        return tree_open(r, node, JSON_OBJECT);
    case '[':
        return tree_open(r, node, JSON_ARRAY);
    case '"':
        r->p++;
        node->type = JSON_STRING;
        node->as.string.text = tree_string(r, &node->as.string.length);
        return node->as.string.text != NULL;
    case 't':
        return tree_word(r, node, "true", JSON_TRUE);
    case 'f':
        return tree_word(r, node, "false", JSON_FALSE);
    case 'n':
        return tree_word(r, node, "null", JSON_NULL);
    default:
        return tree_number(r, node);
    }
}

static bool tree_key(tree_reader *r, json_node *node)
{
    size_t length;
    if (*r->p++ != '"')
        return false;
    node->key = tree_string(r, &length);
    tree_skip_space(r);
    if (!node->key || *r->p++ != ':')
        return false;
    tree_skip_space(r);
    return true;
}

/** One more member of the innermost open container, or its end. */
static bool tree_step(tree_reader *r)
{
    json_node *around = r->open[r->depth - 1];
    bool is_first = !around->as.first;
    tree_skip_space(r);
    if (*r->p == (around->type == JSON_OBJECT ? '}' : ']')) {
        r->p++;
        r->depth--;
        return true;
    }
    if (!is_first && *r->p++ != ',')
        return false;
    tree_skip_space(r);
    json_node *node = tree_take(r->arena, sizeof *node);
    if (!node)
        return false;
    node->key = NULL;
    node->next = NULL;
    if (around->type == JSON_OBJECT && !tree_key(r, node))
        return false;
    *r->tail[r->depth - 1] = node;
    r->tail[r->depth - 1] = &node->next;
    return tree_value(r, node);
}

const json_node *json_tree_read(json_arena *arena, const char *text, size_t length)
{
    tree_reader r = {.arena = arena, .p = text, .end = text + length};
    arena->used = 0;
    json_node *root = tree_take(arena, sizeof *root);
    if (!root)
        return NULL;
    root->key = NULL;
    root->next = NULL;
    tree_skip_space(&r);
    bool good = tree_value(&r, root);
    while (good && r.depth > 0)
        good = tree_step(&r);
    if (good)
        tree_skip_space(&r);
    return good && r.p == r.end ? root : NULL;
}

const json_node *json_tree_member(const json_node *object, const char *key)
{
    if (!object || object->type != JSON_OBJECT)
        return NULL;
    for (const json_node *node = object->as.first; node; node = node->next) {
        if (strcmp(node->key, key) == 0)
            return node;
    }
    return NULL;
}
