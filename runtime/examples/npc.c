/* SPDX-License-Identifier: MIT */
/*
 * A game with SDL2 in which two characters talk, in words that stream in from a model.
 *
 * Each frame gives sluice 2 ms, draws, and goes on. The conversation itself is npc.lua, which calls
 * say() and think() of this file. Against an emulator:
 *
 *     build/sluice emulate --listen 127.0.0.1:8100 --token-time 60 &
 *     export DATABRICKS_HOST=http://127.0.0.1:8100 DATABRICKS_TOKEN=any
 *     build/sluice scripts/get_or_create.lua characters
 *     build/examples/npc runtime/examples/npc.lua
 *
 * NPC_ENDPOINT names another endpoint of your workspace; with OPENAI_BASE_URL and OPENAI_API_KEY it
 * is a model of that server.
 *
 *     npc SCRIPT.lua --measure FRAMES PICTURE.bmp
 *
 * ends after so many frames, saves the last one, and prints what the frames and their share of
 * sluice took.
 */
#include "sluice.h"

#include <SDL.h>
#include <SDL_test_font.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    WIDTH = 960,
    HEIGHT = 540,
    FRAME_US = 16667,
    BUDGET_US = 2000,
    /** What --measure calls too long; because of sluice where sluice took more than the slack. */
    LONG_FRAME_US = 20000,
    /** The font's 8 x 8 points are drawn twice as large. */
    SCALE = 2,
    COLUMNS = 26,
    TEXT_MAX = 1024,
    CAST = 2,
};

typedef struct character {
    const char *name;
    SDL_Color color;
    int x;
    char says[TEXT_MAX], thinks[TEXT_MAX];
} character;

/** `cpu_us` is of sluice_us what this thread ran: without what a busy machine took from it. */
typedef struct frame_time {
    long whole_us, sluice_us, cpu_us;
} frame_time;

typedef struct game {
    sluice *sluice;
    SDL_Window *window;
    SDL_Renderer *renderer;
    character cast[CAST];
    /** What the script failed with. */
    char problem[TEXT_MAX];
    /** When the next frame begins. */
    long next_us;
    /** Of --measure; else `frames` is 0, and the game lasts until its window is closed. */
    frame_time *times;
    long frames;
    const char *picture;
} game;

static long clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static long now_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

static long cpu_us(void)
{
    return clock_us(CLOCK_THREAD_CPUTIME_ID);
}

/* ---- what Lua calls ---- */

/** The text of the JSON string at `json`, as much of it as fits. */
static void copy_text(char *to, const char *json)
{
    size_t len = 0;
    for (json++; *json && *json != '"' && len + 1 < TEXT_MAX; json++) {
        char c = *json;
        if (c == '\\') {
            c = *++json;
            if (c == 'u') /* of control characters only: other text comes as it is */
                json += 4;
            if (c != '"' && c != '\\' && c != '/')
                c = ' ';
        }
        to[len++] = c;
    }
    to[len] = '\0';
}

/** The character that the arguments [NUMBER, "TEXT"] name, and where their text is. */
static character *who(game *self, const char *arguments, const char **text)
{
    long number = strtol(arguments + 1, NULL, 10);
    *text = strchr(arguments, '"');
    return number >= 1 && number <= CAST && *text ? &self->cast[number - 1] : NULL;
}

/* They return to Lua at once: what takes time would be completed in a later frame. */
static void say(void *user, sluice_call call, const char *arguments, size_t len)
{
    game *self = user;
    const char *text;
    character *speaker = who(self, arguments, &text);
    (void)len;
    if (speaker) {
        copy_text(speaker->says, text);
        speaker->thinks[0] = '\0';
    }
    sluice_complete(self->sluice, call, NULL, 0);
}

static void think(void *user, sluice_call call, const char *arguments, size_t len)
{
    game *self = user;
    const char *text;
    character *thinker = who(self, arguments, &text);
    (void)len;
    if (thinker)
        copy_text(thinker->thinks, text);
    sluice_complete(self->sluice, call, NULL, 0);
}

static void on_end(void *user, int status, const char *text, size_t len)
{
    game *self = user;
    (void)len;
    if (status != SLUICE_OK && status != SLUICE_ECANCELLED)
        snprintf(self->problem, sizeof self->problem, "%s", text);
}

/* ---- what is drawn ---- */

/** In lines of COLUMNS characters at most, broken at spaces. */
static void draw_text(SDL_Renderer *renderer, int x, int y, const char *text)
{
    while (*text) {
        char line[COLUMNS + 1];
        size_t len = strcspn(text, "\n");
        size_t next = len;
        if (len > COLUMNS) {
            len = COLUMNS;
            while (len > 1 && text[len] != ' ')
                len--;
            len = len > 1 ? len : COLUMNS;
            next = len;
        }
        memcpy(line, text, len);
        line[len] = '\0';
        SDLTest_DrawString(renderer, x, y, line);
        text += next;
        text += strspn(text, " \n");
        y += FONT_LINE_HEIGHT;
    }
}

