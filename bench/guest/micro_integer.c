// Integer programs in miniature: calls, sorting, a bytecode interpreter, sieving, branches, and dependent loads.
#include <stdlib.h>
#include <sys/mman.h>

#include "micro.h"

static uint64_t next_random(uint64_t* state) {  // xorshift64
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

// ---- calls ---------------------------------------------------------------------------------------------------------

// noclone and no inlining: the calls are what is measured.
__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls,no-inline"))) static unsigned fib(unsigned n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t run_fib(uint64_t count) {
  uint64_t sum = 0;
  while (count--) {
    const unsigned value = fib(22);
    if (value != 17711) die("fib is wrong");
    sum += value;
  }
  return sum;
}

// ---- sorting with a callback ---------------------------------------------------------------------------------------

enum { kSorted = 10000 };
static int unsorted[kSorted], sorted[kSorted];

static int compare(const void* a, const void* b) {
  const int x = *(const int*)a, y = *(const int*)b;
  return (x > y) - (x < y);
}

static void set_up_qsort(void) {
  uint64_t state = 88172645463325252u;
  for (int i = 0; i < kSorted; ++i) unsorted[i] = (int)next_random(&state);
}

static uint64_t run_qsort(uint64_t count) {
  while (count--) {
    for (int i = 0; i < kSorted; ++i) sorted[i] = unsorted[i];
    qsort(sorted, kSorted, sizeof sorted[0], compare);
    for (int i = 1; i < kSorted; ++i)
      if (sorted[i - 1] > sorted[i]) die("qsort is wrong");
  }
  return (uint64_t)sorted[kSorted / 2];
}

// ---- a bytecode interpreter with computed gotos --------------------------------------------------------------------

enum Opcode { kLoad, kAdd, kXor, kShift, kStore, kDecrement, kJumpIfNot, kHalt };

// Runs `program` on `memory` from a counter of `rounds`: about nine dispatches a round.
__attribute__((noinline)) static uint64_t interpret(const uint8_t* program, uint64_t* memory, uint64_t rounds) {
  static const void* const labels[] = {&&load, &&add, &&mix, &&shift, &&store, &&decrement, &&jump_if_not, &&halt};
  uint64_t accumulator = 1;
  const uint8_t* at = program;
#define DISPATCH() goto* labels[*at++]
  DISPATCH();
load:
  accumulator += memory[*at++];
  DISPATCH();
add:
  accumulator += *at++;
  DISPATCH();
mix:
  accumulator ^= memory[*at++];
  DISPATCH();
shift:
  accumulator = accumulator << 5 | accumulator >> 59;
  DISPATCH();
store:
  memory[*at++] = accumulator;
  DISPATCH();
decrement:
  --rounds;
  DISPATCH();
jump_if_not:
  at = rounds ? program + *at : at + 1;
  DISPATCH();
halt:
  return accumulator;
#undef DISPATCH
}

static uint64_t run_interpreter(uint64_t count) {
  static const uint8_t program[] = {kLoad, 0, kAdd,   7, kXor,       1,          kShift, kStore, 0,
                                    kAdd,  3, kStore, 1, kDecrement, kJumpIfNot, 0,      kHalt};
  uint64_t memory[2] = {1, 2}, sum = 0;
  while (count--) sum += interpret(program, memory, 1000);
  return sum;
}

// ---- sieve ---------------------------------------------------------------------------------------------------------

enum { kSieveSize = 4 << 20, kPrimesBelowSieveSize = 295947 };
static uint8_t* composite;

static void* map_memory(size_t size) {
  void* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  return memory;
}

static void set_up_sieve(void) { composite = map_memory(kSieveSize); }

static uint64_t run_sieve(uint64_t count) {
  uint64_t primes = 0;
  while (count--) {
    for (int i = 0; i < kSieveSize; ++i) composite[i] = 0;
    primes = 0;
    for (int i = 2; i < kSieveSize; ++i) {
      if (composite[i]) continue;
      ++primes;
      if (i < kSieveSize / i)
        for (int j = i * i; j < kSieveSize; j += i) composite[j] = 1;
    }
    if (primes != kPrimesBelowSieveSize) die("the sieve is wrong");
  }
  return primes;
}

// ---- data-dependent branches, no memory ----------------------------------------------------------------------------

static uint64_t run_collatz(uint64_t count) {
  uint64_t steps = 0;
  while (count--)
    for (uint64_t start = 1; start <= 1000; ++start)
      for (uint64_t n = start; n != 1; ++steps) n = n & 1 ? 3 * n + 1 : n / 2;
  return steps;
}

// ---- dependent loads over 64 MiB -----------------------------------------------------------------------------------

struct Node {
  struct Node* next;
  uint64_t padding[7];  // one node to a cache line
};
enum { kNodes = (64 << 20) / sizeof(struct Node) };
static struct Node* nodes;

// One cycle through all nodes in random order (Sattolo).
static void set_up_chase(void) {
  nodes = map_memory(kNodes * sizeof(struct Node));
  uint32_t* order = map_memory(kNodes * sizeof(uint32_t));
  uint64_t state = 88172645463325252u;
  for (uint32_t i = 0; i < kNodes; ++i) order[i] = i;
  for (uint32_t i = kNodes - 1; i > 0; --i) {
    const uint32_t j = (uint32_t)(next_random(&state) % i), kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  for (uint32_t i = 0; i < kNodes; ++i) nodes[order[i]].next = &nodes[order[(i + 1) % kNodes]];
  munmap(order, kNodes * sizeof(uint32_t));
}

static uint64_t run_chase(uint64_t count) {
  const struct Node* node = nodes;
  while (count--) node = node->next;
  return (uint64_t)(node - nodes);
}

// clang-format off
const struct MicroTest kIntegerTests[] = {
  {"fib",     run_fib,         NULL,         NULL},
  {"qsort",   run_qsort,       set_up_qsort, NULL},
  {"interp",  run_interpreter, NULL,         NULL},
  {"sieve",   run_sieve,       set_up_sieve, NULL},
  {"collatz", run_collatz,     NULL,         NULL},
  {"chase",   run_chase,       set_up_chase, NULL},
  {NULL,      NULL,            NULL,         NULL},
};
// clang-format on
