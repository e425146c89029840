/* What the test programs share: a check that names its place, and a table of cases of which arguments pick some. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__cplusplus)
extern "C" {
#endif

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition);                                                \
    } while (0)

/* Allocates nothing, since the heap may be what is broken. */
static inline void check_failed(const char *file, int line, const char *condition) {
    char text[512];
    int length = snprintf(text, sizeof text, "%s:%d: %s (errno %d)\n", file, line, condition, errno);
    if (write(2, text, length < (int)sizeof text ? (size_t)length : sizeof text)) {}
    _exit(1);
}

struct test_case {
    const char *name;
    void (*run)(void);
};

/* Runs the cases that the arguments name, or names all of them: each is to have a process of its own. */
static inline int run_cases(int argc, char **argv, const struct test_case *cases, size_t count) {
    for (size_t i = 0; argc < 2 && i < count; i++) puts(cases[i].name);
    for (int a = 1; a < argc; a++) {
        size_t i = 0;
        while (i < count && strcmp(argv[a], cases[i].name) != 0) i++;
        CHECK(i < count);
        cases[i].run();
        printf("ok %s\n", cases[i].name);
        fflush(stdout);
    }
    return 0;
}

#define CASES(...)                                                                                                     \
    int main(int argc, char **argv) {                                                                                  \
        static const struct test_case cases[] = {__VA_ARGS__};                                                         \
        return run_cases(argc, argv, cases, sizeof cases / sizeof *cases);                                             \
    }

/* A number from the environment: how long the long form of a test is. */
static inline long from_environment(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

/* The next of a sequence of numbers in no order. */
static inline uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    uint64_t mixed = (*state ^ (*state >> 31)) * 0x9e3779b97f4a7c15u;
    return mixed ^ (mixed >> 29);
}

/* Fills a block so that whoever else writes to it is noticed: each word is another for another block and place. */
static inline void fill(void *block, size_t bytes, uint64_t seed) {
    unsigned char *at = (unsigned char *)block;
    for (size_t i = 0; i < bytes; i++) at[i] = (unsigned char)(seed + i * 131 + (i >> 8) * 17);
}

static inline int is_filled(const void *block, size_t bytes, uint64_t seed) {
    const unsigned char *at = (const unsigned char *)block;
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != (unsigned char)(seed + i * 131 + (i >> 8) * 17)) return 0;
    return 1;
}

static inline int is_zero(const void *block, size_t bytes) {
    const unsigned char *at = (const unsigned char *)block;
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != 0) return 0;
    return 1;
}

static inline int is_aligned(const void *block, size_t alignment) { return (uintptr_t)block % alignment == 0; }

#if defined(__cplusplus)
}
#endif
#endif
