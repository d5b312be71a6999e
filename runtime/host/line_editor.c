/* SPDX-License-Identifier: MIT */
/* Editing a line on a terminal, by libedit. */
#include "line_editor.h"
#include "keys.h"
#include "width.h"

#include <dlfcn.h>
#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum {
    HISTORY_ENTRIES = 1000,
    PROMPT_BYTES = 256,
    QUERY_BYTES = 128,
};

static const char editor_library[] = "libedit.so.2";

/** The functions of the library. */
typedef struct editor_api {
    EditLine *(*el_init)(const char *, FILE *, FILE *, FILE *);
    void (*el_end)(EditLine *);
    int (*el_set)(EditLine *, int, ...);
    int (*el_wset)(EditLine *, int, ...);
    const char *(*el_gets)(EditLine *, int *);
    const LineInfo *(*el_line)(EditLine *);
    int (*el_insertstr)(EditLine *, const char *);
    void (*el_deletestr)(EditLine *, int);
    int (*el_cursor)(EditLine *, int);
    int (*el_source)(EditLine *, const char *);
    void (*el_resize)(EditLine *);
    History *(*history_init)(void);
    void (*history_end)(History *);
    int (*history)(History *, HistEvent *, int, ...);
} editor_api;

struct line_editor {
    editor_api api;
    void *library;
    EditLine *line;
    History *history;
    void (*hide)(void *user);
    void *hide_user;
    /** Typed and not handled. */
    char *typed;
    size_t typed_length, typed_size, typed_at;
    /** The line began, and libedit has the terminal. */
    bool is_started, is_raw;
    enum line_event event;
    char prompt[PROMPT_BYTES];
    /** Searching backwards: what for, from which entry on, and the line as it was. */
    bool is_searching;
    char query[QUERY_BYTES];
    int skip;
    char *before_search;
    char search_prompt[PROMPT_BYTES + QUERY_BYTES];
};

/* ---- loading ---- */

static bool load_symbols(line_editor *self)
{
    const struct {
        const char *name;
        void *target;
    } symbols[] = {
        {"el_init", &self->api.el_init},
        {"el_end", &self->api.el_end},
        {"el_set", &self->api.el_set},
        {"el_wset", &self->api.el_wset},
        {"el_gets", &self->api.el_gets},
        {"el_line", &self->api.el_line},
        {"el_insertstr", &self->api.el_insertstr},
        {"el_deletestr", &self->api.el_deletestr},
        {"el_cursor", &self->api.el_cursor},
        {"el_source", &self->api.el_source},
        {"el_resize", &self->api.el_resize},
        {"history_init", &self->api.history_init},
        {"history_end", &self->api.history_end},
        {"history", &self->api.history},
    };
    self->library = dlopen(editor_library, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; self->library && i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(self->library, symbols[i].name);
        if (!symbol)
            return false;
        memcpy(symbols[i].target, &symbol, sizeof symbol);
    }
    return self->library != NULL;
}

static line_editor *editor_of(EditLine *line);

/* ---- what libedit calls ---- */

/** The next character that was typed; a key is handed over as a whole, so there is one. */
static int read_typed(EditLine *line, wchar_t *character)
{
    line_editor *self = editor_of(line);
    size_t left = self->typed_length - self->typed_at;
    if (left == 0)
        return -1;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    size_t bytes = mbrtowc(character, self->typed + self->typed_at, left, &state);
    if (bytes == 0 || bytes == (size_t)-1 || bytes == (size_t)-2) {
        *character = (unsigned char)self->typed[self->typed_at];
        bytes = 1;
    }
    self->typed_at += bytes;
    return 1;
}

static char *show_prompt(EditLine *line)
{
    line_editor *self = editor_of(line);
    return self->is_searching ? self->search_prompt : self->prompt;
}

static unsigned char on_enter(EditLine *line, wint_t character)
{
    (void)character;
    editor_of(line)->event = LINE_ENTERED;
    return CC_NORM;
}

static unsigned char on_tab(EditLine *line, wint_t character)
{
    (void)character;
    editor_of(line)->event = LINE_COMPLETE;
    return CC_NORM;
}

/** Ctrl-D: deletes the character at the cursor, and ends where there is no line. */
static unsigned char on_delete_or_end(EditLine *line, wint_t character)
{
    line_editor *self = editor_of(line);
    const LineInfo *info = self->api.el_line(line);
    (void)character;
    if (info->lastchar == info->buffer) {
        self->event = LINE_END;
        return CC_NORM;
    }
    if (info->cursor == info->lastchar)
        return CC_ERROR;
    self->api.el_cursor(line, 1);
    self->api.el_deletestr(line, 1);
    return CC_REFRESH;
}

/* ---- the line ---- */

static void set_line(line_editor *self, const char *text)
{
    const LineInfo *info = self->api.el_line(self->line);
    int characters = 0;
    for (const char *at = info->buffer; at < info->lastchar; at++)
        characters += (*at & 0xc0) != 0x80;
    self->api.el_cursor(self->line, characters);
    self->api.el_deletestr(self->line, characters);
    if (*text)
        self->api.el_insertstr(self->line, text);
}

