/* pagemill.h from a C program that also runs without pagemill: options, numbers, accounts, profiles. */
#define PAGEMILL_WEAK
#include "pagemill.h"

#include "check.h"

#include <dirent.h>
#include <fcntl.h>

/* Whether there is a heap to ask. Without one there is nothing to test, which is a test too: the program runs. */
static int is_there(void) {
    int there = pagemill_get != NULL;
    CHECK((pagemill_set != NULL) == there && (pagemill_stat != NULL) == there && (pagemill_trim != NULL) == there);
    CHECK((pagemill_report != NULL) == there && (pagemill_dump != NULL) == there);
    return there;
}

static uint64_t stat_of(const char *name) {
    uint64_t value = 0;
    CHECK(pagemill_stat(name, &value) == 0);
    return value;
}

static void is(const char *name, const char *expected) {
    char value[64];
    CHECK(pagemill_get(name, value, sizeof value) == 0);
    CHECK(strcmp(value, expected) == 0);
}

static void options(void) {
    if (!is_there()) return;
    char value[4];
    errno = 77;
    is("decay_ms", "321");
    is("limit", "none");
    CHECK(pagemill_get("decay_ms", value, 3) == ERANGE && strcmp(value, "32") == 0);
    CHECK(pagemill_get("decay", value, 3) == ENOENT && pagemill_get(NULL, NULL, 0) == EINVAL);
    CHECK(pagemill_set("decay_ms", "500") == 0);
    is("decay_ms", "500");
    CHECK(pagemill_set("decay_ms", "soon") == EINVAL && pagemill_set("level", "fast") == EPERM);
    is("decay_ms", "500");
    CHECK(errno == 77);
}

static void limit(void) {
    if (!is_there()) return;
    void *held = malloc(60 << 20);
    CHECK(held && pagemill_set("limit", "50m") == EBUSY);
    is("limit", "none");
    CHECK(stat_of("limit_bytes") == UINT64_MAX);
    CHECK(pagemill_set("limit", "100m") == 0 && stat_of("limit_bytes") == 100 << 20);
    CHECK(malloc(60 << 20) == NULL && errno == ENOMEM);
    free(held);
    held = malloc(60 << 20);
    CHECK(held != NULL);
    CHECK(pagemill_set("limit", "none") == 0);
    void *more = malloc(200 << 20);
    CHECK(more != NULL);
    free(more);
    free(held);
}

static void numbers(void) {
    if (!is_there()) return;
    uint64_t before = stat_of("used_bytes"), value;
    char *held = malloc(40 << 20);
    memset(held, 1, 40 << 20);
    CHECK(stat_of("used_bytes") >= before + (40 << 20) && stat_of("resident_bytes") >= 40 << 20);
    CHECK(stat_of("memory_bytes") == stat_of("used_bytes") + stat_of("free_bytes"));
    free(held);
    pagemill_trim();
    CHECK(stat_of("dirty_bytes") == 0 && stat_of("given_back_bytes") >= 30 << 20);
    CHECK(pagemill_stat("bytes", &value) == ENOENT && pagemill_stat("faults", NULL) == EINVAL);
}

static void report(void) {
    if (!is_there()) return;
    FILE *file = tmpfile();
    CHECK(file && pagemill_report(fileno(file), PAGEMILL_JSON) == 0 && pagemill_report(fileno(file), PAGEMILL_TEXT) == 0);
    char text[12];
    rewind(file);
    CHECK(fread(text, 1, sizeof text, file) == sizeof text && memcmp(text, "{\"pagemill\":", sizeof text) == 0);
    fclose(file);
    CHECK(pagemill_report(-1, PAGEMILL_TEXT) == EIO && pagemill_report(1, 9) == EINVAL);
}

static void profile(void) {
    if (!is_there()) return;
    CHECK(pagemill_set("prof", "true") == 0);
    void *held = malloc(20 << 20);
    char path[] = "/tmp/pagemill-control-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && held);
    int error = pagemill_dump(path);
    unsigned char head[2] = {0, 0};
    CHECK(error == 0 && read(file, head, 2) == 2 && head[0] == 0x1f && head[1] == 0x8b);
    CHECK(pagemill_dump("/nowhere/at/all") == ENOENT);
    /* Or there would be one more at exit. */
    CHECK(pagemill_set("prof", "false") == 0);
    close(file);
    unlink(path);
    free(held);
}

/* A thread of the library's, found by its name. */
static int has_thread(void) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int found = 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fgets(name, sizeof name, file)) found |= strcmp(name, "pagemill\n") == 0;
        fclose(file);
    }
    closedir(tasks);
    return found;
}

static void background(void) {
    if (!is_there()) return;
    CHECK(!has_thread() && pagemill_set("background_thread", "true") == 0);
    int turns = 0;
    while (!has_thread() && turns++ < 6000) usleep(10000);
    CHECK(has_thread() && pagemill_set("background_thread", "false") == 0);
    for (turns = 0; has_thread() && turns < 6000; turns++) usleep(10000);
    CHECK(!has_thread());
}

CASES({"options", options}, {"limit", limit}, {"numbers", numbers}, {"report", report}, {"profile", profile},
      {"background", background})
