/* A C program with the heap linked into it from the archive, and without the C++ library. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>

static void *in_a_thread(void *from_main) {
    free(from_main);
    void *kept = NULL;
    for (int n = 0; n < 100000; n++) {
        free(kept);
        kept = malloc((size_t)n % 3000 + 1);
        CHECK(kept);
    }
    return kept;
}

static void it_is_this_heap(void) {
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(stream && malloc_info(0, stream) == 0 && fclose(stream) == 0);
    /* A word that only this heap has. */
    CHECK(strstr(text, "type=\"dirty\""));
    free(text);
}

static void it_works(void) {
    for (int n = 0; n < 50; n++) {
        pthread_t thread;
        void *left;
        CHECK(pthread_create(&thread, NULL, in_a_thread, strdup("from main")) == 0);
        CHECK(pthread_join(thread, &left) == 0);
        free(left);
    }
    char *line = NULL;
    CHECK(asprintf(&line, "%d %s", 4711, "words") == 10);
    free(line);
    void *aligned;
    CHECK(posix_memalign(&aligned, 1 << 16, 100) == 0 && is_aligned(aligned, 1 << 16));
    free(aligned);
}

/* What wrong_frees.c asks of the shared library, asked of the archive once. Does not return. */
static void it_sees_a_double_free(void) {
    void *block = malloc(64);
    free(block);
    free(block);
    _exit(0);
}

/* The operators are there for who is compiled from C++, but nobody who could throw. Does not return. */
static void without_memory_it_aborts(void) {
    extern void *_Znwm(size_t);
    volatile size_t too_much = PTRDIFF_MAX;
    free(_Znwm(100));
    _exit(_Znwm(too_much) ? 0 : 1);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "double") == 0) it_sees_a_double_free();
    if (argc > 1 && strcmp(argv[1], "new") == 0) without_memory_it_aborts();
    static const struct test_case cases[] = {{"it_is_this_heap", it_is_this_heap}, {"it_works", it_works}};
    return run_cases(argc, argv, cases, 2);
}