const char *line_editor_text(line_editor *self, size_t *before_cursor)
{
    const LineInfo *info = self->api.el_line(self->line);
    if (before_cursor)
        *before_cursor = (size_t)(info->cursor - info->buffer);
    *(char *)(size_t)info->lastchar = '\0'; /* our view of the line ends there */
    return info->buffer;
}

void line_editor_change(line_editor *self, size_t bytes, const char *text)
{
    const LineInfo *info = self->api.el_line(self->line);
    int characters = 0;
    for (const char *at = info->cursor; at > info->buffer && bytes > 0; bytes--)
        characters += (*--at & 0xc0) != 0x80;
    if (characters > 0)
        self->api.el_deletestr(self->line, characters);
    if (*text)
        self->api.el_insertstr(self->line, text);
}

const char *line_editor_prompt(const line_editor *self)
{
    return self->prompt;
}

int line_editor_rows(line_editor *self, int columns)
{
    const char *prompt = self->is_searching ? self->search_prompt : self->prompt;
    const LineInfo *info = self->api.el_line(self->line);
    text_place place = {0, 0};
    width_follow(&place, prompt, strlen(prompt), columns);
    width_follow(&place, info->buffer, (size_t)(info->cursor - info->buffer), columns);
    return place.row;
}

/* ---- searching ---- */

static void show_search(line_editor *self, const char *found)
{
    snprintf(self->search_prompt, sizeof self->search_prompt, "(%s `%s') ", found ? "search" : "no",
             self->query);
    if (found)
        set_line(self, found);
}

/** Finds the entry with the query in it, `skip` such entries back. */
static const char *find_entry(line_editor *self)
{
    HistEvent event;
    int left = self->skip;
    int status = self->api.history(self->history, &event, H_FIRST);
    while (status >= 0) {
        if (strstr(event.str, self->query) && left-- == 0)
            return event.str;
        status = self->api.history(self->history, &event, H_NEXT);
    }
    return NULL;
}

static unsigned char on_search(EditLine *line, wint_t character)
{
    line_editor *self = editor_of(line);
    (void)character;
    self->hide(self->hide_user);
    self->before_search = strdup(line_editor_text(self, NULL));
    self->is_searching = true;
    self->query[0] = '\0';
    self->skip = 0;
    show_search(self, "");
    return CC_NORM;
}

static void end_search(line_editor *self, bool restore)
{
    self->hide(self->hide_user);
    self->is_searching = false;
    if (restore && self->before_search)
        set_line(self, self->before_search);
    free(self->before_search);
    self->before_search = NULL;
}

static void search_again(line_editor *self)
{
    self->hide(self->hide_user);
    const char *found = self->query[0] ? find_entry(self) : "";
    if (!found && self->skip > 0)
        self->skip--;
    show_search(self, found);
}

/** Handles a key while searching; false: it ends the search and is for the line. */
static bool step_search(line_editor *self, const char *key, size_t length)
{
    size_t used = strlen(self->query);
    unsigned char first = (unsigned char)key[0];
    if (first == KEY_CTRL('R')) {
        self->skip++;
    } else if (first == KEY_CTRL('H') || first == 0x7f) {
        while (used > 0 && (self->query[--used] & 0xc0) == 0x80)
            continue;
        self->query[used] = '\0';
        self->skip = 0;
    } else if (first == KEY_CTRL('G')) {
        end_search(self, true);
        return true;
    } else if (first >= 0x20 && used + length < sizeof self->query) {
        memcpy(self->query + used, key, length);
        self->query[used + length] = '\0';
        self->skip = 0;
    } else {
        end_search(self, false);
        return false;
    }
    search_again(self);
    return true;
}

/* ---- keys ---- */

void line_editor_feed(line_editor *self, const char *bytes, size_t length)
{
    if (self->typed_length + length > self->typed_size) {
        size_t size = self->typed_length + length + 256;
        char *grown = realloc(self->typed, size);
        if (!grown)
            return;
        self->typed = grown;
        self->typed_size = size;
    }
    memcpy(self->typed + self->typed_length, bytes, length);
    self->typed_length += length;
}

void line_editor_drop(line_editor *self)
{
    self->typed_length = self->typed_at = 0;
}

static void forget_handled(line_editor *self)
{
    self->typed_length -= self->typed_at;
    memmove(self->typed, self->typed + self->typed_at, self->typed_length);
    self->typed_at = 0;
}

enum line_event line_editor_step(line_editor *self)
{
    self->event = LINE_NONE;
    while (self->event == LINE_NONE && self->is_started) {
        size_t length = key_length(self->typed, self->typed_length);
        if (length == 0)
            break;
        bool is_handled = self->is_searching && step_search(self, self->typed, length);
        if (!is_handled) {
            int count = 0;
            self->api.el_gets(self->line, &count);
        }
        /* of a key that means nothing to libedit it may have read a part */
        self->typed_at = self->typed_at > length ? self->typed_at : length;
        forget_handled(self);
    }
    return self->event;
}

