/* Copies of the process, made while its threads are in the middle of everything. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

/* How many copies: of the first case 12, and 1500 in the long form. */
static long copies(void) { return from_environment("PAGEMILL_COPIES", 12); }

static volatile int done;

enum { HELD = 300 };

static void churn(uint64_t seed, long turns) {
    void *held[HELD] = {0};
    size_t bytes[HELD] = {0};
    uint64_t state = seed;
    for (long turn = 0; turn < turns && !(turns == INT64_MAX && done); turn++) {
        size_t place = next_random(&state) % HELD;
        CHECK(!held[place] || is_filled(held[place], bytes[place], place + seed));
        uint64_t chance = next_random(&state);
        if (chance % 8 == 0) {
            free(held[place]);
            held[place] = NULL;
            bytes[place] = 0;
            continue;
        }
        bytes[place] = chance % 97 == 0 ? 60000 + chance % 300000 : chance % 900 + 1;
        held[place] = realloc(held[place], bytes[place]);
        CHECK(held[place]);
        fill(held[place], bytes[place], place + seed);
    }
    for (int place = 0; place < HELD; place++) free(held[place]);
}

static void *churn_until_done(void *argument) {
    churn((uintptr_t)argument, INT64_MAX);
    return NULL;
}

static void *churn_a_little(void *argument) {
    churn((uintptr_t)argument, 500);
    return argument;
}

/* A copy that hangs is stopped by its own alarm, and then seen. */
static void in_the_copy(void) {
    signal(SIGALRM, SIG_DFL);
    alarm(60);
}

static void expect_success(pid_t child) {
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fprintf(stderr, "a copy ended with status %#x\n", status);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static pthread_t workers[4];

static void start_workers(void) {
    done = 0;
    for (int n = 0; n < 4; n++)
        CHECK(pthread_create(&workers[n], NULL, churn_until_done, (void *)(uintptr_t)(n + 1)) == 0);
}

static void stop_workers(void) {
    done = 1;
    for (int n = 0; n < 4; n++) CHECK(pthread_join(workers[n], NULL) == 0);
}

static void while_threads_allocate(void) {
    enum { OLD = 200 };
    char *old[OLD];
    for (int n = 0; n < OLD; n++) {
        CHECK((old[n] = malloc((size_t)n * 70 + 1)) != NULL);
        fill(old[n], (size_t)n * 70 + 1, (uint64_t)n);
    }
    start_workers();
    for (long turn = 0; turn < copies(); turn++) {
        pid_t child = fork();
        if (child == 0) {
            in_the_copy();
            for (int n = 0; n < OLD; n++) {
                CHECK(is_filled(old[n], (size_t)n * 70 + 1, (uint64_t)n));
                free(old[n]);
            }
            churn((uint64_t)turn, 2000);
            /* Now and then with a thread, now and then with a copy of the copy. */
            pthread_t thread;
            void *joined;
            if (turn % 3 == 0) {
                CHECK(pthread_create(&thread, NULL, churn_a_little, old) == 0);
                CHECK(pthread_join(thread, &joined) == 0 && joined == old);
            }
            if (turn % 5 == 0) {
                pid_t grandchild = fork();
                if (grandchild == 0) {
                    churn((uint64_t)turn, 300);
                    _exit(0);
                }
                expect_success(grandchild);
            }
            if (turn % 2 == 0) exit(0);
            _exit(0);
        }
        expect_success(child);
    }
    stop_workers();
    for (int n = 0; n < OLD; n++) free(old[n]);
}

/* From several threads at once, each while the others allocate. */

static void *fork_some(void *argument) {
    for (long turn = 0; turn < copies() / 3; turn++) {
        char *before = malloc(1000);
        CHECK(before);
        fill(before, 1000, (uint64_t)turn);
        pid_t child = fork();
        if (child == 0) {
            in_the_copy();
            CHECK(is_filled(before, 1000, (uint64_t)turn));
            before = realloc(before, 100000);
            CHECK(before && is_filled(before, 1000, (uint64_t)turn));
            free(before);
            churn((uintptr_t)argument, 500);
            _exit(0);
        }
        expect_success(child);
        free(before);
    }
    return NULL;
}

static void from_many_threads(void) {
    start_workers();
    pthread_t forkers[4];
    for (int n = 0; n < 4; n++) CHECK(pthread_create(&forkers[n], NULL, fork_some, (void *)(uintptr_t)(n + 9)) == 0);
    for (int n = 0; n < 4; n++) CHECK(pthread_join(forkers[n], NULL) == 0);
    stop_workers();
}

/* Handlers of pthread_atfork may allocate, whoever registers them, before and after. */

static void *from_before;
static int handled;

static void before_fork(void) {
    CHECK(!from_before);
    CHECK((from_before = malloc(3000)) != NULL);
    free(malloc(100000));
    handled++;
}

static void after_fork(void) {
    CHECK(from_before);
    free(from_before);
    from_before = NULL;
    free(calloc(10, 50));
    handled++;
}

static void handlers_that_allocate(void) {
    CHECK(pthread_atfork(before_fork, after_fork, after_fork) == 0);
    start_workers();
    for (long turn = 0; turn < copies() / 5 + 10; turn++) {
        pid_t child = fork();
        if (child == 0) {
            in_the_copy();
            CHECK(!from_before && handled == 2 * (turn + 1));
            churn((uint64_t)turn, 500);
            _exit(0);
        }
        expect_success(child);
    }
    stop_workers();
}

/* Other programs: the way of old, and that of posix_spawn. The copy shares the memory until it is another program. */

static void other_programs(void) {
    char *true_again[] = {"true", NULL};
    start_workers();
    for (long turn = 0; turn < copies() / 5 + 10; turn++) {
        pid_t child = vfork();
        if (child == 0) {
            execve("/bin/true", true_again, environ);
            _exit(9);
        }
        expect_success(child);
        CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, true_again, environ) == 0);
        expect_success(child);
        if (turn % 10 == 0) CHECK(system("exit 0") == 0);
    }
    FILE *pipe = popen("echo from the shell", "r");
    char *line = NULL;
    size_t room = 0;
    CHECK(pipe && getline(&line, &room, pipe) == 15 && pclose(pipe) == 0);
    free(line);
    stop_workers();
}

/* Each copies itself, five deep; what was allocated above is there below. */
static void copies_of_copies(void) {
    enum { DEEPEST = 5 };
    char *blocks[DEEPEST];
    int depth = 0;
    start_workers();
    for (; depth < DEEPEST; depth++) {
        CHECK((blocks[depth] = malloc(200)) != NULL);
        fill(blocks[depth], 200, (uint64_t)depth);
        pid_t child = fork();
        if (child != 0) {
            expect_success(child);
            break;
        }
        in_the_copy();
        start_workers();
    }
    stop_workers();
    for (int n = 0; n <= depth && n < DEEPEST; n++) {
        CHECK(is_filled(blocks[n], 200, (uint64_t)n));
        free(blocks[n]);
    }
    if (depth > 0) _exit(0);
}

CASES({"while_threads_allocate", while_threads_allocate}, {"from_many_threads", from_many_threads},
      {"handlers_that_allocate", handlers_that_allocate}, {"other_programs", other_programs},
      {"copies_of_copies", copies_of_copies})
