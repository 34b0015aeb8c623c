// The micro benchmarks: one small kernel of work each, run as often as fills the measuring time (micro.c).
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct MicroTest {
  const char* name;
  // Does the work `count` times and returns something that depends on all of it, so that no compiler leaves it out.
  uint64_t (*run)(uint64_t count);
  // Prepares memory once before the first run; null where nothing is to be prepared.
  void (*set_up)(void);
  // False where this CPU cannot run the test; null where every x86-64 CPU can.
  bool (*is_supported)(void);
};

extern const struct MicroTest kIntegerTests[];  // each list ends with a null name
extern const struct MicroTest kVectorTests[];
extern const struct MicroTest kKernelTests[];

// For fork_exec: the path of this program, which exits at once when its argument is "nothing".
extern const char* own_path;

// Ends the program with a message on stderr.
void die(const char* what);
