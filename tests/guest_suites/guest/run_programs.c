// Runs the programs of a plan one by one, or several at once, and prints one line for each. The same program, statically
// linked, runs in the guest and on the host, so that what it prints can be compared.
//
//   run_programs PLAN WORK_FOLDER AT_ONCE [verbose]
//
// A line of the plan: NAME <tab> OUTPUT <tab> SECONDS <tab> program <tab> argument ..., or "=NAME=VALUE" for the
// environment of all programs. OUTPUT says which of the program's lines are compared: "all", or "tap": those of the Test
// Anything Protocol (a plan, ok, not ok), where the rest holds times, addresses and names of files. Each program runs in
// a process group and an empty folder of its own; after SECONDS the whole group is killed.
//
// Output: "RESULT name how code checksum lines passed seconds cpu-seconds" (how: exit, signal or timeout; passed: lines
// that say "ok"), for a program that fails "SAID name line" with its last lines, and "DONE" at the end.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kArgumentsMax = 60, kEnvironmentMax = 60, kAtOnceMax = 64, kLastLines = 12, kLineMax = 16384 };

struct Program {
  char line[kLineMax];  // what the pointers point into
  const char *name, *output;
  double limit;
  char* arguments[kArgumentsMax + 1];
  char folder[4096], log[4096 + 8];
  pid_t pid;
  double start;
  bool timed_out;
};

static char* environment[kEnvironmentMax + 1];
static const char* work_folder;
static bool is_verbose;
static struct Program running[kAtOnceMax];

