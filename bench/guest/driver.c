// The benchmark's driver: runs the steps of /data/plan one by one, times them, and prints what it measured.
//
// As PID 1 (it is /init of the guest image) it mounts what programs need and powers the machine off at the end.
// On the host, `driver --native ROOT DATA CPUS` runs the same steps on the same files in a root directory of its own,
// for the figures that stand beside: as root, or as a user where user namespaces are open to users.
//
// A line of the plan: KIND <tab> NAME <tab> REPEATS <tab> COUNT <tab> program <tab> argument ...
//   time      runs the program COUNT times, one after the other; the figure is the time of all together
//   parallel  runs it COUNT times at once; the figure is the time until the last one ends
//   relay     runs it once; it prints its own RESULT lines
//   openssl   runs it, `openssl speed -mr`, and takes the figures from what it prints
// Output, one fact a line: "STEP name", "RESULT name value unit", "CHECK name checksum" (of what the program wrote, so
// that a wrong result is seen), "SKIP name why", "FAIL name why", "INFO name text", and "DONE" at the end.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kArgumentsMax = 60, kAtOnceMax = 64 };
static const char* const kPlan = "/data/plan";
static char* const kEnvironment[] = {"PATH=/usr/bin:/bin", "HOME=/tmp", "LC_ALL=C", "TERM=dumb", NULL};

struct Step {
  const char *kind, *name;
  int repeats, count;
  char* arguments[kArgumentsMax + 1];
};

static bool is_init;

static void power_off(void) {
  sync();
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static void die(const char* what) {
  printf("FAIL driver %s: %s\n", what, strerror(errno));
  if (is_init) power_off();
  exit(1);
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// ---- the system around the programs --------------------------------------------------------------------------------

static void mount_at(const char* source, const char* target, const char* type, unsigned long flags) {
  if (mkdir(target, 0755) != 0 && errno != EEXIST) die(target);
  if (mount(source, target, type, flags, NULL) != 0) die(target);
}

static void set_up_guest(void) {
  mount_at("proc", "/proc", "proc", 0);
  mount_at("devtmpfs", "/dev", "devtmpfs", 0);
  mount_at("tmpfs", "/tmp", "tmpfs", 0);
}

static void join_path(char (*path)[4096], const char* directory, const char* name) {
  if (snprintf(*path, sizeof *path, "%s/%s", directory, name) >= (int)sizeof *path) die("path too long");
}

static void map_identity(const char* file, unsigned id) {
  FILE* map = fopen(file, "w");
  if (!map || fprintf(map, "0 %u 1\n", id) < 0 || fclose(map) != 0) die(file);
}

// A mount namespace of our own, so that nothing stays mounted on the host whatever happens.
static void set_up_native(const char* root, const char* data, int cpus) {
  const unsigned user = getuid(), group = getgid();
  if (unshare(CLONE_NEWNS | (user != 0 ? CLONE_NEWUSER : 0)) != 0) die("a mount namespace");
  if (user != 0) {
    FILE* groups = fopen("/proc/self/setgroups", "w");
    if (groups) {
      fputs("deny", groups);
      fclose(groups);
    }
    map_identity("/proc/self/uid_map", user);
    map_identity("/proc/self/gid_map", group);
  }
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) die("private mounts");
  char path[4096];
  const char* const bound[][2] = {{"/dev", "dev"}, {"/proc", "proc"}, {data, "data"}};
  for (size_t i = 0; i < sizeof bound / sizeof bound[0]; ++i) {
    join_path(&path, root, bound[i][1]);
    mount_at(bound[i][0], path, NULL, MS_BIND | MS_REC);
  }
  join_path(&path, root, "tmp");
  mount_at("tmpfs", path, "tmpfs", 0);
  if (chroot(root) != 0 || chdir("/") != 0) die("chroot");

  cpu_set_t allowed, wanted;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) die("sched_getaffinity");
  CPU_ZERO(&wanted);
  for (int cpu = 0, left = cpus; cpu < CPU_SETSIZE && left > 0; ++cpu)
    if (CPU_ISSET(cpu, &allowed)) {
      CPU_SET(cpu, &wanted);
      --left;
    }
  if (sched_setaffinity(0, sizeof wanted, &wanted) != 0) die("sched_setaffinity");
}

static void print_system(void) {
  struct utsname system;
  if (uname(&system) == 0) printf("INFO kernel %s\n", system.release);
  printf("INFO cpus %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
  FILE* file = fopen("/proc/uptime", "r");
  double uptime = 0;
  if (file && fscanf(file, "%lf", &uptime) == 1) printf("INFO uptime %.2f\n", uptime);
  if (file) fclose(file);
}

// ---- programs ------------------------------------------------------------------------------------------------------

static void output_name(char (*name)[32], int index) { snprintf(*name, sizeof *name, "/tmp/out.%d", index); }

// Starts the program with its standard output in a file, or on ours where `index` is -1.
static pid_t start_program(const struct Step* step, int index) {
  fflush(stdout);
  const pid_t child = fork();
  if (child < 0) die("fork");
  if (child != 0) return child;
  const int null = open("/dev/null", O_RDWR);
  dup2(null, STDIN_FILENO);
  if (index >= 0) {
    char name[32];
    output_name(&name, index);
    dup2(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644), STDOUT_FILENO);
    // What programs say on stderr is progress (openssl) or the reason of a failure, which is shown then.
    dup2(open("/tmp/errors", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), STDERR_FILENO);
  }
  execve(step->arguments[0], step->arguments, kEnvironment);
  _exit(127);
}

