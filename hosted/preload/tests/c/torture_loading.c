/* Before main, after it, and libraries that come and go. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

/* The first use of all: before any constructor, and, in a function that chooses another, before the program is linked. */

static char *before_all, *from_first_constructor, *from_choice;

static void early(void) {
    CHECK((before_all = malloc(300)) != NULL);
    fill(before_all, 300, 1);
}

__attribute__((section(".preinit_array"), used)) static void (*const before_constructors)(void) = early;

__attribute__((constructor(101))) static void first_constructor(void) {
    CHECK(before_all && is_filled(before_all, 300, 1));
    before_all = realloc(before_all, 40000);
    CHECK((from_first_constructor = calloc(1, 100000)) != NULL && is_zero(from_first_constructor, 100000));
}

static int chosen(void) { return 42; }

static int (*choose(void))(void) {
    from_choice = malloc(500);
    if (from_choice) memset(from_choice, 6, 500);
    return chosen;
}

int indirect(void) __attribute__((ifunc("choose")));

static void before_main(void) {
    CHECK(before_all && is_filled(before_all, 300, 1));
    CHECK(from_first_constructor && is_zero(from_first_constructor, 100000));
    CHECK(indirect() == 42 && from_choice && from_choice[499] == 6);
    free(before_all);
    free(from_first_constructor);
    free(from_choice);
}

/* After main, in a copy whose end is looked at. */

static char *kept_for_the_end;

static void at_the_end(void) {
    CHECK(is_filled(kept_for_the_end, 2000, 2));
    kept_for_the_end = realloc(kept_for_the_end, 90000);
    CHECK(kept_for_the_end && is_filled(kept_for_the_end, 2000, 2));
}

static void registers_another(void) {
    CHECK(atexit(at_the_end) == 0);
    free(malloc(1 << 20));
}

__attribute__((destructor)) static void last_destructor(void) {
    if (!kept_for_the_end) return;
    CHECK(is_filled(kept_for_the_end, 2000, 2) && malloc_usable_size(kept_for_the_end) >= 90000);
    free(kept_for_the_end);
    for (int n = 1; n < 3000; n++) free(malloc((size_t)n));
    pid_t child = fork();
    if (child == 0) {
        free(malloc(100));
        _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void *goes_on(void *argument) {
    for (;;) {
        free(malloc(1000));
        free(malloc(70000));
    }
    return argument;
}

static void after_main(void) {
    for (int turn = 0; turn < 20; turn++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK((kept_for_the_end = malloc(2000)) != NULL);
            fill(kept_for_the_end, 2000, 2);
            CHECK(atexit(registers_another) == 0);
            /* Threads that nobody waits for allocate until the process is gone. */
            pthread_t thread;
            for (int n = 0; n < turn % 3; n++) CHECK(pthread_create(&thread, NULL, goes_on, NULL) == 0);
            exit(7);
        }
        int status;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
}

/* Libraries. The plug-in lies beside the program. */

static void *load_as(int mode) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
    CHECK(length > 0);
    path[length] = 0;
    strcpy(strrchr(path, '/'), "/plugin.so");
    void *library = dlopen(path, mode);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    return library;
}

static void *load(void) { return load_as(RTLD_NOW | RTLD_LOCAL); }

static char *block_of(void *library, size_t bytes) {
    char *(*block)(size_t) = (char *(*)(size_t))(uintptr_t)dlsym(library, "plugin_block");
    CHECK(block);
    return block(bytes);
}

static void forget(void *library) {
    void (*forget_here)(void) = (void (*)(void))(uintptr_t)dlsym(library, "plugin_forget");
    CHECK(forget_here);
    forget_here();
}

static void *loads(void *argument) {
    for (size_t n = 1; n < 60; n++) {
        void *library = load();
        char *block = block_of(library, n * 100);
        forget(library);
        CHECK(dlclose(library) == 0);
        CHECK(is_filled(block, n * 100, n * 100));
        free(block);
    }
    return argument;
}

static void plugins(void) {
    loads(NULL);
    pthread_t threads[3];
    for (int n = 0; n < 3; n++) CHECK(pthread_create(&threads[n], NULL, loads, NULL) == 0);
    for (int n = 0; n < 3; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    /* What cannot be loaded leaves a message, which is memory too. */
    for (int n = 0; n < 200; n++) CHECK(!dlopen("/nowhere/at-all.so", RTLD_NOW) && strstr(dlerror(), "at-all"));
}

static void *has_of_it(void *library) {
    void *block = block_of(library, 10);
    free(block);
    forget(library);
    return library;
}

/* A thread that was there before the library, and one that outlives it. */
static void plugins_and_threads(void) {
    for (int turn = 0; turn < 30; turn++) {
        void *library = load();
        pthread_t thread;
        void *joined;
        CHECK(pthread_create(&thread, NULL, has_of_it, library) == 0);
        CHECK(pthread_join(thread, &joined) == 0 && joined == library);
        CHECK(dlclose(library) == 0);
    }
}

/* One that looks for names in its own libraries first, as those of PHP do, and the program free what the other has got. */
static void plugins_with_a_scope_of_their_own(void) {
    void *library = load_as(RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    void (*free_there)(void *) = (void (*)(void *))(uintptr_t)dlsym(library, "plugin_free");
    CHECK(free_there);
    for (size_t bytes = 1; bytes < 200000; bytes = bytes * 3 / 2 + 1) {
        char *block = block_of(library, bytes), *own = malloc(bytes);
        CHECK(own && is_filled(block, bytes, bytes));
        fill(own, bytes, 5);
        block = realloc(block, bytes + 100);
        CHECK(block && is_filled(block, bytes, bytes));
        free_there(own);
        free(block);
    }
    forget(library);
    CHECK(dlclose(library) == 0);
    /* Nor is the flag all that is left of the mode: what is not loaded is not loaded now. */
    CHECK(!dlopen("libresolv.so.2", RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND));
}

/* Other name spaces have a heap of their own from their own C library, and only their own blocks. */
static void other_name_space(void) {
    void *library = dlmopen(LM_ID_NEWLM, "libm.so.6", RTLD_NOW);
    if (!library) {
        printf("no other name space: %s: skipped\n", dlerror());
        return;
    }
    double (*root)(double) = (double (*)(double))(uintptr_t)dlsym(library, "sqrt");
    CHECK(root && root(16.0) == 4.0);
    CHECK(dlclose(library) == 0);
}

CASES({"before_main", before_main}, {"after_main", after_main}, {"plugins", plugins},
      {"plugins_and_threads", plugins_and_threads},
      {"plugins_with_a_scope_of_their_own", plugins_with_a_scope_of_their_own}, {"other_name_space", other_name_space})
