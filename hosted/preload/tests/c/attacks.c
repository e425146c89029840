/* The sequences by which heaps are known to be taken over, each written after its public description. Each tries to get
 * memory that it must not have: somebody else's block, the stack, a static, or the same block twice. A heap that keeps no
 * words in what it lends and takes nothing twice gives none of them anything. Ends with 0 if the attack came to nothing,
 * with 3 if it worked; aborts if it was stopped. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>

static uintptr_t target[64] __attribute__((aligned(4096)));

static void worked(void) {
    puts("the attack worked");
    fflush(stdout);
    _exit(3);
}

static int is_in(const void *block, const void *start, size_t bytes) {
    return (const char *)block >= (const char *)start && (const char *)block < (const char *)start + bytes;
}

/* Asks for blocks of a size, and looks whether one is the target or comes twice. */
static void ask(size_t bytes, int times) {
    void *got[512];
    CHECK(times <= 512);
    for (int n = 0; n < times; n++) {
        got[n] = malloc(bytes);
        if (got[n] && is_in(got[n], target, sizeof target)) worked();
        if (got[n] && is_in(got[n], &got, sizeof got)) worked();
        for (int other = 0; other < n; other++)
            if (got[n] == got[other]) worked();
        if (got[n]) memset(got[n], 0x55, bytes);
    }
}

/* A freed block twice in the list: A, B, A. */
static void double_free_around_another(void) {
    void *a = malloc(40), *b = malloc(40);
    free(a);
    free(b);
    free(a);
    ask(40, 64);
}

/* The counter of the list is filled first, so that the second free takes another way than the first. */
static void double_free_over_full_lists(void) {
    void *blocks[9];
    for (int n = 0; n < 9; n++) blocks[n] = malloc(120);
    for (int n = 0; n < 9; n++) free(blocks[n]);
    free(blocks[8]);
    ask(120, 64);
}

/* The mark of a freed block in its own memory is overwritten before it is freed again. */
static void double_free_with_the_mark_erased(void) {
    volatile uintptr_t *block = malloc(64);
    free((void *)block);
    for (int n = 0; n < 8; n++) block[n] = 0;
    free((void *)block);
    ask(64, 64);
}

/* After a first free by one way, by another way of the same block. */
static void double_free_by_realloc(void) {
    void *block = malloc(200);
    CHECK(!realloc(block, 0));
    free(block);
    ask(200, 64);
}

/* The link in a freed block is bent towards the target. */
static void bent_link(void) {
    volatile uintptr_t *a = malloc(64), *b = malloc(64);
    free((void *)a);
    free((void *)b);
    b[0] = (uintptr_t)target;
    a[0] = (uintptr_t)target;
    ask(64, 256);
}

/* The same with links that are mixed with the address where they lie. */
static void bent_mixed_link(void) {
    volatile uintptr_t *a = malloc(64), *b = malloc(64);
    free((void *)a);
    free((void *)b);
    b[0] = ((uintptr_t)b >> 12) ^ (uintptr_t)target;
    ask(64, 256);
}

/* A block that never was one, with a size before it, is freed: the house of spirit. */
static void false_block(void) {
    target[1] = 0x41;
    target[9] = 0x1234;
    free(&target[2]);
    ask(48, 128);
}

static void false_large_block(void) {
    target[1] = 0x20002;
    free(&target[2]);
    ask(48, 128);
}

/* The size before a block grows by an overflow of the one before it, so that freeing it frees its neighbour, too. */
static void grown_size(void) {
    volatile uintptr_t *a = malloc(24), *b = malloc(24), *c = malloc(24);
    c[0] = 0x1111;
    a[3] = 0x61;
    free((void *)b);
    for (int n = 0; n < 64; n++) {
        void *block = malloc(80);
        CHECK(block);
        if (is_in((void *)c, block, 80)) worked();
        memset(block, 0, 80);
    }
    if (c[0] != 0x1111) worked();
}

