/*
 * Loaded into a program (LD_PRELOAD), adds what stands in a file to its wall clock: one number of 64 bits, microseconds,
 * which whoever has the file may change at any time. Other clocks stay as they are.
 *
 * Not libfaketime: that one shows real time inside select(), which it wraps as well. A PostgreSQL 15 postmaster forks
 * its background workers in signal handlers that interrupt select(), and they keep the real time for good.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void)
{
	const char *file = getenv("TESTBED_CLOCK");
	int descriptor = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;

	if (descriptor < 0)
		return;
	void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, descriptor, 0);
	if (page != MAP_FAILED)
		ahead = page;
	close(descriptor);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
	int failed = (int) syscall(SYS_clock_gettime, which, now);

	if (!failed && ahead && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
	{
		int64_t by = *ahead;
		int64_t nanoseconds = now->tv_nsec + by % 1000000 * 1000;

		now->tv_sec += by / 1000000 + nanoseconds / 1000000000;
		now->tv_nsec = nanoseconds % 1000000000;
	}
	return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec exact;
	int failed = clock_gettime(CLOCK_REALTIME, &exact);

	(void) zone;
	if (!failed && now)
	{
		now->tv_sec = exact.tv_sec;
		now->tv_usec = exact.tv_nsec / 1000;
	}
	return failed;
}

time_t time(time_t *now)
{
	struct timespec exact;

	clock_gettime(CLOCK_REALTIME, &exact);
	if (now)
		*now = exact.tv_sec;
	return exact.tv_sec;
}
