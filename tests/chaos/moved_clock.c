/* Set every wall clock of a process ahead of the true time by the offset in a file; clock.py preloads it.
   The monotonic clocks do not change, as when an administrator or NTP sets a machine's clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_ms;
static int (*true_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void initialize(void) {
    const char *name = getenv("CHAOS_CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    true_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof *offset_ms, PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) offset_ms = memory;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!true_gettime) true_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = true_gettime(clock, now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (!failed && is_wall && offset_ms) {
        int64_t milliseconds = *offset_ms;
        now->tv_sec += milliseconds / 1000;
        now->tv_nsec += milliseconds % 1000 * 1000000;
        if (now->tv_nsec >= 1000000000) now->tv_sec++, now->tv_nsec -= 1000000000;
        if (now->tv_nsec < 0) now->tv_sec--, now->tv_nsec += 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec moved;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &moved)) return -1;
    now->tv_sec = moved.tv_sec;
    now->tv_usec = moved.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec moved;
    if (clock_gettime(CLOCK_REALTIME, &moved)) return -1;
    if (now) *now = moved.tv_sec;
    return moved.tv_sec;
}