static void draw_character(SDL_Renderer *renderer, const character *self, Uint32 now)
{
    SDL_Color color = self->color;
    int bob = self->says[0] ? (int)(now / 200 % 2) : 0;
    SDL_SetRenderDrawColor(renderer, 245, 240, 225, 255);
    if (self->says[0])
        SDL_RenderFillRect(renderer, &(SDL_Rect){self->x, 8, 224, 112});
    SDL_SetRenderDrawColor(renderer, 30, 30, 40, 255);
    draw_text(renderer, self->x + 8, 14, self->says);
    SDL_SetRenderDrawColor(renderer, 150, 150, 170, 255);
    draw_text(renderer, self->x + 8, 128, self->thinks);
    SDL_SetRenderDrawColor(renderer, color.r, color.g, color.b, 255);
    SDL_RenderFillRect(renderer, &(SDL_Rect){self->x + 102, 204 - bob, 16, 16});
    SDL_RenderFillRect(renderer, &(SDL_Rect){self->x + 98, 222 - bob, 24, 28});
    draw_text(renderer, self->x + 132, 230, self->name);
}

static void draw_river(SDL_Renderer *renderer, Uint32 now)
{
    SDL_SetRenderDrawColor(renderer, 60, 110, 150, 255);
    for (int i = 0; i < 24; i++) {
        int x =
            (int)((now / (20 + (unsigned)i % 3 * 10) + (unsigned)i * 53) % (WIDTH / SCALE + 16));
        SDL_RenderFillRect(renderer, &(SDL_Rect){x - 16, 254 + i % 4 * 4, 12, 1});
    }
}

static void draw(game *self)
{
    Uint32 now = SDL_GetTicks();
    SDL_SetRenderDrawColor(self->renderer, 24, 28, 44, 255);
    SDL_RenderClear(self->renderer);
    draw_river(self->renderer, now);
    for (int i = 0; i < CAST; i++)
        draw_character(self->renderer, &self->cast[i], now);
    SDL_SetRenderDrawColor(self->renderer, 240, 90, 80, 255);
    draw_text(self->renderer, 16, 140, self->problem);
}

/* ---- what --measure tells ---- */

