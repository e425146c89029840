/* A library that is loaded and unloaded, and allocates whenever it can. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>

static char *from_constructor;
static __thread char *of_thread;
static pthread_key_t key;

__attribute__((constructor)) static void constructor(void) {
    CHECK((from_constructor = malloc(7000)) != NULL);
    fill(from_constructor, 7000, 9);
    free(calloc(100, 100));
    CHECK(pthread_key_create(&key, free) == 0);
}

__attribute__((destructor)) static void destructor(void) {
    CHECK(is_filled(from_constructor, 7000, 9));
    free(from_constructor);
    void *blocks[50];
    for (int n = 0; n < 50; n++) CHECK((blocks[n] = malloc((size_t)n * 30)) != NULL);
    for (int n = 0; n < 50; n++) free(blocks[n]);
    CHECK(pthread_key_delete(key) == 0);
}

/* A block that is the caller's. */
char *plugin_block(size_t bytes) {
    char *block = malloc(bytes);
    CHECK(block);
    fill(block, bytes, bytes);
    free(of_thread);
    of_thread = strdup("what the thread has of this library");
    return block;
}

/* A block of the caller's that goes here. */
void plugin_free(void *block) { free(block); }

/* What this thread has here goes. */
void plugin_forget(void) {
    free(of_thread);
    of_thread = NULL;
}
