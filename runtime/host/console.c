/* SPDX-License-Identifier: MIT */
/* The console of the program's REPL. */
#include "console.h"
#include "history.h"
#include "json_text.h"
#include "keys.h"
#include "line_editor.h"
#include "screen.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum {
    READ_AT_ONCE = 4096,
};

struct console {
    sluice *s;
    screen screen;
    /** The terminal's own streams: those that the console stands before. */
    FILE *terminal, *terminal_error;
    line_editor *editor;
    /** Why there is no editor, for people. */
    char missing[256];
    /** Somebody types, and output goes to the same terminal. */
    bool is_interactive;
    /** There is no more input; the terminal is gone. */
    bool has_ended, is_hung_up;
    /** Who waits: 0 nobody. */
    sluice_call line_call, interrupt_call;
    /** Ctrl-C came when nobody waited for it. */
    bool is_interrupted;
    /** The line that was begun: it goes on after a completion. Nothing was read for it yet. */
    bool is_begun, is_fresh;
    char *prompt;
    /** Without an editor: bytes that were read. */
    char *input;
    size_t input_length, input_size;
    int history;
};

/* Of signal handlers, which have no argument of ours. */
static struct termios console_terminal_before;
static volatile sig_atomic_t console_terminal_known, console_was_resized, console_was_stopped;

void console_restore(void)
{
    if (console_terminal_known)
        tcsetattr(STDIN_FILENO, TCSANOW, &console_terminal_before);
}

void console_note_signal(int number)
{
    if (number == SIGWINCH)
        console_was_resized = 1;
    else
        console_was_stopped = 1;
}

bool console_is_wanted(int argc, char **argv)
{
    return argc == 1 || (argc == 2 && strcmp(argv[1], "--emulator") == 0);
}

/* ---- answering Lua ---- */

/** Ends a call with a text that was made in memory. */
static void complete_with(console *self, sluice_call call, const char *json)
{
    sluice_complete(self->s, call, json, strlen(json));
}

static void answer_line(console *self, const char *event, const char *text, size_t length)
{
    sluice_call call = self->line_call;
    char *json = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&json, &size);
    self->line_call = 0;
    sluice_watch(self->s, STDIN_FILENO, 0, NULL, NULL);
    if (out) {
        fprintf(out, "{\"event\":\"%s\"", event);
        if (text) {
            fputs(",\"text\":", out);
            json_text_write(out, text, length);
        }
        fprintf(out, "%s}", self->is_hung_up ? ",\"hangup\":true" : "");
        fclose(out);
    }
    if (json)
        sluice_complete(self->s, call, json, size);
    else
        sluice_fail(self->s, call, "HostError", "not enough memory");
    free(json);
}

/** The line that was typed becomes output like any other. */
static void leave_line(console *self, const char *mark)
{
    /* a copy: hiding the line has the editor write its text anew, with what stood behind its end */
    char *copy = strdup(line_editor_text(self->editor, NULL));
    const char *text = copy ? copy : "";
    screen_hide(&self->screen);
    self->screen.is_typing = false;
    if (self->screen.tail_length > 0)
        screen_write(&self->screen, "\n", 1);
    screen_write(&self->screen, self->prompt, strlen(self->prompt));
    screen_write(&self->screen, text, strlen(text));
    screen_write(&self->screen, mark, strlen(mark));
    free(copy);
    self->is_begun = false;
    line_editor_stop(self->editor);
}

/* ---- lines with an editor ---- */

static void handle_keys(console *self)
{
    screen_settle(&self->screen);
    enum line_event event = line_editor_step(self->editor);
    screen_settle(&self->screen);
    if (event == LINE_NONE)
        return;
    size_t before = 0;
    char *text = strdup(line_editor_text(self->editor, &before));
    if (!text)
        return;
    if (event == LINE_COMPLETE) {
        answer_line(self, "complete", text, before);
    } else if (event == LINE_END) {
        leave_line(self, "\n");
        answer_line(self, "end", NULL, 0);
    } else {
        leave_line(self, "\n");
        answer_line(self, "line", text, strlen(text));
    }
    free(text);
}

