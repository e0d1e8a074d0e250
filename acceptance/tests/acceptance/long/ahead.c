// A clock that is eleven minutes ahead, for programs that wait for ten minutes before they remove something.
// `cc -shared -fPIC`; by LD_PRELOAD.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += 11 * 60;
    return (int)result;
}
