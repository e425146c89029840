/* One wrong thing, of a kind and with a size, or the same without it: wrong_frees KIND SIZE wrong|right.
 * Ends with 0 if nobody stopped it and the heap works. Without arguments: the kinds. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

extern void free_sized(void *, size_t) __attribute__((weak));
extern void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));

static size_t bytes;
static int wrong;

static char *take(size_t size) {
    char *block = malloc(size);
    CHECK(block);
    memset(block, 0x41, size);
    return block;
}

/* The addresses of what is to be refused, so that the line can be compared. */
static void *is_wrong(void *block) {
    if (wrong) {
        printf("%p\n", block);
    }
    return block;
}

static void free_if_wrong(void *block) {
    if (wrong) free(is_wrong(block));
}

static void *free_in_thread(void *block) {
    free(block);
    return NULL;
}

static void by_a_thread(void *block) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, free_in_thread, block) == 0 && pthread_join(thread, NULL) == 0);
}

static void double_at_once(void) {
    char *block = take(bytes);
    free(block);
    free_if_wrong(block);
}

static void double_after_ten(void) {
    char *blocks[11];
    for (int n = 0; n < 11; n++) blocks[n] = take(bytes);
    for (int n = 0; n < 11; n++) free(blocks[n]);
    free_if_wrong(blocks[0]);
}

/* So many others are freed that the first has long left the thread's hands. */
static void double_after_many(void) {
    enum { MANY = 3000 };
    static char *blocks[MANY];
    int many = bytes > 1 << 20 ? 20 : MANY;
    for (int n = 0; n < many; n++) CHECK((blocks[n] = malloc(bytes)) != NULL);
    for (int n = 0; n < many; n++) free(blocks[n]);
    free_if_wrong(blocks[0]);
}

/* In between, other sizes go back and forth. */
static void double_after_others(void) {
    char *block = take(bytes);
    free(block);
    size_t other = bytes < 2000 ? bytes * 3 + 40 : bytes / 3;
    for (int n = 0; n < 2000; n++) free(take(other));
    free_if_wrong(block);
}

static void double_in_another_thread(void) {
    char *block = take(bytes);
    free(block);
    if (wrong) by_a_thread(is_wrong(block));
}

static void double_after_another_thread(void) {
    char *block = take(bytes);
    by_a_thread(block);
    free_if_wrong(block);
}

/* A thread that somebody has cancelled ends at the first place where it may, and no function of the heap is one. */
static int went_on;

static void *free_while_cancelled(void *block) {
    CHECK(pthread_cancel(pthread_self()) == 0);
    if (wrong) free(block);
    went_on = 1;
    pthread_testcancel();
    return NULL;
}

static void double_while_cancelled(void) {
    char *block = take(bytes);
    free(block);
    is_wrong(block);
    pthread_t thread;
    void *left;
    CHECK(pthread_create(&thread, NULL, free_while_cancelled, block) == 0 && pthread_join(thread, &left) == 0);
    CHECK(went_on && left == PTHREAD_CANCELED);
}

/* The last of all: nothing of this size is in use any more, and what is idle has gone back to the system. */
static void double_of_the_last(void) {
    enum { MANY = 500 };
    static char *blocks[MANY];
    int many = bytes > 100000 ? 10 : MANY;
    for (int n = 0; n < many; n++) CHECK((blocks[n] = malloc(bytes)) != NULL);
    for (int n = 0; n < many; n++) free(blocks[n]);
    malloc_trim(0);
    free_if_wrong(blocks[many - 1]);
}

static void double_after_realloc(void) {
    char *block = take(bytes);
    char *other = realloc(block, bytes * 5 + 100);
    CHECK(other);
    if (wrong && other != block) free(is_wrong(block));
    /* Where it grew in place there is nothing stale. */
    if (wrong && other == block) {
        free(other);
        free(is_wrong(other));
        return;
    }
    free(other);
}

static void realloc_of_what_is_free(void) {
    char *block = take(bytes);
    free(block);
    if (wrong) CHECK(realloc(is_wrong(block), bytes * 2) == NULL);
}

/* Behind the highest of some blocks: a neighbour that nobody has asked for, or no block at all. */
static void never_lent(void) {
    enum { SOME = 64 };
    char *blocks[SOME], *highest = NULL;
    size_t stride = SIZE_MAX;
    int some = bytes > 100000 ? 4 : SOME;
    for (int n = 0; n < some; n++) {
        blocks[n] = take(bytes);
        if (blocks[n] > highest) highest = blocks[n];
        for (int other = 0; other < n; other++) {
            size_t apart = (size_t)(blocks[n] > blocks[other] ? blocks[n] - blocks[other] : blocks[other] - blocks[n]);
            if (apart < stride) stride = apart;
        }
    }
    free_if_wrong(highest + stride);
    for (int n = 0; n < some; n++) free(blocks[n]);
}

static void inside(size_t offset) {
    char *block = take(bytes);
    free_if_wrong(block + offset);
    free(block);
}

