/* Long random sequences beside a record of what must be there, and what happens when there is no memory. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

static long times(void) { return from_environment("PAGEMILL_TIMES", 1); }

struct block {
    char *at;
    size_t bytes;
    uint64_t seed;
};

static size_t random_size(uint64_t *state) {
    uint64_t chance = next_random(state);
    switch (chance % 64) {
    case 0: return next_random(state) % (3 << 20);
    case 1: case 2: case 3: return next_random(state) % 100000;
    case 4: return 0;
    default: return next_random(state) % ((size_t)16 << (chance >> 8) % 8);
    }
}

static void forget(struct block *block) {
    CHECK(is_filled(block->at, block->bytes, block->seed));
    free(block->at);
    *block = (struct block){0};
}

static void replace(struct block *block, uint64_t *state) {
    uint64_t chance = next_random(state);
    size_t bytes = random_size(state);
    if (block->at && chance % 3 == 0) {
        bytes += bytes == 0;
        size_t kept = bytes < block->bytes ? bytes : block->bytes;
        block->at = realloc(block->at, bytes);
        CHECK(block->at && is_filled(block->at, kept, block->seed));
    } else {
        if (block->at) forget(block);
        size_t alignment = 16;
        if (chance % 7 == 1) {
            alignment = (size_t)8 << (chance >> 16) % 14;
            block->at = memalign(alignment, bytes);
        } else if (chance % 7 == 2) {
            block->at = calloc(bytes, 1);
            CHECK(block->at && is_zero(block->at, bytes));
        } else {
            block->at = malloc(bytes);
        }
        CHECK(block->at && is_aligned(block->at, alignment));
    }
    CHECK(malloc_usable_size(block->at) >= bytes);
    /* Sometimes all of what may be used is used. */
    block->bytes = chance % 5 == 0 ? malloc_usable_size(block->at) : bytes;
    block->seed = chance;
    fill(block->at, block->bytes, block->seed);
}

/* Blocks that any thread may take, change and put back. */
enum { SHARED = 256, OWN = 400 };
static struct block shared[SHARED];
static pthread_mutex_t locks[SHARED];

static void *in_no_order(void *argument) {
    uint64_t state = (uintptr_t)argument;
    struct block own[OWN] = {{0}};
    for (long turn = 0; turn < 6000 * times(); turn++) {
        uint64_t chance = next_random(&state);
        if (chance % 4 != 0) {
            replace(&own[(chance >> 8) % OWN], &state);
            continue;
        }
        size_t place = (chance >> 8) % SHARED;
        pthread_mutex_lock(&locks[place]);
        replace(&shared[place], &state);
        pthread_mutex_unlock(&locks[place]);
    }
    for (int n = 0; n < OWN; n++) forget(&own[n]);
    return NULL;
}