static bool succeeds(const struct Step* step, pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) die("waitpid");
  if (status == 0) return true;
  printf("FAIL %s %s %d\n", step->name, WIFSIGNALED(status) ? "signal" : "exit status",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  FILE* errors = fopen("/tmp/errors", "r");
  char line[256];
  for (int lines = 0; errors && lines < 5 && fgets(line, sizeof line, errors); ++lines)
    printf("INFO %s %.*s\n", step->name, (int)strcspn(line, "\n"), line);
  if (errors) fclose(errors);
  return false;
}

static bool run_one_by_one(const struct Step* step) {
  for (int i = 0; i < step->count; ++i)
    if (!succeeds(step, start_program(step, 0))) return false;
  return true;
}

static bool run_at_once(const struct Step* step) {
  pid_t children[kAtOnceMax];
  bool good = true;
  for (int i = 0; i < step->count; ++i) children[i] = start_program(step, i);
  for (int i = 0; i < step->count; ++i) good &= succeeds(step, children[i]);
  return good;
}

// FNV-1a over what the programs of the last repeat wrote.
static void print_checksum(const struct Step* step, int files) {
  uint64_t sum = UINT64_C(14695981039346656037);
  static unsigned char bytes[65536];
  for (int i = 0; i < files; ++i) {
    char name[32];
    output_name(&name, i);
    const int fd = open(name, O_RDONLY);
    for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0;)
      for (ssize_t at = 0; at < got; ++at) sum = (sum ^ bytes[at]) * UINT64_C(1099511628211);
    close(fd);
  }
  printf("CHECK %s %016" PRIx64 "\n", step->name, sum);
}

// ---- steps ---------------------------------------------------------------------------------------------------------

static void run_timed(const struct Step* step, bool (*run)(const struct Step*), int files) {
  for (int repeat = 0; repeat < step->repeats; ++repeat) {
    const double start = seconds_now();
    if (!run(step)) return;
    printf("RESULT %s %.6f s\n", step->name, seconds_now() - start);
  }
  print_checksum(step, files);
}

static void run_time(const struct Step* step) { run_timed(step, run_one_by_one, 1); }
static void run_parallel(const struct Step* step) { run_timed(step, run_at_once, step->count); }
static void run_relay(const struct Step* step) { succeeds(step, start_program(step, -1)); }

// "+F:22:AES-128-GCM:6100000000.00" is bytes a second; "+F2:2:2048:3700.0:125000.0" signatures and checks a second.
static void run_openssl(const struct Step* step) {
  for (int repeat = 0; repeat < step->repeats; ++repeat) {
    if (!succeeds(step, start_program(step, 0))) return;
    FILE* output = fopen("/tmp/out.0", "r");
    char line[512];
    double value = 0;
    bool found = false;
    while (output && fgets(line, sizeof line, output)) {
      if (sscanf(line, "+F:%*[^:]:%*[^:]:%lf", &value) == 1) {
        printf("RESULT %s %.6g B/s\n", step->name, value);
        found = true;
      } else if (sscanf(line, "+F2:%*[^:]:%*[^:]:%lf", &value) == 1) {
        printf("RESULT %s %.6g op/s\n", step->name, value);
        found = true;
      }
    }
    if (output) fclose(output);
    if (!found) printf("FAIL %s no figure in the output of openssl speed\n", step->name);
  }
}

static void run_step(const struct Step* step) {
  static const struct {
    const char* kind;
    void (*run)(const struct Step*);
  } kinds[] = {{"time", run_time}, {"parallel", run_parallel}, {"relay", run_relay}, {"openssl", run_openssl}};
  printf("STEP %s\n", step->name);
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i)
    if (strcmp(step->kind, kinds[i].kind) == 0) return kinds[i].run(step);
  printf("FAIL %s unknown kind %s\n", step->name, step->kind);
}

static void run_plan(void) {
  FILE* plan = fopen(kPlan, "r");
  if (!plan) die(kPlan);
  static char line[16384];
  while (fgets(line, sizeof line, plan)) {
    line[strcspn(line, "\n")] = '\0';
    struct Step step = {0};
    char* rest = line;
    step.kind = strsep(&rest, "\t");
    step.name = strsep(&rest, "\t");
    const char* repeats = strsep(&rest, "\t");
    const char* count = strsep(&rest, "\t");
    if (!rest) continue;
    step.repeats = atoi(repeats);
    step.count = atoi(count);
    if (step.count > kAtOnceMax && strcmp(step.kind, "parallel") == 0) step.count = kAtOnceMax;
    for (int i = 0; i < kArgumentsMax && rest; ++i) step.arguments[i] = strsep(&rest, "\t");
    run_step(&step);
  }
  fclose(plan);
}

int main(int argc, char** argv) {
  is_init = getpid() == 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (is_init) {
    set_up_guest();
  } else if (argc == 5 && strcmp(argv[1], "--native") == 0) {
    set_up_native(argv[2], argv[3], atoi(argv[4]));
  } else {
    fprintf(stderr, "usage: driver --native ROOT DATA CPUS\n");
    return 2;
  }
  print_system();
  run_plan();
  printf("DONE\n");
  if (is_init) power_off();
  return 0;
}