static void inside_1(void) { inside(1); }
static void inside_8(void) { inside(8); }
static void inside_16(void) { inside(16); }
static void inside_half(void) { inside((bytes / 2 + 15) / 16 * 16); }
static void inside_at_its_end(void) { inside(bytes - 1); }

static void of_the_stack(void) {
    char local[64] __attribute__((aligned(16))) = {1};
    free_if_wrong(local);
    free(take(bytes));
}

static void of_a_static(void) {
    static char block[64] __attribute__((aligned(16)));
    free_if_wrong(block);
    free(take(bytes));
}

static void of_the_system(void) {
    char *pages = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    free_if_wrong(pages + 4096);
    free(take(bytes));
    CHECK(munmap(pages, 1 << 20) == 0);
}

static void of_nobody(void) {
    free_if_wrong((void *)0x10);
    free(take(bytes));
}

static void of_the_kernel(void) {
    free_if_wrong((void *)0xffffffff81000000);
    free(take(bytes));
}

static void another_size(void) {
    char *block = take(bytes);
    if (wrong) free_sized(is_wrong(block), bytes * 2 + 16);
    free_sized(block, bytes);
}

static void another_alignment(void) {
    char *block = aligned_alloc(64, bytes);
    CHECK(block);
    if (wrong) free_aligned_sized(is_wrong(block), 64, bytes * 2 + 64);
    free_aligned_sized(block, 64, bytes);
}

static void one_byte_too_many(void) {
    char *block = take(bytes);
    if (wrong) ((volatile char *)is_wrong(block))[bytes] = 0x42;
    free(block);
}

static void one_byte_too_many_then_realloc(void) {
    char *block = take(bytes);
    if (wrong) ((volatile char *)is_wrong(block))[bytes] = 0x42;
    char *other = realloc(block, bytes * 4);
    CHECK(other || wrong);
    free(other);
}

static void churn_size(size_t size) {
    enum { ALIVE = 400 };
    static char *blocks[ALIVE];
    int alive = size > 100000 ? 8 : ALIVE;
    for (int round = 0; round < 20; round++) {
        for (int n = 0; n < alive; n++) blocks[n] = take(size);
        for (int n = 0; n < alive; n++) free(blocks[n]);
    }
}

static void write_after_free(void) {
    char *block = take(bytes);
    free(block);
    if (wrong) ((volatile char *)is_wrong(block))[bytes / 2] = 0x42;
    churn_size(bytes);
}

static void write_far_behind(void) {
    char *block = take(bytes);
    /* The next page, whatever the block's last one holds. */
    size_t whole = (bytes + 4095) / 4096 * 4096;
    if (wrong) ((volatile char *)is_wrong(block))[whole] = 0x42;
    free(block);
}

/* What is right stays right: blocks of every size, of threads too, have what they should have. */
static void *works(void *argument) {
    enum { MANY = 600 };
    char *blocks[MANY];
    for (int round = 0; round < 2; round++) {
        for (int n = 0; n < MANY; n++) {
            size_t size = n % 2 && bytes < 5000 ? bytes : (size_t)n * (n % 50 == 0 ? 300 : 9) + 1;
            CHECK((blocks[n] = malloc(size)) != NULL);
            fill(blocks[n], size, (uint64_t)n);
        }
        for (int n = 0; n < MANY; n++) {
            size_t size = n % 2 && bytes < 5000 ? bytes : (size_t)n * (n % 50 == 0 ? 300 : 9) + 1;
            CHECK(is_filled(blocks[n], size, (uint64_t)n));
            free(blocks[n]);
        }
    }
    return argument;
}

int main(int argc, char **argv) {
#define KIND(name) {#name, name}
    static const struct test_case kinds[] = {
        KIND(double_at_once), KIND(double_after_ten), KIND(double_after_many), KIND(double_after_others),
        KIND(double_in_another_thread), KIND(double_after_another_thread), KIND(double_while_cancelled),
        KIND(double_of_the_last), KIND(double_after_realloc), KIND(realloc_of_what_is_free), KIND(never_lent), KIND(inside_1),
        KIND(inside_8), KIND(inside_16), KIND(inside_half), KIND(inside_at_its_end), KIND(of_the_stack),
        KIND(of_a_static), KIND(of_the_system), KIND(of_nobody), KIND(of_the_kernel), KIND(another_size),
        KIND(another_alignment), KIND(one_byte_too_many), KIND(one_byte_too_many_then_realloc), KIND(write_after_free),
        KIND(write_far_behind)};
    const size_t count = sizeof kinds / sizeof *kinds;
    for (size_t n = 0; argc == 1 && n < count; n++) puts(kinds[n].name);
    if (argc == 1) return 0;
    CHECK(argc == 4);
    bytes = (size_t)atol(argv[2]);
    wrong = strcmp(argv[3], "wrong") == 0;
    size_t n = 0;
    while (n < count && strcmp(kinds[n].name, argv[1]) != 0) n++;
    CHECK(n < count && bytes > 0);
    /* Without a buffer, which would be a block beside the others. */
    setvbuf(stdout, NULL, _IONBF, 0);
    kinds[n].run();
    pthread_t thread;
    works(NULL);
    CHECK(pthread_create(&thread, NULL, works, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return 0;
}