/** Bytes of this process that are in memory. */
static long resident(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static int save_picture(game *self)
{
    SDL_Surface *surface =
        SDL_CreateRGBSurfaceWithFormat(0, WIDTH, HEIGHT, 32, SDL_PIXELFORMAT_ARGB8888);
    int failed = !surface ||
                 SDL_RenderReadPixels(self->renderer, NULL, surface->format->format,
                                      surface->pixels, surface->pitch) < 0 ||
                 SDL_SaveBMP(surface, self->picture) < 0;
    SDL_FreeSurface(surface);
    return failed;
}

static int by_size(const void *a, const void *b)
{
    long first = *(const long *)a, second = *(const long *)b;
    return (first > second) - (first < second);
}

/** Prints the middle, the 99th and the last of one column of the times. */
static void print_times(const char *what, long *times, long count)
{
    qsort(times, (size_t)count, sizeof *times, by_size);
    printf("%s: p50 %.3f ms, p99 %.3f ms, max %.3f ms\n", what, (double)times[count / 2] / 1000,
           (double)times[count * 99 / 100] / 1000, (double)times[count - 1] / 1000);
}

static void report(const game *self, long before)
{
    long count = self->frames, *whole = calloc((size_t)count * 3, sizeof *whole);
    long *share = whole + count, *cpu = share + count, whole_us = 0, sluice_us = 0, late = 0;
    if (!whole)
        return;
    for (long i = 0; i < count; i++) {
        frame_time time = self->times[i];
        whole[i] = time.whole_us;
        share[i] = time.sluice_us;
        cpu[i] = time.cpu_us;
        whole_us += time.whole_us;
        sluice_us += time.sluice_us;
        late += time.whole_us > LONG_FRAME_US && time.whole_us - time.cpu_us <= LONG_FRAME_US &&
                time.cpu_us > LONG_FRAME_US - FRAME_US;
    }
    printf("%ld frames, %.1f a second\n", count, (double)count * 1e6 / (double)whole_us);
    print_times("frame", whole, count);
    print_times("sluice_pump", share, count);
    print_times("sluice_pump on the processor", cpu, count);
    printf("share of sluice_pump: %.2f %%\n", 100.0 * (double)sluice_us / (double)whole_us);
    printf("frames over 20 ms because of sluice: %ld\n", late);
    printf("memory: %.1f MB before sluice_new, %.1f MB more now\n", (double)before / 1e6,
           (double)(resident() - before) / 1e6);
    free(whole);
}

/* ---- the game ---- */

static int is_over(void)
{
    SDL_Event event;
    while (SDL_PollEvent(&event))
        if (event.type == SDL_QUIT)
            return 1;
    return 0;
}

/** Waits until the next frame is due: 60 a second, on any screen. */
static void keep_pace(game *self)
{
    long now = now_us();
    self->next_us += FRAME_US;
    if (self->next_us < now)
        self->next_us = now;
    SDL_Delay((Uint32)((self->next_us - now) / 1000));
}

/** One frame: the characters' words get 2 ms of it, the screen shows what came of them. */
static frame_time frame(game *self)
{
    frame_time time;
    long start = now_us(), cpu_start = cpu_us();
    if (self->sluice)
        sluice_pump(self->sluice, BUDGET_US);
    time.sluice_us = now_us() - start;
    time.cpu_us = cpu_us() - cpu_start;
    draw(self);
    SDL_RenderPresent(self->renderer);
    keep_pace(self);
    time.whole_us = now_us() - start;
    return time;
}

static void play(game *self)
{
    for (long count = 0; !is_over(); count++) {
        if (self->frames && count == self->frames)
            return;
        frame_time time = frame(self);
        if (self->times)
            self->times[count] = time;
    }
}

static int open_window(game *self)
{
    if (SDL_Init(SDL_INIT_VIDEO) < 0)
        return -1;
    self->window = SDL_CreateWindow("Two at the lock", SDL_WINDOWPOS_CENTERED,
                                    SDL_WINDOWPOS_CENTERED, WIDTH, HEIGHT, 0);
    if (!self->window)
        return -1;
    self->renderer = SDL_CreateRenderer(self->window, -1, 0);
    if (!self->renderer)
        return -1;
    return SDL_RenderSetScale(self->renderer, SCALE, SCALE);
}

static void close_window(game *self)
{
    SDLTest_CleanupTextDrawing();
    if (self->renderer)
        SDL_DestroyRenderer(self->renderer);
    if (self->window)
        SDL_DestroyWindow(self->window);
    SDL_Quit();
}

/** Starts the script on an instance that may use the network and see these variables, no more. */
static int start_talk(game *self, const char *path)
{
    static const char *const environment[] = {"DATABRICKS_HOST", "DATABRICKS_TOKEN",
                                              "OPENAI_BASE_URL", "OPENAI_API_KEY",
                                              "NPC_ENDPOINT",    NULL};
    sluice_options options = {
        .size = sizeof options,
        .capabilities = SLUICE_CAN_CONNECT | SLUICE_CAN_READ_ENVIRONMENT,
        .allowed_environment = environment,
    };
    size_t len = 0;
    char *script = SDL_LoadFile(path, &len), name[256];
    if (!script)
        return -1;
    snprintf(name, sizeof name, "@%s", path);
    /* While the game loads, so do the modules and the libraries of the network. */
    int failed = sluice_new(&self->sluice, &options) < 0 || sluice_warm_up(self->sluice) < 0 ||
                 sluice_register(self->sluice, "say", say, NULL, self) < 0 ||
                 sluice_register(self->sluice, "think", think, NULL, self) < 0 ||
                 sluice_spawn(self->sluice, name, script, len, on_end, self) < 0;
    SDL_free(script);
    return failed ? -1 : 0;
}

static int measured(game *self, int argc, char **argv)
{
    if (argc == 2)
        return 1;
    if (argc != 5 || strcmp(argv[2], "--measure") != 0)
        return 0;
    self->frames = strtol(argv[3], NULL, 10);
    self->picture = argv[4];
    if (self->frames > 0)
        self->times = calloc((size_t)self->frames, sizeof *self->times);
    return self->times != NULL;
}

int main(int argc, char **argv)
{
    game self = {
        .cast = {{.name = "Mira", .color = {220, 120, 90, 255}, .x = 8},
                 {.name = "Tom", .color = {110, 170, 120, 255}, .x = 248}},
    };
    if (!measured(&self, argc, argv)) {
        fprintf(stderr, "usage: npc SCRIPT.lua [--measure FRAMES PICTURE.bmp]\n");
        return 2;
    }
    int failed = open_window(&self) < 0;
    if (!failed) {
        frame(&self);
        long before = resident();
        failed = start_talk(&self, argv[1]) < 0;
        if (!failed)
            play(&self);
        if (!failed && self.frames) {
            report(&self, before);
            failed = save_picture(&self);
        }
    }
    if (failed)
        fprintf(stderr, "npc: %s\n", SDL_GetError());
    if (self.problem[0])
        fprintf(stderr, "npc: %s\n", self.problem);
    sluice_delete(self.sluice);
    close_window(&self);
    free(self.times);
    return failed || self.problem[0];
}