/* ---- history ---- */

void line_editor_remember(line_editor *self, const char *entry)
{
    HistEvent event;
    self->api.history(self->history, &event, H_ENTER, entry);
}

/* ---- life ---- */

/* libedit gives its client data by a call only, which needs the function */
static line_editor *the_editor;

static line_editor *editor_of(EditLine *line)
{
    (void)line;
    return the_editor;
}

/** By wide names: of others libedit makes copies that nobody frees. */
static void add_function(line_editor *self, const wchar_t *name, const wchar_t *help,
                         unsigned char (*function)(EditLine *, wint_t))
{
    self->api.el_wset(self->line, EL_ADDFN, name, help, function);
}

static void bind_key(line_editor *self, const char *key, const char *function)
{
    self->api.el_set(self->line, EL_BIND, key, function, NULL);
}

static void bind_keys(line_editor *self)
{
    self->api.el_source(self->line, NULL); /* ~/.editrc */
    add_function(self, L"sluice-enter", L"Enters the line", on_enter);
    add_function(self, L"sluice-complete", L"Completes", on_tab);
    add_function(self, L"sluice-end", L"Deletes, or leaves", on_delete_or_end);
    add_function(self, L"sluice-search", L"Searches backwards", on_search);
    bind_key(self, "^M", "sluice-enter");
    bind_key(self, "^J", "sluice-enter");
    bind_key(self, "^I", "sluice-complete");
    bind_key(self, "^D", "sluice-end");
    bind_key(self, "^R", "sluice-search");
    bind_key(self, "\\e[3~", "ed-delete-next-char");
    bind_key(self, "\\e[H", "ed-move-to-beg");
    bind_key(self, "\\e[F", "ed-move-to-end");
    bind_key(self, "\\eOH", "ed-move-to-beg");
    bind_key(self, "\\eOF", "ed-move-to-end");
    bind_key(self, "\\e[1~", "ed-move-to-beg");
    bind_key(self, "\\e[4~", "ed-move-to-end");
    bind_key(self, "\\e[1;5D", "ed-prev-word");
    bind_key(self, "\\e[1;5C", "em-next-word");
}

static bool open_line(line_editor *self, FILE *out)
{
    HistEvent event;
    self->line = self->api.el_init("sluice", stdin, out, out);
    self->history = self->api.history_init();
    if (!self->line || !self->history)
        return false;
    the_editor = self;
    self->api.el_set(self->line, EL_SIGNAL, 0);
    self->api.el_set(self->line, EL_EDITOR, "emacs");
    self->api.el_set(self->line, EL_PROMPT, show_prompt);
    self->api.el_set(self->line, EL_GETCFN, read_typed);
    self->api.history(self->history, &event, H_SETSIZE, HISTORY_ENTRIES);
    self->api.history(self->history, &event, H_SETUNIQUE, 1);
    self->api.el_set(self->line, EL_HIST, self->api.history, self->history);
    bind_keys(self);
    return true;
}

line_editor *line_editor_open(FILE *out, void (*hide)(void *user), void *user, char *reason,
                              size_t reason_size)
{
    line_editor *self = calloc(1, sizeof *self);
    if (!self) {
        snprintf(reason, reason_size, "not enough memory");
        return NULL;
    }
    self->hide = hide;
    self->hide_user = user;
    if (!load_symbols(self)) {
        const char *error = dlerror();
        snprintf(reason, reason_size, "%s", error ? error : editor_library);
    } else if (!open_line(self, out)) {
        snprintf(reason, reason_size, "%s cannot use this terminal", editor_library);
    } else {
        return self;
    }
    line_editor_close(self);
    return NULL;
}

void line_editor_close(line_editor *self)
{
    if (!self)
        return;
    line_editor_stop(self);
    if (self->history)
        self->api.history_end(self->history);
    if (self->line)
        self->api.el_end(self->line);
    the_editor = NULL;
    /* the library stays: it has told the C library of things of its own */
    free(self->typed);
    free(self->before_search);
    free(self);
}

void line_editor_start(line_editor *self, const char *prompt)
{
    snprintf(self->prompt, sizeof self->prompt, "%s", prompt);
    self->is_started = true;
}

void line_editor_draw(line_editor *self)
{
    if (self->is_raw) {
        self->api.el_set(self->line, EL_REFRESH);
        return;
    }
    /* takes the terminal, empties the line and draws it */
    self->api.el_set(self->line, EL_UNBUFFERED, 1);
    self->is_raw = true;
}

void line_editor_stop(line_editor *self)
{
    if (self->is_searching)
        end_search(self, false);
    if (self->is_raw)
        self->api.el_set(self->line, EL_UNBUFFERED, 0);
    self->is_raw = self->is_started = false;
}

void line_editor_resume(line_editor *self)
{
    if (!self->is_raw)
        return;
    self->api.el_set(self->line, EL_PREP_TERM, 0);
    self->api.el_set(self->line, EL_PREP_TERM, 1);
}

void line_editor_resize(line_editor *self)
{
    self->api.el_resize(self->line);
}
