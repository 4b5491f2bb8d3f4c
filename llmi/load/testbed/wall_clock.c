// Loaded before a process under test (LD_PRELOAD): shifts its wall clock by WALL_CLOCK_SHIFT_S seconds.
// Monotonic clocks and sleeps stay true. (The library of the package faketime 0.9.10 breaks `time.sleep` of Python 3.11:
// its clock_nanosleep answers EINVAL to absolute times.)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t shift(void) {
  const char *value = getenv("WALL_CLOCK_SHIFT_S");
  return value ? (time_t)atol(value) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*true_clock)(clockid_t, struct timespec *);
  if (!true_clock) *(void **)&true_clock = dlsym(RTLD_NEXT, "clock_gettime");
  int result = true_clock(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  int result = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return result;
}

time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now) *now = precise.tv_sec;
  return precise.tv_sec;
}
