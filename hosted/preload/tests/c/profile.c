/* Has what is known, each from a function of its own, and ends: profile [signal]. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define KEPT __attribute__((noinline, noipa))

static void *volatile held[400000];
static size_t count;

static void hold(void *block) {
    CHECK(block && count < sizeof held / sizeof *held);
    held[count++] = block;
}

KEPT void keeps_small(void) {
    for (int n = 0; n < 200000; n++) hold(malloc(100));
}

KEPT void keeps_large(void) {
    for (int n = 0; n < 30; n++) hold(calloc(1, 1 << 20));
}

KEPT void keeps_aligned(void) {
    for (int n = 0; n < 2000; n++) hold(aligned_alloc(4096, 8192));
}

KEPT void grows(void) {
    for (int n = 0; n < 100; n++) {
        char *block = NULL;
        for (size_t bytes = 1000; bytes <= 256000; bytes *= 2) {
            block = realloc(block, bytes);
            CHECK(block);
        }
        hold(block);
    }
}

KEPT void comes_and_goes(void) {
    for (int n = 0; n < 200000; n++) {
        void *volatile block = malloc(100 + n % 300);
        CHECK(block);
        free(block);
    }
}

/* What stays takes the place of what has just gone. */
KEPT void leaks(void) {
    for (int n = 0; n < 100000; n++) {
        void *volatile brief[3];
        for (int each = 0; each < 3; each++) brief[each] = malloc(200);
        for (int each = 0; each < 3; each++) free(brief[each]);
        hold(malloc(200));
    }
}

static void *free_all(void *from) {
    for (size_t n = (size_t)from; n < count; n++) free(held[n]);
    return NULL;
}

KEPT void freed_elsewhere(void) {
    size_t from = count;
    for (int n = 0; n < 50000; n++) hold(malloc(300));
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, free_all, (void *)from));
    CHECK(!pthread_join(thread, NULL));
    count = from;
}

int main(int argc, char **argv) {
    keeps_small();
    keeps_large();
    keeps_aligned();
    grows();
    comes_and_goes();
    leaks();
    freed_elsewhere();
    if (argc > 1) {
        CHECK(!raise(SIGUSR1));
        /* Whoever waits for the file ends this. */
        pause();
    }
    return 0;
}