static void begin_line(console *self)
{
    screen_hide(&self->screen);
    line_editor_start(self->editor, self->prompt);
    self->screen.is_typing = true;
    self->is_begun = self->is_fresh = true;
    screen_settle(&self->screen);
}

/* ---- lines without one ---- */

static bool keep_input(console *self, const char *bytes, size_t length)
{
    if (self->input_length + length > self->input_size) {
        size_t size = 2 * (self->input_length + length);
        char *grown = realloc(self->input, size);
        if (!grown)
            return false;
        self->input = grown;
        self->input_size = size;
    }
    memcpy(self->input + self->input_length, bytes, length);
    self->input_length += length;
    return true;
}

/** Answers with the first line that was read; false where there is none yet. */
static bool answer_input(console *self)
{
    char *end = self->input_length > 0 ? memchr(self->input, '\n', self->input_length) : NULL;
    if (!end && !self->has_ended)
        return false;
    size_t length = end ? (size_t)(end - self->input) : self->input_length;
    size_t used = end ? length + 1 : length;
    if (used == 0) {
        if (self->is_begun)
            screen_write(&self->screen, "\n", 1);
        answer_line(self, "end", NULL, 0);
    } else {
        size_t shown = length > 0 && self->input[length - 1] == '\r' ? length - 1 : length;
        answer_line(self, "line", self->input, shown);
    }
    self->is_begun = self->screen.is_typing = false;
    screen_forget(&self->screen); /* the terminal has shown the line, and its end */
    self->input_length -= used;
    if (self->input_length > 0)
        memmove(self->input, self->input + used, self->input_length);
    return true;
}

/** The terminal shows what is typed; what it lacks is the prompt. */
static void show_plain_prompt(void *user)
{
    console *self = user;
    ssize_t written = write(self->screen.fd, self->prompt, strlen(self->prompt));
    (void)written; /* a terminal that is gone is seen when it is read */
}

static int no_rows(void *user, int columns)
{
    (void)user;
    (void)columns;
    return 0;
}

/* ---- reading ---- */

static void on_input(void *user, int fd, unsigned events)
{
    console *self = user;
    char bytes[READ_AT_ONCE];
    (void)events;
    ssize_t got = read(fd, bytes, sizeof bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got < 0 && !self->is_interactive)
        fprintf(stderr, "sluice: standard input: %s\n", strerror(errno));
    if (got <= 0) {
        self->has_ended = true;
        self->is_hung_up = self->editor != NULL || got < 0;
    }
    if (self->editor) {
        if (got > 0) {
            /* what Ctrl-D becomes that was typed before the line was ours to edit */
            if (self->is_fresh && bytes[0] == '\0')
                bytes[0] = KEY_CTRL('D');
            self->is_fresh = false;
            line_editor_feed(self->editor, bytes, (size_t)got);
            handle_keys(self);
            return;
        }
        self->screen.is_typing = false;
        answer_line(self, "end", NULL, 0);
        return;
    }
    if (got > 0 && !keep_input(self, bytes, (size_t)got))
        self->has_ended = true;
    answer_input(self);
}

static void take_prompt(console *self, const json_argument *prompt)
{
    free(self->prompt);
    self->prompt = strdup(self->is_interactive && prompt->text ? prompt->text : "");
}

static void read_line(void *user, sluice_call call, const char *arguments, size_t len)
{
    console *self = user;
    json_argument given[1];
    (void)len;
    self->line_call = call;
    self->is_interrupted = false;
    if (!self->is_begun && json_text_read(arguments, given, 1)) {
        take_prompt(self, &given[0]);
        json_text_free(given, 1);
    }
    if (!self->prompt || self->has_ended || self->screen.is_broken) {
        self->is_hung_up = self->is_hung_up || self->screen.is_broken;
        if (!self->prompt || self->editor || !answer_input(self))
            answer_line(self, "end", NULL, 0);
        return;
    }
    sluice_watch(self->s, STDIN_FILENO, SLUICE_READ, on_input, self);
    if (self->editor) {
        if (!self->is_begun)
            begin_line(self);
        handle_keys(self); /* what was typed, or pasted, behind the line before */
        return;
    }
    self->is_begun = self->screen.is_typing = self->is_interactive;
    screen_settle(&self->screen);
    answer_input(self);
}

