/* Signal handlers that allocate and free, wherever they come. One that interrupted the heap itself may get null. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

/* How long a storm lasts, in milliseconds of real time. */
static long milliseconds(void) { return from_environment("PAGEMILL_STORM_MS", 400); }

static const size_t SIZES[] = {8, 64, 200, 1000, 4000, 30000, 70000, 300000};
enum { COUNT = sizeof SIZES / sizeof *SIZES };

/* What a handler leaves for the next one, by size. */
static void *left[COUNT];
static int handled, served, refused, done;

static int load(int *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }
static unsigned add(int *counter) { return (unsigned)__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

/* The first and the last bytes only: a handler is to be short. */
static void mark(char *block, size_t bytes, char with) {
    size_t edge = bytes < 16 ? bytes : 16;
    memset(block, with, edge);
    memset(block + bytes - edge, with, edge);
}

static int is_marked(const char *block, size_t bytes, char with) {
    size_t edge = bytes < 16 ? bytes : 16;
    for (size_t i = 0; i < edge; i++)
        if (block[i] != with || block[bytes - 1 - i] != with) return 0;
    return 1;
}

static void handler(int signal) {
    int kept = errno;
    size_t place = add(&handled) % COUNT;
    char *block = signal == SIGALRM ? malloc(SIZES[place]) : calloc(1, SIZES[place]);
    if (block) {
        add(&served);
        CHECK(is_aligned(block, 16) && (signal == SIGALRM || is_zero(block, SIZES[place] < 64 ? SIZES[place] : 64)));
        mark(block, SIZES[place], (char)(place + 1));
    } else {
        add(&refused);
    }
    char *before = __atomic_exchange_n(&left[place], block, __ATOMIC_ACQ_REL);
    if (before) {
        CHECK(is_marked(before, SIZES[place], (char)(place + 1)));
        if (place % 2 == 0) {
            char *other = realloc(before, SIZES[place] / 2);
            /* Refused: then it is what it was. */
            if (other) CHECK(other[0] == (char)(place + 1));
            before = other ? other : before;
        }
        free(before);
    }
    errno = kept;
}

enum { HELD = 100 };

static void work(uint64_t seed, long turns) {
    char *held[HELD] = {0};
    size_t bytes[HELD] = {0};
    uint64_t state = seed;
    for (long turn = 0; turn < turns && !load(&done); turn++) {
        size_t place = next_random(&state) % HELD;
        if (held[place]) CHECK(is_marked(held[place], bytes[place], (char)place));
        uint64_t chance = next_random(&state);
        if (chance % 3 == 0) {
            free(held[place]);
            held[place] = NULL;
            continue;
        }
        bytes[place] = chance % 50 == 0 ? 20000 + chance % 200000 : chance % 1200 + 1;
        held[place] = realloc(held[place], bytes[place]);
        CHECK(held[place]);
        mark(held[place], bytes[place], (char)place);
    }
    for (int place = 0; place < HELD; place++) free(held[place]);
}

static void *work_until_done(void *argument) {
    work((uintptr_t)argument, INT64_MAX);
    return argument;
}

static void *work_a_little(void *argument) {
    work((uintptr_t)argument, 300);
    return argument;
}

static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(sigaction(SIGPROF, &action, NULL) == 0);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
}

/* A signal every so many microseconds, of real time and of processor time; zero ends it. */
static void storm(long microseconds) {
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    CHECK(setitimer(ITIMER_PROF, &timer, NULL) == 0);
}

static void say(void) {
    printf("%d signals, %d served, %d refused\n", load(&handled), load(&served), load(&refused));
    CHECK(load(&served) > 0);
}

static long passed_ms(const struct timespec *since) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static struct timespec begin(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now;
}

/* All threads have the signals, those too that have only just begun or are about to end. */
static void by_timer(void) {
    pthread_t threads[3];
    install();
    storm(30);
    for (int n = 0; n < 3; n++) CHECK(pthread_create(&threads[n], NULL, work_until_done, (void *)(uintptr_t)(n + 1)) == 0);
    for (struct timespec since = begin(); passed_ms(&since) < milliseconds();) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, work_a_little, threads) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    storm(0);
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    for (int n = 0; n < 3; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    say();
}

/* The same while others have the processors: then a thread is stopped anywhere for long. */
static void by_timer_under_load(void) {
    pid_t loops[2];
    for (int n = 0; n < 2; n++) {
        loops[n] = fork();
        CHECK(loops[n] >= 0);
        if (loops[n] == 0) {
            alarm(60);
            for (volatile int forever = 1; forever;) {}
        }
    }
    by_timer();
    for (int n = 0; n < 2; n++) CHECK(kill(loops[n], SIGKILL) == 0 && waitpid(loops[n], NULL, 0) == loops[n]);
}

/* One thread sends, as fast as it can, to others by name. */
static void by_another_thread(void) {
    pthread_t threads[3];
    install();
    for (int n = 0; n < 3; n++) CHECK(pthread_create(&threads[n], NULL, work_until_done, (void *)(uintptr_t)(n + 1)) == 0);
    struct timespec since = begin();
    for (int n = 0; passed_ms(&since) < milliseconds(); n++) CHECK(pthread_kill(threads[n % 3], SIGUSR1) == 0);
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    for (int n = 0; n < 3; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    say();
}

/* Copies are made in the middle of the storm, and have one of their own. */
static void with_forks(void) {
    pthread_t threads[2];
    install();
    storm(100);
    for (int n = 0; n < 2; n++) CHECK(pthread_create(&threads[n], NULL, work_until_done, (void *)(uintptr_t)(n + 1)) == 0);
    int copies = 0;
    for (struct timespec since = begin(); passed_ms(&since) < milliseconds(); copies++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            /* Timers are not inherited. */
            storm(100);
            work((uint64_t)copies, 2000);
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, work_a_little, threads) == 0);
            CHECK(pthread_join(thread, NULL) == 0);
            storm(0);
            _exit(0);
        }
        int status;
        while (waitpid(child, &status, 0) != child) CHECK(errno == EINTR);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    storm(0);
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    for (int n = 0; n < 2; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    printf("%d copies\n", copies);
    say();
}

/* A handler on a stack of its own, and one that is interrupted by itself. */

static int depth, deepest;

static void nested_handler(int signal) {
    int level = __atomic_add_fetch(&depth, 1, __ATOMIC_RELAXED);
    if (level > deepest) deepest = level;
    /* Where signals come faster than they are handled, the stack must not end. */
    if (level <= 4) handler(signal);
    if (level < 4) raise(signal);
    if (level <= 4) handler(signal);
    __atomic_sub_fetch(&depth, 1, __ATOMIC_RELAXED);
}

static void nested(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = nested_handler;
    action.sa_flags = SA_RESTART | SA_NODEFER | SA_ONSTACK;
    stack_t stack = {.ss_sp = malloc(256 << 10), .ss_size = 256 << 10};
    CHECK(stack.ss_sp && sigaltstack(&stack, NULL) == 0);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec often = {{0, 200000}, {0, 200000}}, never = {{0, 0}, {0, 0}};
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
    for (struct timespec since = begin(); passed_ms(&since) < milliseconds();) work(1, 1000);
    CHECK(timer_settime(timer, 0, &never, NULL) == 0 && timer_delete(timer) == 0);
    CHECK(deepest >= 4);
    stack_t none = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&none, NULL) == 0);
    free(stack.ss_sp);
    say();
}

CASES({"by_timer", by_timer}, {"by_timer_under_load", by_timer_under_load}, {"by_another_thread", by_another_thread},
      {"with_forks", with_forks}, {"nested", nested})