/* One zero byte beyond a block: the house of einherjar, and poisoned nulls. */
static void one_zero_beyond(void) {
    char *a = malloc(0x38), *b = malloc(0xf8), *c = malloc(0x38);
    memset(c, 0x33, 0x38);
    *(uintptr_t *)(void *)(a + 0x30) = 0x40;
    ((volatile char *)a)[0x38] = 0;
    free(b);
    for (int n = 0; n < 64; n++) {
        char *block = malloc(0x138);
        CHECK(block);
        if (is_in(c, block, 0x138)) worked();
        memset(block, 0, 0x138);
    }
    for (int n = 0; n < 0x38; n++)
        if (c[n] != 0x33) worked();
}

/* The size of what is left of all memory is made huge, and the next block lands anywhere: the house of force. */
static void huge_rest(void) {
    char *a = malloc(256);
    volatile uintptr_t *behind = (volatile uintptr_t *)(void *)(a + 256);
    uintptr_t distance = (uintptr_t)target - (uintptr_t)behind;
    behind[1] = UINTPTR_MAX;
    void *far = malloc(distance - 64);
    if (far) worked();
    ask(256, 32);
}

/* Lists of two directions: both links of a freed block point near the target, and unlinking writes there. */
static void unlinked(void) {
    volatile uintptr_t *a = malloc(0x420), *b = malloc(0x420);
    CHECK(b);
    target[0] = target[1] = 0x7777;
    free((void *)a);
    a[0] = (uintptr_t)target - 24;
    a[1] = (uintptr_t)target - 16;
    a[2] = (uintptr_t)target - 40;
    a[3] = (uintptr_t)target - 32;
    ask(0x420, 64);
    ask(0x500, 64);
    if (target[0] != 0x7777 || target[1] != 0x7777) worked();
}

/* A large block's size is changed, so that giving it back unmaps what is beside it. */
static void large_block_with_another_size(void) {
    char *a = malloc(1 << 20), *b = malloc(1 << 20);
    memset(b, 0x44, 1 << 20);
    /* Where other heaps keep the size. */
    if (malloc_usable_size(a) > (1 << 20) + 8) ((volatile uintptr_t *)(void *)(a + (1 << 20)))[0] = 0x300002;
    free(a);
    void *c = malloc(2 << 20);
    if (is_in(b, c, 2 << 20)) worked();
    for (int n = 0; n < 1 << 20; n += 4096)
        if (b[n] != 0x44) worked();
}

/* Inside a block, where somebody has prepared what looks like one. */
static void free_inside(void) {
    uintptr_t *block = malloc(200);
    block[1] = 0x41;
    block[9] = 0x41;
    free(&block[2]);
    for (int n = 0; n < 128; n++) {
        void *other = malloc(48);
        if (is_in(other, block, 200)) worked();
    }
}

/* Use after free: who had a block before can change what its next owner has. Nobody promises anything else, but a freed
 * block that is written to must not make two others one. */
static void stale_writes(void) {
    volatile uintptr_t *blocks[64];
    for (int n = 0; n < 64; n++) blocks[n] = malloc(96);
    for (int n = 0; n < 64; n++) free((void *)blocks[n]);
    for (int n = 0; n < 64; n++)
        for (int word = 0; word < 12; word++) blocks[n][word] = (uintptr_t)blocks[(n + 1) % 64];
    ask(96, 256);
}

CASES({"double_free_around_another", double_free_around_another},
      {"double_free_over_full_lists", double_free_over_full_lists},
      {"double_free_with_the_mark_erased", double_free_with_the_mark_erased},
      {"double_free_by_realloc", double_free_by_realloc}, {"bent_link", bent_link}, {"bent_mixed_link", bent_mixed_link},
      {"false_block", false_block}, {"false_large_block", false_large_block}, {"grown_size", grown_size},
      {"one_zero_beyond", one_zero_beyond}, {"huge_rest", huge_rest}, {"unlinked", unlinked},
      {"large_block_with_another_size", large_block_with_another_size}, {"free_inside", free_inside},
      {"stale_writes", stale_writes})