static void on_line_cancelled(void *user, sluice_call call)
{
    console *self = user;
    (void)call;
    self->line_call = 0;
    sluice_watch(self->s, STDIN_FILENO, 0, NULL, NULL);
    if (self->editor && self->is_begun)
        leave_line(self, "\n");
}

static void edit(void *user, sluice_call call, const char *arguments, size_t len)
{
    console *self = user;
    json_argument given[3];
    (void)len;
    if (self->editor && self->is_begun && json_text_read(arguments, given, 3)) {
        screen_hide(&self->screen);
        size_t bytes = given[0].number > 0 ? (size_t)given[0].number : 0;
        line_editor_change(self->editor, bytes, given[1].text ? given[1].text : "");
        if (given[2].text) {
            /* above the line as it stands, which stays to be read */
            char *text = strdup(line_editor_text(self->editor, NULL));
            screen_write(&self->screen, self->prompt, strlen(self->prompt));
            screen_write(&self->screen, text ? text : "", text ? strlen(text) : 0);
            screen_write(&self->screen, "\n", 1);
            screen_write(&self->screen, given[2].text, given[2].length);
            screen_write(&self->screen, "\n", 1);
            free(text);
        }
        screen_settle(&self->screen);
        json_text_free(given, 3);
    }
    complete_with(self, call, "true");
}

/* ---- interrupts ---- */

static void wait_interrupt(void *user, sluice_call call, const char *arguments, size_t len)
{
    console *self = user;
    (void)arguments;
    (void)len;
    self->interrupt_call = call;
    if (self->is_interrupted) {
        self->is_interrupted = false;
        self->interrupt_call = 0;
        complete_with(self, call, "\"interrupted\"");
    }
}

static void on_interrupt_cancelled(void *user, sluice_call call)
{
    console *self = user;
    if (self->interrupt_call == call)
        self->interrupt_call = 0;
}

bool console_interrupt(console *self)
{
    if (!self->is_interactive)
        return false;
    sluice_call call = self->interrupt_call;
    if (self->line_call) {
        if (self->editor) {
            leave_line(self, "^C\n");
            line_editor_drop(self->editor);
        } else {
            self->screen.is_typing = self->is_begun = false;
            screen_write(&self->screen, "\n", 1);
        }
        answer_line(self, "interrupt", NULL, 0);
    } else if (call) {
        self->interrupt_call = 0;
        complete_with(self, call, "\"interrupted\"");
    } else {
        self->is_interrupted = true;
    }
    return true;
}

/* ---- the history, and what the terminal can do ---- */

static void take_entry(void *user, const char *entry)
{
    console *self = user;
    if (self->editor)
        line_editor_remember(self->editor, entry);
}

static void open_history(void *user, sluice_call call, const char *arguments, size_t len)
{
    console *self = user;
    json_argument given[1];
    (void)len;
    if (!json_text_read(arguments, given, 1) || !given[0].text) {
        sluice_fail(self->s, call, "HostError", "a path is needed");
        return;
    }
    self->history = history_open(given[0].text, take_entry, self);
    if (self->history < 0)
        sluice_fail(self->s, call, "HostError", strerror(errno));
    else
        complete_with(self, call, "true");
    json_text_free(given, 1);
}

static void remember(void *user, sluice_call call, const char *arguments, size_t len)
{
    console *self = user;
    json_argument given[1];
    (void)len;
    if (!json_text_read(arguments, given, 1) || !given[0].text) {
        sluice_fail(self->s, call, "HostError", "an entry is needed");
        return;
    }
    take_entry(self, given[0].text);
    if (self->history >= 0 && history_append(self->history, given[0].text) != 0) {
        sluice_fail(self->s, call, "HostError", strerror(errno));
        close(self->history);
        self->history = -1;
    } else {
        complete_with(self, call, "true");
    }
    json_text_free(given, 1);
}

static void describe_console(void *user, sluice_call call, const char *arguments, size_t len)
{
    console *self = user;
    char *json = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&json, &size);
    (void)arguments;
    (void)len;
    if (out) {
        fprintf(out, "{\"interactive\":%s,\"editor\":%s,\"missing\":",
                self->is_interactive ? "true" : "false", self->editor ? "true" : "false");
        json_text_write(out, self->missing, strlen(self->missing));
        putc('}', out);
        fclose(out);
    }
    if (json)
        sluice_complete(self->s, call, json, size);
    else
        sluice_fail(self->s, call, "HostError", "not enough memory");
    free(json);
}

