/* Every function of the C library's heap, and each rule that its manual states for it. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>

#define TOO_MUCH ((size_t)PTRDIFF_MAX + 1)
#define PAGE 4096

/* C23, which not every C library has yet. */
extern void free_sized(void *, size_t) __attribute__((weak));
extern void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));

static size_t interesting_size(int n) {
    if (n < 2100) return (size_t)n;
    n -= 2100;
    size_t power = (size_t)2048 << (n / 5);
    static const long around[] = {-17, -1, 0, 1, 4100};
    return power + (size_t)around[n % 5];
}
/* Up to a little more than 8 MiB. */
#define INTERESTING (2100 + 13 * 5)

static void blocks_of_every_size(void) {
    enum { HELD = 23 };
    void *held[HELD] = {0};
    size_t bytes[HELD] = {0};
    for (int n = 0; n < INTERESTING + HELD; n++) {
        int place = n % HELD;
        if (held[place]) {
            CHECK(is_filled(held[place], bytes[place], (uint64_t)(n - HELD)));
            free(held[place]);
            held[place] = NULL;
        }
        if (n >= INTERESTING) continue;
        held[place] = malloc(interesting_size(n));
        CHECK(held[place] && is_aligned(held[place], 16));
        bytes[place] = malloc_usable_size(held[place]);
        CHECK(bytes[place] >= interesting_size(n));
        /* All that is usable may be used. */
        fill(held[place], bytes[place], (uint64_t)n);
    }
}

static void nothing_is_something(void) {
    enum { MANY = 64 };
    void *all[MANY * 8];
    int count = 0;
    for (int n = 0; n < MANY; n++) {
        all[count++] = malloc(0);
        all[count++] = calloc(0, 5);
        all[count++] = calloc(5, 0);
        all[count++] = realloc(NULL, 0);
        all[count++] = memalign(64, 0);
        all[count++] = aligned_alloc(32, 0);
        all[count++] = valloc(0);
        CHECK(posix_memalign(&all[count++], 128, 0) == 0);
    }
    for (int n = 0; n < count; n++) {
        CHECK(all[n]);
        for (int other = 0; other < n; other++) CHECK(all[n] != all[other]);
    }
    for (int n = 0; n < count; n++) free(all[n]);
    void *pages = pvalloc(0);
    CHECK(pages && is_aligned(pages, PAGE));
    free(pages);
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0);
}

/* A request that cannot be met: null and ENOMEM, and nothing else has happened. */
#define REFUSED(call)                                                                                                  \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        void *refused = (call);                                                                                        \
        CHECK(refused == NULL && errno == ENOMEM);                                                                     \
    } while (0)

static void too_much(void) {
    const size_t sizes[] = {TOO_MUCH, TOO_MUCH + 1, SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - PAGE, SIZE_MAX / 4 * 3};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        volatile size_t size = sizes[n];
        REFUSED(malloc(size));
        REFUSED(calloc(1, size));
        REFUSED(calloc(size, 1));
        REFUSED(realloc(NULL, size));
        REFUSED(reallocarray(NULL, size, 1));
        REFUSED(memalign(64, size));
        REFUSED(aligned_alloc(64, size));
        REFUSED(valloc(size));
        REFUSED(pvalloc(size));
        void *untouched = &untouched;
        CHECK(posix_memalign(&untouched, 64, size) == ENOMEM && untouched == &untouched);
    }
    /* Legal in themselves, but more than the address space has. */
    volatile size_t legal = PTRDIFF_MAX;
    REFUSED(malloc(legal));
    REFUSED(calloc(legal / 8, 8));
    REFUSED(memalign(1 << 20, legal));
}