static void sequences_in_no_order(void) {
    for (int n = 0; n < SHARED; n++) CHECK(pthread_mutex_init(&locks[n], NULL) == 0);
    pthread_t threads[4];
    for (int n = 0; n < 4; n++) CHECK(pthread_create(&threads[n], NULL, in_no_order, (void *)(uintptr_t)(n + 1)) == 0);
    for (int n = 0; n < 4; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    for (int n = 0; n < SHARED; n++) forget(&shared[n]);
}

/* Blocks that grow beside each other, as the buffers of a program do. */
static void growth(void) {
    enum { GROWING = 20 };
    struct block blocks[GROWING] = {{0}};
    for (int round = 0; round < 40; round++) {
        for (int n = 0; n < GROWING; n++) {
            size_t bytes = blocks[n].bytes * 5 / 4 + (size_t)n + 1;
            if (bytes > (size_t)1 << 20) continue;
            blocks[n].at = realloc(blocks[n].at, bytes);
            CHECK(blocks[n].at && is_filled(blocks[n].at, blocks[n].bytes, (uint64_t)n));
            blocks[n].bytes = bytes;
            fill(blocks[n].at, bytes, (uint64_t)n);
        }
    }
    /* One alone becomes large, and small again. */
    size_t bytes = 1;
    char *block = malloc(bytes);
    while (bytes < (size_t)200 << 20) {
        block[bytes - 1] = 'x';
        CHECK((block = realloc(block, bytes * 2)) != NULL && block[bytes - 1] == 'x');
        bytes *= 2;
    }
    while (bytes > 1) {
        bytes /= 2;
        CHECK((block = realloc(block, bytes)) != NULL && (bytes == 1 || block[bytes / 2 - 1] == 'x'));
    }
    free(block);
    for (int n = 0; n < GROWING; n++) {
        CHECK(is_filled(blocks[n].at, blocks[n].bytes, (uint64_t)n));
        free(blocks[n].at);
    }
}

/* No memory. The limit is that of the process, which is why the program starts again below it. */

/* In bytes. The long form has a higher one, below which there are larger blocks. */
static size_t limit_bytes(void) { return (size_t)(times() > 1 ? 768 : 192) << 20; }

/* What must be there of it for small blocks; canaries and guards take their share. */
static size_t small_share(void) {
    const char *options = getenv("PAGEMILL_CONF");
    return limit_bytes() / (options && strstr(options, "hardened") ? 8 : 3);
}

/* Takes blocks until there are no more, and chains them by their first words. Answers their bytes. */
static size_t take_all(size_t bytes, void ***chain) {
    size_t got = 0;
    *chain = NULL;
    for (;;) {
        errno = 0;
        void **block = malloc(bytes);
        if (!block) break;
        block[0] = *chain;
        block[bytes / sizeof *block - 1] = block;
        *chain = block;
        got += bytes;
    }
    CHECK(errno == ENOMEM);
    return got;
}

static void **reversed(void **chain) {
    void **other = NULL;
    while (chain) {
        void **next = chain[0];
        chain[0] = other;
        other = chain;
        chain = next;
    }
    return other;
}

static void give_all(size_t bytes, void **chain) {
    while (chain) {
        void **next = chain[0];
        CHECK(bytes <= 16 || chain[bytes / sizeof *chain - 1] == chain);
        free(chain);
        chain = next;
    }
}

static const size_t SIZES[] = {16, 48, 256, 1024, 4096, 20480, 32768, 65536, 200000, 1 << 20, 3 << 20, 8 << 20, 32 << 20};
/* The last one is too large for the short form. */
static int count_of_sizes(void) { return (int)(sizeof SIZES / sizeof *SIZES) - (times() == 1); }

static void take_and_give(size_t bytes, int turn) {
    void **chain;
    size_t got = take_all(bytes, &chain);
    if (getenv("PAGEMILL_SAY")) printf("%zu bytes: %zu in all\n", bytes, got);
    /* Whatever memory was cut into before. */
    size_t wanted = bytes > 1 << 20 ? limit_bytes() / 8 : small_share();
    if (got < wanted) fprintf(stderr, "%zu bytes: %zu in all\n", bytes, got);
    CHECK(got >= wanted);
    /* Others still get what they can: null, or a block. */
    free(malloc(100));
    free(realloc(NULL, 100));
    free(memalign(4096, 100));
    give_all(bytes, turn % 2 ? reversed(chain) : chain);
}

static void below_the_limit(void) {
    const int count = count_of_sizes();
    int turn = 0;
    for (int n = 0; n < count; n++) take_and_give(SIZES[n], turn++);
    for (int n = count; n-- > 0;) take_and_give(SIZES[n], turn++);
    /* From each size to each. */
    for (int from = 0; times() > 1 && from < count; from++) {
        for (int to = 0; to < count; to++) {
            take_and_give(SIZES[from], turn++);
            take_and_give(SIZES[to], turn++);
        }
    }
    void *large = calloc(1, (size_t)8 << 20);
    CHECK(large && is_zero(large, (size_t)8 << 20));
    free(large);
}

static void half_of_it_stays(void) {
    const int count = count_of_sizes();
    /* Every second block of a size stays; the others serve the next size as far as they can, and nothing is broken. */
    for (int n = 0; n < count; n++) {
        void **stay = NULL, **chain, **others;
        take_all(SIZES[n], &chain);
        for (int even = 0; chain; even = !even) {
            void **next = chain[0];
            chain[0] = stay;
            if (even) free(chain);
            else stay = chain;
            chain = next;
        }
        take_all(SIZES[(n + 5) % count], &others);
        give_all(SIZES[n], stay);
        give_all(SIZES[(n + 5) % count], others);
    }
    take_and_give(1 << 20, 0);
}

static void no_realloc(void) {
    /* A block that cannot grow stays what it is. */
    void **chain;
    char *block = malloc(1 << 20);
    CHECK(block);
    fill(block, 1 << 20, 5);
    take_all(1 << 20, &chain);
    errno = 0;
    CHECK(!realloc(block, (size_t)24 << 20) && errno == ENOMEM);
    CHECK(is_filled(block, 1 << 20, 5));
    CHECK(!calloc(24, 1 << 20) && !memalign(1 << 20, (size_t)24 << 20));
    give_all(1 << 20, chain);
    CHECK((block = realloc(block, (size_t)24 << 20)) != NULL && is_filled(block, 1 << 20, 5));
    free(block);
}

static void *take_beside(void *argument) {
    const int count = count_of_sizes();
    (void)argument;
    for (int n = 0; n < 6; n++) {
        void **chain;
        size_t bytes = SIZES[(n * 5 + 1) % (count - 1)];
        take_all(bytes, &chain);
        give_all(bytes, chain);
    }
    return NULL;
}

static void four_threads_without_memory(void) {
    pthread_t threads[4];
    pthread_attr_t small_stacks;
    CHECK(pthread_attr_init(&small_stacks) == 0 && pthread_attr_setstacksize(&small_stacks, 256 << 10) == 0);
    for (int n = 0; n < 4; n++) CHECK(pthread_create(&threads[n], &small_stacks, take_beside, NULL) == 0);
    for (int n = 0; n < 4; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    take_and_give(4096, 1);
    take_and_give(1 << 20, 1);
}

/* Runs the case in a process that starts below the limit. */
static void limited(const char *name) {
    struct rlimit limit = {limit_bytes(), limit_bytes()};
    pid_t child = fork();
    if (child == 0) {
        CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
        execl("/proc/self/exe", "torture_memory", name, (char *)NULL);
        _exit(9);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define LIMITED(name)                                                                                                  \
    static void name##_limited(void) { limited(#name); }
LIMITED(below_the_limit)
LIMITED(half_of_it_stays)
LIMITED(no_realloc)
LIMITED(four_threads_without_memory)

int main(int argc, char **argv) {
    static const struct test_case cases[] = {{"sequences_in_no_order", sequences_in_no_order},
                                             {"growth", growth},
                                             {"no_memory", below_the_limit_limited},
                                             {"no_memory_for_half", half_of_it_stays_limited},
                                             {"no_memory_to_grow", no_realloc_limited},
                                             {"no_memory_for_threads", four_threads_without_memory_limited}};
    static const struct test_case inside[] = {{"below_the_limit", below_the_limit},
                                              {"half_of_it_stays", half_of_it_stays},
                                              {"no_realloc", no_realloc},
                                              {"four_threads_without_memory", four_threads_without_memory}};
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    if (limit.rlim_cur == limit_bytes()) return run_cases(argc, argv, inside, sizeof inside / sizeof *inside);
    return run_cases(argc, argv, cases, sizeof cases / sizeof *cases);
}
