// micro NAME [MILLISECONDS [REPEATS]]: runs one micro benchmark and prints "RESULT NAME value ns" for each repeat.
//
// The count of operations doubles until a run takes a quarter of the measuring time, so that one program suits a slow
// engine and a fast CPU. That also means that a JIT has translated everything before the first measured run.
#include "micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char* own_path;
static volatile uint64_t sink;

void die(const char* what) {
  perror(what);
  exit(1);
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double seconds_of(const struct MicroTest* test, uint64_t count) {
  const double start = seconds_now();
  sink = test->run(count);
  return seconds_now() - start;
}

static const struct MicroTest* find_test(const char* name) {
  const struct MicroTest* const lists[] = {kIntegerTests, kVectorTests, kKernelTests};
  for (size_t list = 0; list < sizeof lists / sizeof lists[0]; ++list)
    for (const struct MicroTest* test = lists[list]; test->name; ++test)
      if (strcmp(test->name, name) == 0) return test;
  return NULL;
}

static void measure(const struct MicroTest* test, double target, int repeats) {
  if (test->set_up) test->set_up();
  uint64_t count = 1;
  double seconds = seconds_of(test, count);
  while (seconds < target / 4) {
    count *= 2;
    seconds = seconds_of(test, count);
  }
  count = (uint64_t)((double)count * target / seconds) + 1;
  for (int repeat = 0; repeat < repeats; ++repeat)
    printf("RESULT %s %.6g ns\n", test->name, seconds_of(test, count) / (double)count * 1e9);
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "nothing") == 0) return 0;
  const struct MicroTest* test = argc > 1 ? find_test(argv[1]) : NULL;
  if (!test) {
    fprintf(stderr, "micro: no such benchmark: %s\n", argc > 1 ? argv[1] : "(none given)");
    return 2;
  }
  own_path = argv[0];
  if (test->is_supported && !test->is_supported()) {
    printf("SKIP %s the CPU lacks it\n", test->name);
    return 0;
  }
  measure(test, argc > 2 ? atof(argv[2]) / 1000 : 0.1, argc > 3 ? atoi(argv[3]) : 3);
  return 0;
}