static void products_that_overflow(void) {
    volatile size_t half = (size_t)1 << 32, large = SIZE_MAX / 2 + 1;
    REFUSED(calloc(half, half));
    REFUSED(calloc(half + 1, half));
    REFUSED(calloc(large, 2));
    REFUSED(calloc(3, SIZE_MAX / 3 + 1));
    REFUSED(reallocarray(NULL, half, half));
    REFUSED(reallocarray(NULL, large, 2));
    char *block = malloc(100);
    CHECK(block);
    fill(block, 100, 7);
    REFUSED(reallocarray(block, half, half));
    REFUSED(reallocarray(block, SIZE_MAX / 3 + 1, 3));
    REFUSED(realloc(block, TOO_MUCH));
    CHECK(is_filled(block, 100, 7));
    block = reallocarray(block, 100, 100);
    CHECK(block && is_filled(block, 100, 7));
    free(block);
}

static void successes_leave_errno_alone(void) {
    const size_t sizes[] = {1, 24, 1000, 40000, 1 << 20, 8 << 20};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        errno = 4711;
        char *block = malloc(sizes[n]);
        CHECK(block && errno == 4711);
        block = realloc(block, sizes[n] * 2);
        CHECK(block && errno == 4711);
        free(block);
        CHECK(errno == 4711);
        block = memalign(PAGE, sizes[n]);
        CHECK(block && errno == 4711);
        free(block);
        CHECK(errno == 4711);
        block = calloc(1, sizes[n]);
        CHECK(block && errno == 4711);
        free(block);
        free(NULL);
        CHECK(errno == 4711);
    }
}

static void contents_survive_realloc(void) {
    /* From each size to each, small steps and large, up and down. */
    const size_t sizes[] = {1, 15, 16, 17, 24, 100, 128, 129, 1000, 1024, 1025, 5000, 32768, 32769, 70000, 300000,
                            1 << 20, (1 << 20) + 1, 3 << 20};
    const size_t count = sizeof sizes / sizeof *sizes;
    for (size_t from = 0; from < count; from++) {
        for (size_t to = 0; to < count; to++) {
            size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            unsigned char *block = malloc(sizes[from]);
            CHECK(block);
            fill(block, sizes[from], from);
            block = realloc(block, sizes[to]);
            CHECK(block && is_aligned(block, 16) && malloc_usable_size(block) >= sizes[to]);
            CHECK(is_filled(block, kept, from));
            fill(block, malloc_usable_size(block), to);
            free(block);
        }
    }
}

static void realloc_at_its_edges(void) {
    char *block = realloc(NULL, 10);
    CHECK(block && malloc_usable_size(block) >= 10);
    errno = 4711;
    /* As the manual says for the GNU library: the block is freed, and there is none. */
    CHECK(realloc(block, 0) == NULL && errno == 4711);
    block = reallocarray(NULL, 3, 5);
    CHECK(block && malloc_usable_size(block) >= 15);
    CHECK(reallocarray(block, 0, 5) == NULL);
    /* An aligned block may be resized; its contents stay. */
    block = memalign(PAGE, 100);
    CHECK(block);
    fill(block, 100, 1);
    for (size_t size = 100; size < 1 << 20; size = size * 3 / 2) {
        block = realloc(block, size);
        CHECK(block && is_filled(block, 100, 1));
    }
    free(block);
    /* One byte at a time over a few classes. */
    block = NULL;
    for (size_t size = 1; size < 3000; size++) {
        block = realloc(block, size);
        CHECK(block);
        block[size - 1] = (char)(size * 7);
        if (size % 100 == 0)
            for (size_t i = 1; i <= size; i++) CHECK(block[i - 1] == (char)(i * 7));
    }
    free(block);
}

static void zeros_after_dirt(void) {
    for (int round = 0; round < 3; round++) {
        for (int n = 1; n < INTERESTING; n += n < 2000 ? 13 : 1) {
            size_t size = interesting_size(n);
            if (round > 0 && size > 1 << 20) break;
            unsigned char *dirty[3];
            for (int i = 0; i < 3; i++) {
                CHECK((dirty[i] = malloc(size)) != NULL);
                memset(dirty[i], 0xee, malloc_usable_size(dirty[i]));
            }
            for (int i = 0; i < 3; i++) free(dirty[i]);
            for (int i = 0; i < 3; i++) {
                dirty[i] = i == 1 ? calloc(size, 1) : calloc(1, size);
                CHECK(dirty[i] && is_aligned(dirty[i], 16) && is_zero(dirty[i], size));
                memset(dirty[i], 0xdd, size);
            }
            for (int i = 0; i < 3; i++) free(dirty[i]);
        }
    }
}