static void die(const char* what) {
  printf("FAIL %s: %s\n", what, strerror(errno));
  exit(1);
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double seconds_of(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec * 1e-6; }

// ---- what a program printed -----------------------------------------------------------------------------------------

static bool is_tap_line(const char* line) {
  line += strspn(line, " ");
  return strncmp(line, "ok ", 3) == 0 || strncmp(line, "not ok ", 7) == 0 || strncmp(line, "1..", 3) == 0;
}

struct Summary {
  uint64_t checksum;  // FNV-1a over the lines that are compared
  unsigned lines, passed;
  char last[kLastLines][512];
  unsigned long total_lines;
};

static struct Summary summarise(const struct Program* program) {
  struct Summary summary = {.checksum = UINT64_C(14695981039346656037)};
  FILE* log = fopen(program->log, "r");
  if (!log) die(program->log);
  const bool is_tap = strcmp(program->output, "tap") == 0;
  char* line = NULL;
  size_t size = 0;
  for (ssize_t length; (length = getline(&line, &size, log)) > 0;) {
    if (is_verbose) printf("SAID %s %s%s", program->name, line, line[length - 1] == '\n' ? "" : "\n");
    snprintf(summary.last[summary.total_lines++ % kLastLines], sizeof summary.last[0], "%.*s",
             (int)strcspn(line, "\n"), line);
    if (is_tap && !is_tap_line(line)) continue;
    ++summary.lines;
    if (strncmp(line + strspn(line, " "), "ok ", 3) == 0) ++summary.passed;
    for (ssize_t at = 0; at < length; ++at)
      summary.checksum = (summary.checksum ^ (unsigned char)line[at]) * UINT64_C(1099511628211);
  }
  free(line);
  fclose(log);
  return summary;
}

static void print_last_lines(const struct Program* program, const struct Summary* summary) {
  const unsigned long first = summary->total_lines > kLastLines ? summary->total_lines - kLastLines : 0;
  for (unsigned long line = first; line < summary->total_lines; ++line)
    printf("SAID %s %s\n", program->name, summary->last[line % kLastLines]);
}

// ---- programs -------------------------------------------------------------------------------------------------------

static int remove_entry(const char* path, const struct stat* status, int type, struct FTW* walk) {
  (void)status, (void)type, (void)walk;
  return remove(path);
}

static void start_program(struct Program* program, int slot) {
  snprintf(program->folder, sizeof program->folder, "%s/%d", work_folder, slot);
  snprintf(program->log, sizeof program->log, "%s/%d.log", work_folder, slot);
  nftw(program->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  if (mkdir(program->folder, 0755) != 0) die(program->folder);
  program->timed_out = false;
  program->start = seconds_now();
  fflush(stdout);
  program->pid = fork();
  if (program->pid < 0) die("fork");
  if (program->pid != 0) return;
  setpgid(0, 0);
  const int null = open("/dev/null", O_RDWR);
  const int log = open(program->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
  if (null < 0 || log < 0 || chdir(program->folder) != 0) _exit(126);
  dup2(null, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execve(program->arguments[0], program->arguments, environment);
  _exit(127);
}

static void report(struct Program* program, int status, const struct rusage* usage) {
  const double seconds = seconds_now() - program->start;
  const struct Summary summary = summarise(program);
  const char* how = program->timed_out ? "timeout" : WIFSIGNALED(status) ? "signal" : "exit";
  const int code = program->timed_out ? 0 : WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
  if (status != 0 && !is_verbose) print_last_lines(program, &summary);
  printf("RESULT %s %s %d %016" PRIx64 " %u %u %.3f %.3f\n", program->name, how, code, summary.checksum, summary.lines,
         summary.passed, seconds, seconds_of(usage->ru_utime) + seconds_of(usage->ru_stime));
  fflush(stdout);
}

static void kill_late_programs(int at_once) {
  for (int slot = 0; slot < at_once; ++slot) {
    struct Program* program = &running[slot];
    if (program->pid == 0 || program->timed_out || seconds_now() - program->start < program->limit) continue;
    program->timed_out = true;
    kill(-program->pid, SIGKILL);
    kill(program->pid, SIGKILL);
  }
}

// Waits until one program has ended, and frees its slot. SIGALRM of the interval timer ends the wait now and then.
static void wait_for_one(int at_once) {
  for (;;) {
    int status = 0;
    struct rusage usage;
    const pid_t pid = wait4(-1, &status, 0, &usage);
    if (pid < 0 && errno != EINTR) die("wait4");
    kill_late_programs(at_once);
    for (int slot = 0; slot < at_once && pid > 0; ++slot) {
      if (running[slot].pid != pid) continue;
      kill(-pid, SIGKILL);  // what it left running
      report(&running[slot], status, &usage);
      running[slot].pid = 0;
      return;
    }
  }
}

static int count_running(int at_once) {
  int count = 0;
  for (int slot = 0; slot < at_once; ++slot) count += running[slot].pid != 0;
  return count;
}

static struct Program* free_slot(int at_once) {
  for (;;) {
    for (int slot = 0; slot < at_once; ++slot)
      if (running[slot].pid == 0) return &running[slot];
    wait_for_one(at_once);
  }
}

// ---- the plan -------------------------------------------------------------------------------------------------------

static void add_environment(const char* setting) {
  for (int i = 0; i < kEnvironmentMax; ++i)
    if (environment[i] == NULL) {
      environment[i] = strdup(setting);
      return;
    }
  errno = E2BIG;
  die("environment of the plan");
}

static bool parse(struct Program* program, const char* line) {
  snprintf(program->line, sizeof program->line, "%s", line);
  char* rest = program->line;
  program->name = strsep(&rest, "\t");
  program->output = strsep(&rest, "\t");
  const char* limit = strsep(&rest, "\t");
  if (!rest) return false;
  program->limit = atof(limit);
  memset(program->arguments, 0, sizeof program->arguments);
  for (int i = 0; i < kArgumentsMax && rest; ++i) program->arguments[i] = strsep(&rest, "\t");
  return true;
}

static void run_plan(const char* path, int at_once) {
  FILE* plan = fopen(path, "re");
  if (!plan) die(path);
  static char line[kLineMax];
  while (fgets(line, sizeof line, plan)) {
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '=') {
      add_environment(line + 1);
      continue;
    }
    struct Program* program = free_slot(at_once);
    if (parse(program, line)) start_program(program, (int)(program - running));
  }
  while (count_running(at_once) > 0) wait_for_one(at_once);
  fclose(plan);
}

static void ignore(int number) { (void)number; }

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: run_programs PLAN WORK_FOLDER AT_ONCE [verbose]\n");
    return 2;
  }
  work_folder = argv[2];
  is_verbose = argc > 4;
  const int wanted = atoi(argv[3]);
  const int at_once = wanted < 1 ? 1 : wanted > kAtOnceMax ? kAtOnceMax : wanted;
  if (mkdir(work_folder, 0755) != 0 && errno != EEXIST) die(work_folder);
  const struct sigaction action = {.sa_handler = ignore};  // no SA_RESTART
  sigaction(SIGALRM, &action, NULL);
  const struct itimerval every_second = {{1, 0}, {1, 0}};
  setitimer(ITIMER_REAL, &every_second, NULL);
  run_plan(argv[1], at_once);
  printf("DONE\n");
  return 0;
}