/* ---- life ---- */

static ssize_t write_through(void *cookie, const char *bytes, size_t length)
{
    console *self = cookie;
    return screen_write(&self->screen, bytes, length) ? (ssize_t)length : 0;
}

static FILE *stand_before(console *self)
{
    FILE *stream = fopencookie(self, "w", (cookie_io_functions_t){.write = write_through});
    if (stream)
        setvbuf(stream, NULL, _IONBF, 0);
    return stream;
}

/** Characters are UTF-8 where nobody says otherwise: containers often say nothing. */
static void set_up_characters(void)
{
    setlocale(LC_CTYPE, "");
    const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return;
    }
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static void hide_line(void *user)
{
    console *self = user;
    screen_hide(&self->screen);
}

static void draw_editor(void *user)
{
    console *self = user;
    line_editor_draw(self->editor);
}

static int editor_rows(void *user, int columns)
{
    console *self = user;
    return line_editor_rows(self->editor, columns);
}

static void open_terminal(console *self)
{
    const char *kind = getenv("TERM");
    bool can_move = kind && *kind && strcmp(kind, "dumb") != 0;
    set_up_characters();
    screen_init(&self->screen, STDOUT_FILENO, can_move);
    console_terminal_known = tcgetattr(STDIN_FILENO, &console_terminal_before) == 0;
    self->terminal = stdout;
    self->terminal_error = stderr;
    if (can_move)
        self->editor =
            line_editor_open(self->terminal, hide_line, self, self->missing, sizeof self->missing);
    bool is_edited = self->editor != NULL;
    self->screen.can_move = can_move && is_edited;
    self->screen.line = (screen_line){.draw = is_edited ? draw_editor : show_plain_prompt,
                                      .rows = is_edited ? editor_rows : no_rows,
                                      .user = self};
    FILE *out = stand_before(self), *error = stand_before(self);
    if (out)
        stdout = out;
    if (error && isatty(STDERR_FILENO))
        stderr = error;
    else if (error)
        fclose(error);
}

console *console_open(void)
{
    console *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->history = -1;
    self->is_interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    self->screen.fd = STDOUT_FILENO;
    if (self->is_interactive)
        open_terminal(self);
    return self;
}

int console_attach(console *self, sluice *s)
{
    const struct {
        const char *name;
        sluice_function function;
        sluice_call_cancelled cancelled;
    } functions[] = {
        {"read_line", read_line, on_line_cancelled},
        {"edit", edit, NULL},
        {"wait_interrupt", wait_interrupt, on_interrupt_cancelled},
        {"console", describe_console, NULL},
        {"open_history", open_history, NULL},
        {"remember", remember, NULL},
    };
    self->s = s;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        int status = sluice_register(s, functions[i].name, functions[i].function,
                                     functions[i].cancelled, self);
        if (status < 0)
            return status;
    }
    return SLUICE_OK;
}

void console_turn(console *self)
{
    if (console_was_resized) {
        console_was_resized = 0;
        screen_resize(&self->screen);
        screen_hide(&self->screen);
        if (self->editor)
            line_editor_resize(self->editor);
    }
    if (console_was_stopped) {
        console_was_stopped = 0;
        screen_forget(&self->screen);
        if (self->editor)
            line_editor_resume(self->editor);
    }
    if (self->is_interactive)
        screen_settle(&self->screen);
}

void console_close(console *self)
{
    if (!self)
        return;
    if (self->is_interactive) {
        screen_hide(&self->screen);
        self->screen.is_typing = false;
        screen_settle(&self->screen);
        line_editor_close(self->editor);
        console_restore();
        FILE *out = stdout, *error = stderr;
        stdout = self->terminal;
        stderr = self->terminal_error;
        if (out != stdout)
            fclose(out);
        if (error != stderr)
            fclose(error);
    }
    if (self->history >= 0)
        close(self->history);
    screen_fini(&self->screen);
    free(self->prompt);
    free(self->input);
    free(self);
}