static const size_t ALIGNED_SIZES[] = {0, 1, 7, 16, 24, 100, 512, 1000, 4096, 5000, 32768, 40000, 100000, 1 << 20};
#define ALIGNED_COUNT (sizeof ALIGNED_SIZES / sizeof *ALIGNED_SIZES)

static void *aligned_by(int how, size_t alignment, size_t size) {
    void *block = NULL;
    switch (how) {
    case 0: return memalign(alignment, size);
    case 1: return aligned_alloc(alignment, size);
    default: CHECK(posix_memalign(&block, alignment, size) == 0); return block;
    }
}

static void alignments(void) {
    for (size_t alignment = 8; alignment <= 4 << 20; alignment *= 2) {
        for (int how = 0; how < 3; how++) {
            void *blocks[ALIGNED_COUNT];
            for (size_t n = 0; n < ALIGNED_COUNT; n++) {
                blocks[n] = aligned_by(how, alignment, ALIGNED_SIZES[n]);
                CHECK(blocks[n] && is_aligned(blocks[n], alignment));
                CHECK(malloc_usable_size(blocks[n]) >= ALIGNED_SIZES[n]);
                fill(blocks[n], malloc_usable_size(blocks[n]), n);
            }
            for (size_t n = 0; n < ALIGNED_COUNT; n++) {
                CHECK(is_filled(blocks[n], malloc_usable_size(blocks[n]), n));
                free(blocks[n]);
            }
        }
    }
    /* As far as one goes. */
    void *far = memalign((size_t)1 << 30, 100);
    CHECK(far == NULL || is_aligned(far, (size_t)1 << 30));
    free(far);
}

static void alignments_that_are_none(void) {
    void *untouched = &untouched;
    const size_t none[] = {0, 1, 2, 3, 4, 7, 12, 24, 48, 1000, 4095, SIZE_MAX, TOO_MUCH + 8};
    for (size_t n = 0; n < sizeof none / sizeof *none; n++)
        CHECK(posix_memalign(&untouched, none[n], 8) == EINVAL && untouched == &untouched);
    errno = 4711;
    CHECK(posix_memalign(&untouched, 8, 8) == 0 && errno == 4711);
    free(untouched);
    /* The old functions take the next power of two instead. */
    for (size_t alignment = 0; alignment < 70; alignment++) {
        size_t power = 1;
        while (power < alignment) power *= 2;
        void *block = memalign(alignment, 10);
        CHECK(block && is_aligned(block, power));
        free(block);
    }
    volatile size_t beyond = TOO_MUCH + 1;
    errno = 0;
    CHECK(memalign(beyond, 8) == NULL && errno == EINVAL);
}

static void whole_pages(void) {
    const size_t sizes[] = {1, 100, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE, 1 << 20};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        char *block = valloc(sizes[n]);
        CHECK(block && is_aligned(block, PAGE));
        memset(block, 1, sizes[n]);
        free(block);
        block = pvalloc(sizes[n]);
        size_t rounded = (sizes[n] + PAGE - 1) / PAGE * PAGE;
        CHECK(block && is_aligned(block, PAGE) && malloc_usable_size(block) >= rounded);
        memset(block, 1, rounded);
        free(block);
    }
}

