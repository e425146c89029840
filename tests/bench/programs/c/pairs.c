/* malloc and free as a C program calls them, through the library that is loaded before the C library.
 * pairs SIZE BATCH TURNS: prints the processor time of a pair in nanoseconds. Each block's first word is written. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double processor_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void pair(size_t size) {
    long *block = malloc(size);
    *(volatile long *)block = 1;
    free(block);
}

static void batch(long **blocks, long count, size_t size) {
    for (long n = 0; n < count; n++) {
        blocks[n] = malloc(size);
        *(volatile long *)blocks[n] = n;
    }
    for (long n = 0; n < count; n++) free(blocks[n]);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    size_t size = (size_t)atol(argv[1]);
    long count = atol(argv[2]), turns = atol(argv[3]);
    long **blocks = malloc((size_t)count * sizeof *blocks);
    if (size < sizeof(long) || count < 1 || !blocks) return 2;
    /* A tenth of the turns to warm up. */
    for (int measured = 0; measured < 2; measured++) {
        long now = measured ? turns : turns / 10;
        double start = processor_ns();
        for (long turn = 0; turn < now; turn++) {
            if (count == 1) pair(size);
            else batch(blocks, count, size);
        }
        if (measured) printf("%.4f\n", (processor_ns() - start) / (double)(turns * count));
    }
    free(blocks);
    return 0;
}
