/* Threads that come and go, what they do at their very end, and blocks that others free. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

/* The long form has so many times the turns. */
static long times(void) { return from_environment("PAGEMILL_TIMES", 1); }

static long peak_resident_kib(void) {
    char text[4096];
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    const char *line = strstr(text, "VmHWM:");
    CHECK(line);
    return atol(line + 6);
}

static void start(pthread_t *thread, void *(*run)(void *), void *argument) {
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
    CHECK(pthread_create(thread, &attributes, run, argument) == 0);
    pthread_attr_destroy(&attributes);
}

/* Destructors of threads: of keys, which set themselves again, and of thread-locals, as C++ has them. */

enum { KEYS = 8 };
static pthread_key_t keys[KEYS];
static int key_runs, local_runs;

extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;

static void count(int *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

static void end_of_a_key(void *value) {
    char *block = value;
    CHECK(is_filled(block, 100, 3));
    free(block);
    count(&key_runs);
    /* For the first three rounds there is something again, which is freed by the next. */
    static __thread int rounds;
    if (rounds++ < 3 * KEYS) {
        block = malloc(100);
        CHECK(block);
        fill(block, 100, 3);
        /* What was there already is not forgotten. */
        free(pthread_getspecific(keys[rounds % KEYS]));
        CHECK(pthread_setspecific(keys[rounds % KEYS], block) == 0);
    }
    void *other[20];
    for (int n = 0; n < 20; n++) CHECK((other[n] = malloc((size_t)(n * n * 40 + 1))) != NULL);
    for (int n = 0; n < 20; n++) free(other[n]);
}

static void end_of_a_local(void *value) {
    char *block = realloc(value, 5000);
    CHECK(block && is_filled(block, 50, 4));
    free(block);
    free(calloc(3, 30000));
    count(&local_runs);
}

static void *with_destructors(void *argument) {
    (void)argument;
    for (int n = 0; n < KEYS; n += 3) {
        char *block = malloc(100);
        CHECK(block);
        fill(block, 100, 3);
        CHECK(pthread_setspecific(keys[n], block) == 0);
    }
    char *local = malloc(50);
    CHECK(local);
    fill(local, 50, 4);
    CHECK(__cxa_thread_atexit_impl(end_of_a_local, local, &__dso_handle) == 0);
    if ((uintptr_t)argument % 3 == 0) pthread_exit(malloc(10));
    return malloc(10);
}

static void destructors(void) {
    for (int n = 0; n < KEYS; n++) CHECK(pthread_key_create(&keys[n], end_of_a_key) == 0);
    enum { AT_ONCE = 50 };
    long total = 2000 * times();
    for (long done = 0; done < total; done += AT_ONCE) {
        pthread_t threads[AT_ONCE];
        for (int n = 0; n < AT_ONCE; n++) start(&threads[n], with_destructors, (void *)(uintptr_t)(n + 1));
        for (int n = 0; n < AT_ONCE; n++) {
            void *left;
            CHECK(pthread_join(threads[n], &left) == 0 && left);
            free(left);
        }
    }
    CHECK(local_runs == total && key_runs >= 3 * total);
    for (int n = 0; n < KEYS; n++) pthread_key_delete(keys[n]);
    /* Threads that are gone keep nothing: this is stacks, and what the C library keeps of them. */
    CHECK(peak_resident_kib() < 64 << 10);
}

/* More threads at once than anybody has processors, all alive and all with something. */

static pthread_barrier_t barrier;

static void *alive(void *argument) {
    uint64_t state = (uintptr_t)argument;
    void *blocks[200];
    for (int n = 0; n < 200; n++) CHECK((blocks[n] = malloc(next_random(&state) % 2000)) != NULL);
    pthread_barrier_wait(&barrier);
    for (int n = 0; n < 200; n++) free(blocks[n]);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void hundreds_alive(void) {
    enum { ALIVE = 400 };
    static pthread_t threads[ALIVE];
    CHECK(pthread_barrier_init(&barrier, NULL, ALIVE) == 0);
    for (int n = 0; n < ALIVE; n++) start(&threads[n], alive, (void *)(uintptr_t)(n + 1));
    for (int n = 0; n < ALIVE; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    pthread_barrier_destroy(&barrier);
}

/* Blocks that one thread allocates and another frees, as many as the queue holds between them. */

enum { BATCH = 512, QUEUE = 32 };
static void *queue[QUEUE][BATCH];
static int first, length, closed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void put(void **batch) {
    pthread_mutex_lock(&lock);
    while (length == QUEUE) pthread_cond_wait(&changed, &lock);
    memcpy(queue[(first + length++) % QUEUE], batch, sizeof(void *) * BATCH);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int take(void **batch) {
    pthread_mutex_lock(&lock);
    while (length == 0 && !closed) pthread_cond_wait(&changed, &lock);
    int there = length > 0;
    if (there) {
        memcpy(batch, queue[first], sizeof(void *) * BATCH);
        first = (first + 1) % QUEUE;
        length--;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return there;
}

/* A block says in its first word where it lies, and in its last how long it is. */
static void *produce(void *argument) {
    uint64_t state = (uintptr_t)argument;
    for (long turn = 0; turn < 1500 * times(); turn++) {
        void *batch[BATCH];
        for (int n = 0; n < BATCH; n++) {
            size_t words = next_random(&state) % (n % 100 == 0 ? 5000 : 120) + 2;
            uintptr_t *block = malloc(words * 8);
            CHECK(block);
            block[0] = (uintptr_t)block;
            block[1] = words;
            if (words > 2) block[words - 1] = words * 3;
            batch[n] = block;
        }
        put(batch);
    }
    return NULL;
}

static void *consume(void *argument) {
    (void)argument;
    void *batch[BATCH];
    while (take(batch)) {
        for (int n = 0; n < BATCH; n++) {
            uintptr_t *block = batch[n];
            CHECK(block[0] == (uintptr_t)block);
            CHECK(block[1] == 2 || block[block[1] - 1] == block[1] * 3);
            free(block);
        }
    }
    return NULL;
}

static void remote_frees(void) {
    pthread_t producers[2], consumers[2];
    for (int n = 0; n < 2; n++) start(&producers[n], produce, (void *)(uintptr_t)(n + 1));
    for (int n = 0; n < 2; n++) start(&consumers[n], consume, NULL);
    for (int n = 0; n < 2; n++) CHECK(pthread_join(producers[n], NULL) == 0);
    pthread_mutex_lock(&lock);
    closed = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (int n = 0; n < 2; n++) CHECK(pthread_join(consumers[n], NULL) == 0);
    /* Through the queue went more than a gigabyte; in it lie 12 MB at most. */
    printf("peak %ld KiB\n", peak_resident_kib());
    CHECK(peak_resident_kib() < 80 << 10);
}

/* Blocks that outlive the thread that made them. */

static void *make(void *argument) {
    void **place = argument;
    for (int n = 0; n < 50; n++) {
        CHECK((place[n] = malloc((size_t)(n * 50 + 1))) != NULL);
        fill(place[n], (size_t)(n * 50 + 1), (uint64_t)n);
    }
    return NULL;
}

static void heirs(void) {
    enum { GENERATIONS = 300 };
    static void *blocks[GENERATIONS][50];
    for (int turn = 0; turn < 2; turn++) {
        for (int n = 0; n < GENERATIONS; n++) {
            pthread_t thread;
            start(&thread, make, blocks[n]);
            CHECK(pthread_join(thread, NULL) == 0);
        }
        for (int n = 0; n < GENERATIONS; n++) {
            for (int i = 0; i < 50; i++) {
                CHECK(is_filled(blocks[n][i], (size_t)(i * 50 + 1), (uint64_t)i));
                free(blocks[n][i]);
            }
        }
    }
}

/* The main thread ends first; the process does with the last one. */

static void *outlive(void *argument) {
    usleep(20000);
    void *kept = argument;
    for (int n = 0; n < 20000; n++) {
        free(kept);
        CHECK((kept = malloc((size_t)n % 700)) != NULL);
    }
    free(kept);
    return NULL;
}

static void main_ends_first(void) {
    fflush(stdout);
    for (int n = 0; n < 5; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            pthread_t threads[3];
            for (int i = 0; i < 3; i++) start(&threads[i], outlive, malloc(100));
            pthread_exit(NULL);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

/* Threads that are cancelled while they allocate: the heap is no place where that happens. */

static void *cancelled(void *argument) {
    (void)argument;
    for (;;) {
        free(malloc(300));
        free(malloc(50000));
        pthread_testcancel();
    }
    return NULL;
}

static void cancellations(void) {
    for (int n = 0; n < 100; n++) {
        pthread_t thread;
        void *left;
        start(&thread, cancelled, NULL);
        usleep(300);
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &left) == 0 && left == PTHREAD_CANCELED);
    }
}

/* A thread that is cancelled already ends at the first place where it may: whatever the heap asks the system is none. */
static int went_on;

static void *cancelled_before(void *argument) {
    CHECK(pthread_cancel(pthread_self()) == 0);
    static const size_t sizes[] = {1, 300, 50000, 3 << 20};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        void *block = malloc(sizes[n]), *other = NULL;
        CHECK(block && (block = realloc(block, 2 * sizes[n])) != NULL && malloc_usable_size(block) >= 2 * sizes[n]);
        free(block);
        CHECK((block = calloc(3, sizes[n])) != NULL && posix_memalign(&other, 4096, sizes[n]) == 0);
        free(block);
        free(other);
    }
    CHECK(malloc(PTRDIFF_MAX) == NULL);
    malloc_trim(0);
    CHECK(mallinfo2().arena > 0);
    malloc_stats();
    went_on = 1;
    pthread_testcancel();
    return argument;
}

static void cancelled_all_along(void) {
    pthread_t thread;
    void *left;
    start(&thread, cancelled_before, NULL);
    CHECK(pthread_join(thread, &left) == 0 && went_on && left == PTHREAD_CANCELED);
}

CASES({"destructors", destructors}, {"hundreds_alive", hundreds_alive}, {"remote_frees", remote_frees},
      {"heirs", heirs}, {"main_ends_first", main_ends_first}, {"cancellations", cancellations},
      {"cancelled_all_along", cancelled_all_along})