static void sized_frees(void) {
    if (!free_sized || !free_aligned_sized) {
        puts("this library has no sized frees: skipped");
        return;
    }
    free_sized(NULL, 10);
    free_aligned_sized(NULL, 64, 10);
    for (int n = 0; n < INTERESTING; n++) {
        size_t size = interesting_size(n);
        void *block = n % 3 == 0 ? malloc(size) : n % 3 == 1 ? calloc(1, size) : realloc(malloc(n % 50 + 1), size ? size : 1);
        CHECK(block);
        errno = 4711;
        free_sized(block, n % 3 == 2 && size == 0 ? 1 : size);
        CHECK(errno == 4711);
    }
    for (size_t alignment = 1; alignment <= 64 << 10; alignment *= 2) {
        for (size_t n = 0; n < ALIGNED_COUNT; n++) {
            void *blocks[40];
            for (int i = 0; i < 40; i++) CHECK((blocks[i] = aligned_alloc(alignment, ALIGNED_SIZES[n])) != NULL);
            for (int i = 0; i < 40; i++) free_aligned_sized(blocks[i], alignment, ALIGNED_SIZES[n]);
        }
        for (size_t size = 0; size < 300; size += 7) {
            /* What is smaller than its alignment, too. */
            void *block = aligned_alloc(alignment, size);
            CHECK(block && is_aligned(block, alignment));
            memset(block, 3, size);
            free_aligned_sized(block, alignment, size);
        }
    }
}

/* What was aligned may be freed and resized like anything else, and the other way round. */
static void frees_of_any_kind(void) {
    for (size_t alignment = 16; alignment <= 1 << 20; alignment *= 4) {
        for (size_t size = 1; size < 100000; size = size * 3 + 1) {
            char *block = memalign(alignment, size);
            CHECK(block);
            memset(block, 5, size);
            block = realloc(block, size * 2);
            CHECK(block && block[0] == 5 && block[size - 1] == 5);
            free(block);
        }
    }
}

static void figures(void) {
    enum { MANY = 1000, BYTES = 3000 };
    void *blocks[MANY];
    struct mallinfo2 before = mallinfo2();
    for (int n = 0; n < MANY; n++) {
        CHECK((blocks[n] = malloc(BYTES)) != NULL);
        memset(blocks[n], 1, BYTES);
    }
    struct mallinfo2 during = mallinfo2();
    CHECK(during.uordblks + during.hblkhd >= before.uordblks + before.hblkhd + (size_t)MANY * BYTES * 9 / 10);
    CHECK(during.arena + during.hblkhd >= during.uordblks);
    struct mallinfo old = mallinfo();
    CHECK((size_t)(unsigned)old.uordblks + (unsigned)old.hblkhd >= (size_t)MANY * BYTES * 9 / 10);
    for (int n = 0; n < MANY; n++) free(blocks[n]);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks < during.uordblks);
    int trimmed = malloc_trim(0);
    CHECK(trimmed == 0 || trimmed == 1);
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    CHECK(mallopt(M_ARENA_MAX, 1) == 1);
}

static void figures_as_text(void) {
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(stream);
    CHECK(malloc_info(0, stream) == 0);
    CHECK(malloc_info(1, stream) != 0);
    CHECK(fclose(stream) == 0);
    CHECK(length > 20 && strstr(text, "<malloc") && strstr(text, "</malloc>"));
    free(text);
    /* To the error output, which is a file here. */
    FILE *file = tmpfile();
    CHECK(file);
    int kept = dup(2);
    CHECK(kept >= 0 && dup2(fileno(file), 2) == 2);
    malloc_stats();
    CHECK(dup2(kept, 2) == 2 && close(kept) == 0);
    CHECK(lseek(fileno(file), 0, SEEK_END) > 20);
    fclose(file);
}

CASES({"blocks_of_every_size", blocks_of_every_size}, {"nothing_is_something", nothing_is_something},
      {"too_much", too_much}, {"products_that_overflow", products_that_overflow},
      {"successes_leave_errno_alone", successes_leave_errno_alone},
      {"contents_survive_realloc", contents_survive_realloc}, {"realloc_at_its_edges", realloc_at_its_edges},
      {"zeros_after_dirt", zeros_after_dirt}, {"alignments", alignments},
      {"alignments_that_are_none", alignments_that_are_none}, {"whole_pages", whole_pages},
      {"sized_frees", sized_frees}, {"frees_of_any_kind", frees_of_any_kind}, {"figures", figures},
      {"figures_as_text", figures_as_text})
