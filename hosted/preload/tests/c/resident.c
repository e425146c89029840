/* What a process with the library has of it in memory, once it has used some of each: by /proc/self/smaps. */
#include "check.h"

static void *volatile kept;

/* Objects of many sizes, and changed ones: what programs do. */
static void use(void) {
    void *objects[200];
    for (int i = 0; i < 200; i++) {
        objects[i] = malloc((size_t)i * i * 7 + 1);
        CHECK(objects[i] != NULL);
        memset(objects[i], i, (size_t)i * i * 7 + 1);
    }
    kept = objects[3] = realloc(objects[3], 100000);
    for (int i = 0; i < 200; i++) free(objects[i]);
}

/* The KiB of the library's code, and of these the resident ones. */
static void code_of(const char *library, long *code, long *resident) {
    char line[1024];
    int is_code = 0;
    *code = *resident = 0;
    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps)) {
        char rights[8] = "";
        long kibs = 0;
        if (sscanf(line, "%*x-%*x %7s", rights) == 1) is_code = rights[2] == 'x' && strstr(line, library) != NULL;
        if (is_code && sscanf(line, "Size: %ld", &kibs) == 1) *code += kibs;
        if (is_code && sscanf(line, "Rss: %ld", &kibs) == 1) *resident += kibs;
    }
    fclose(maps);
}

/* Each level has code of its own, and it is not mixed with that of others, nor with what seldom runs. */
static void code(void) {
    long all, resident;
    use();
    code_of("/libpagemill.so", &all, &resident);
    if (all) CHECK(resident > 0 && resident * 5 < all * 3);
}

/* A C program has no unwinder of its own, and gets none. */
static void unwinder(void) {
    long all, resident;
    code_of("/libgcc_s", &all, &resident);
    CHECK(all == 0);
}

CASES({"code", code}, {"unwinder", unwinder})
