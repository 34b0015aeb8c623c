// What programs ask of the kernel: system calls, time, page faults, switches between tasks, processes, and pipes.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "micro.h"

// All tests with two tasks run them on one CPU, as engine comparisons at one and two vCPUs need.
static void stay_on_one_cpu(void) {
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) die("sched_getaffinity");
  int cpu = 0;
  while (!CPU_ISSET(cpu, &allowed)) ++cpu;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) die("sched_setaffinity");
}

// ---- system calls and time -----------------------------------------------------------------------------------------

static uint64_t run_getppid(uint64_t count) {
  uint64_t sum = 0;
  while (count--) sum += (uint64_t)syscall(SYS_getppid);
  return sum;
}

static uint64_t run_clock_gettime(uint64_t count) {
  struct timespec now = {0, 0};
  while (count--) clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_nsec;
}

static uint64_t run_rdtsc(uint64_t count) {
  uint64_t sum = 0;
  while (count--) sum += __rdtsc();
  return sum;
}

// ---- memory --------------------------------------------------------------------------------------------------------

static char* map_anonymous(size_t size) {
  void* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  return memory;
}

enum { kPage = 4096, kFaultsAtOnce = 4096 };

// One operation is one first touch of a page; the mapping of 16 MiB around it is a part of it.
static uint64_t run_page_fault(uint64_t count) {
  while (count > 0) {
    const uint64_t pages = count < kFaultsAtOnce ? count : kFaultsAtOnce;
    char* memory = map_anonymous(pages * kPage);
    madvise(memory, pages * kPage, MADV_NOHUGEPAGE);
    for (uint64_t page = 0; page < pages; ++page) memory[page * kPage] = 1;
    munmap(memory, pages * kPage);
    count -= pages;
  }
  return count;
}

static uint64_t run_mmap(uint64_t count) {
  while (count--) {
    char* memory = map_anonymous(2 * kPage);
    memory[0] = memory[kPage] = 1;
    munmap(memory, 2 * kPage);
  }
  return count;
}

// ---- switches between two tasks on one CPU -------------------------------------------------------------------------

static void read_all(int fd, char* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = read(fd, bytes + done, size - done);
    if (got <= 0) die("read");
    done += (size_t)got;
  }
}

static void write_all(int fd, const char* bytes, size_t size) {
  if (write(fd, bytes, size) != (ssize_t)size) die("write");
}

// One operation is a byte there and a byte back between two processes: two switches of the address space.
static uint64_t run_pipe_ping_pong(uint64_t count) {
  int there[2], back[2];
  char byte = 'x';
  if (pipe(there) != 0 || pipe(back) != 0) die("pipe");
  const pid_t child = fork();
  if (child < 0) die("fork");
  for (uint64_t i = 0; i < count; ++i) {
    if (child != 0) write_all(there[1], &byte, 1);
    read_all(child != 0 ? back[0] : there[0], &byte, 1);
    if (child == 0) write_all(back[1], &byte, 1);
  }
  if (child == 0) _exit(0);
  waitpid(child, NULL, 0);
  for (int i = 0; i < 2; ++i) {
    close(there[i]);
    close(back[i]);
  }
  return (uint64_t)byte;
}

static atomic_uint turn;
static uint64_t turns_each;

// Waits until it is `own`'s turn, then hands over, `turns_each` times.
static void take_turns(unsigned own) {
  for (uint64_t i = 0; i < turns_each; ++i) {
    while (atomic_load(&turn) != own) syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !own, NULL, NULL, 0);
    atomic_store(&turn, !own);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  }
}

static void* second_thread(void* unused) {
  take_turns(1);
  return unused;
}

// One operation is one hand-over from a thread to the other and back: switches without a new address space.
static uint64_t run_context_switch(uint64_t count) {
  pthread_t thread;
  turns_each = count;
  atomic_store(&turn, 0);
  if (pthread_create(&thread, NULL, second_thread, NULL) != 0) die("pthread_create");
  take_turns(0);
  pthread_join(thread, NULL);
  return count;
}

// ---- processes -----------------------------------------------------------------------------------------------------

static uint64_t run_children(uint64_t count, bool exec) {
  while (count--) {
    const pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
      if (exec) execl(own_path, own_path, "nothing", (char*)NULL);
      _exit(exec ? 1 : 0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) die("child");
  }
  return count;
}

static uint64_t run_fork_exit(uint64_t count) { return run_children(count, false); }
static uint64_t run_fork_exec(uint64_t count) { return run_children(count, true); }

// ---- 64 KiB through a pipe in one process --------------------------------------------------------------------------

enum { kPipeBytes = 64 << 10 };
static int pipe_ends[2];
static char pipe_bytes[kPipeBytes];

static void set_up_pipe(void) {
  if (pipe(pipe_ends) != 0) die("pipe");
}

static uint64_t run_pipe_64k(uint64_t count) {
  while (count--) {
    write_all(pipe_ends[1], pipe_bytes, kPipeBytes);
    read_all(pipe_ends[0], pipe_bytes, kPipeBytes);
  }
  return (uint64_t)pipe_bytes[0];
}

// clang-format off
const struct MicroTest kKernelTests[] = {
  {"getppid",        run_getppid,        NULL,            NULL},
  {"clock_gettime",  run_clock_gettime,  NULL,            NULL},
  {"rdtsc",          run_rdtsc,          NULL,            NULL},
  {"page_fault",     run_page_fault,     NULL,            NULL},
  {"mmap",           run_mmap,           NULL,            NULL},
  {"pipe_ping_pong", run_pipe_ping_pong, stay_on_one_cpu, NULL},
  {"context_switch", run_context_switch, stay_on_one_cpu, NULL},
  {"fork_exit",      run_fork_exit,      NULL,            NULL},
  {"fork_exec",      run_fork_exec,      NULL,            NULL},
  {"pipe_64k",       run_pipe_64k,       set_up_pipe,     NULL},
  {NULL,             NULL,               NULL,            NULL},
};
// clang-format on
