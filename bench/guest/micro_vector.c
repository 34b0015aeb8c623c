// Floating point, vectors, and the C library's vectorised memory functions.
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "micro.h"

// ---- double precision: the planets of a solar system, one step of 5 bodies
// --------------------------------------------

enum { kBodies = 5 };
static struct Body { double position[3], velocity[3], mass; } bodies[kBodies];

static void set_up_nbody(void) {
  for (int i = 0; i < kBodies; ++i) {
    for (int axis = 0; axis < 3; ++axis) {
      bodies[i].position[axis] = 3.0 * i * (axis + 1) + 0.1 * axis;
      bodies[i].velocity[axis] = 0.01 * (i - 2) * (axis - 1);
    }
    bodies[i].mass = i == 0 ? 39.47 : 0.03 / i;
  }
}

static void attract(struct Body* a, struct Body* b, double step) {
  double distance[3], square = 0;
  for (int axis = 0; axis < 3; ++axis) {
    distance[axis] = a->position[axis] - b->position[axis];
    square += distance[axis] * distance[axis];
  }
  const double pull = step / (square * sqrt(square));
  for (int axis = 0; axis < 3; ++axis) {
    a->velocity[axis] -= distance[axis] * b->mass * pull;
    b->velocity[axis] += distance[axis] * a->mass * pull;
  }
}

static uint64_t run_nbody(uint64_t count) {
  const double step = 0.001;
  while (count--) {
    for (int i = 0; i < kBodies; ++i)
      for (int j = i + 1; j < kBodies; ++j) attract(&bodies[i], &bodies[j], step);
    for (int i = 0; i < kBodies; ++i)
      for (int axis = 0; axis < 3; ++axis) bodies[i].position[axis] += step * bodies[i].velocity[axis];
  }
  return (uint64_t)(int64_t)(bodies[0].position[0] * 1e6);
}

// ---- x87: one multiplication and one addition an operation
// -------------------------------------------------------------

static uint64_t run_x87(uint64_t count) {
  long double a = 1.5L, b = 0.75L;
  while (count--) {
    a = a * 0.999999L + b;
    b = b * 1.000001L - 0.000001L * a;
  }
  return (uint64_t)(int64_t)(a * 1000);
}

// ---- SSE2 integers: 256 vectors an operation -----------------------------------------------------------------------

enum { kVectors = 256 };
static __m128i words[kVectors];

static void set_up_sse2(void) {
  for (int i = 0; i < kVectors; ++i) words[i] = _mm_set1_epi32(i * 77777);
}

static uint64_t run_sse2(uint64_t count) {
  __m128i sum = _mm_setzero_si128();
  while (count--)
    for (int i = 0; i < kVectors; ++i) {
      const __m128i value = _mm_add_epi32(_mm_mullo_epi16(words[i], sum), _mm_srli_epi32(words[i], 3));
      sum = _mm_xor_si128(sum, _mm_shuffle_epi32(value, 0x39));
      words[i] = _mm_adds_epi16(words[i], value);
    }
  return (uint64_t)_mm_cvtsi128_si64(sum);
}

// ---- AVX2 with FMA: 256 vectors an operation -----------------------------------------------------------------------

static float left[kVectors * 8] __attribute__((aligned(32))), right[kVectors * 8] __attribute__((aligned(32)));

static bool has_avx2_fma(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static void set_up_avx2(void) {
  for (int i = 0; i < kVectors * 8; ++i) {
    left[i] = 1.0f / (float)(i + 1);
    right[i] = (float)i * 0.001f;
  }
}

__attribute__((target("avx2,fma"))) static uint64_t run_avx2(uint64_t count) {
  __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
  while (count--)
    for (int i = 0; i < kVectors; i += 4)
      for (int k = 0; k < 4; ++k)
        sums[k] = _mm256_fmadd_ps(_mm256_load_ps(left + (i + k) * 8), _mm256_load_ps(right + (i + k) * 8), sums[k]);
  const __m256 sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
  return (uint64_t)(int64_t)_mm256_cvtss_f32(sum);
}

// ---- the C library's memory functions
// --------------------------------------------------------------------------------

enum { kCopied = 1 << 20, kStringLength = 64 };
static char *from, *to;
static char string[kStringLength + 1];

static void set_up_memcpy(void) {
  from = malloc(kCopied);
  to = malloc(kCopied);
  if (!from || !to) die("malloc");
  memset(from, 'a', kCopied);
  memset(to, 'b', kCopied);
}

static uint64_t run_memcpy(uint64_t count) {
  while (count--) {
    memcpy(to, from, kCopied);
    __asm__ volatile("" ::: "memory");
  }
  return (uint64_t)to[kCopied - 1];
}

static void set_up_strlen(void) { memset(string, 'a', kStringLength); }

static uint64_t run_strlen(uint64_t count) {
  uint64_t sum = 0;
  const char* text = string;
  while (count--) {
    __asm__ volatile("" : "+r"(text) : : "memory");
    sum += strlen(text);
  }
  return sum;
}

// clang-format off
const struct MicroTest kVectorTests[] = {
  {"nbody",    run_nbody,  set_up_nbody,  NULL},
  {"x87",      run_x87,    NULL,          NULL},
  {"sse2",     run_sse2,   set_up_sse2,   NULL},
  {"avx2_fma", run_avx2,   set_up_avx2,   has_avx2_fma},
  {"memcpy",   run_memcpy, set_up_memcpy, NULL},
  {"strlen",   run_strlen, set_up_strlen, NULL},
  {NULL,       NULL,       NULL,          NULL},
};
// clang-format on
