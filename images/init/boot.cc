#include "init/boot.hh"

#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

namespace tenon::guest {

namespace {

struct MountRow {
  const char* type;
  const char* target;
  unsigned long flags;
  const char* options;
};

// clang-format off
constexpr MountRow kMounts[] = {
  {"proc",     "/proc",    MS_NOSUID | MS_NODEV | MS_NOEXEC, ""},
  {"sysfs",    "/sys",     MS_NOSUID | MS_NODEV | MS_NOEXEC, ""},
  {"devtmpfs", "/dev",     MS_NOSUID,                        "mode=0755"},
  {"devpts",   "/dev/pts", MS_NOSUID | MS_NOEXEC,            "gid=5,mode=620,ptmxmode=666"},
  {"tmpfs",    "/dev/shm", MS_NOSUID | MS_NODEV,             "mode=1777"},
  {"tmpfs",    "/run",     MS_NOSUID | MS_NODEV,             "mode=0755"},
  {"tmpfs",    "/tmp",     MS_NOSUID | MS_NODEV,             "mode=1777"},
};

constexpr const char* kLinks[][2] = {
  {"/proc/self/fd",   "/dev/fd"},
  {"/proc/self/fd/0", "/dev/stdin"},
  {"/proc/self/fd/1", "/dev/stdout"},
  {"/proc/self/fd/2", "/dev/stderr"},
};
// clang-format on

void bring_loopback_up() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (::ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    ::ioctl(fd, SIOCSIFFLAGS, &request);
  }
  ::close(fd);
}

/// The file's text, cut to the buffer, NUL-terminated; empty where it cannot be read.
template <size_t size>
void read_text(const char* path, char (&text)[size]) {
  text[0] = '\0';
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  const ssize_t count = ::read(fd, text, size - 1);
  text[count > 0 ? count : 0] = '\0';
  ::close(fd);
}

}  // namespace

void set_up_system() {
  for (const MountRow& row : kMounts) {
    ::mkdir(row.target, 0755);
    ::mount(row.type, row.target, row.type, row.flags, row.options);
  }
  for (const auto& [target, path] : kLinks) {
    [[maybe_unused]] const int made = ::symlink(target, path);
  }
  bring_loopback_up();
}

bool command_line_has(const char* word) {
  static char command_line[4096];
  read_text("/proc/cmdline", command_line);
  char* rest = command_line;
  while (const char* one = ::strsep(&rest, " \n"))
    if (std::strcmp(one, word) == 0) return true;
  return false;
}

const char* console_path() {
  static char path[64] = "/dev/";
  char names[48];
  read_text("/sys/class/tty/console/active", names);
  names[std::strcspn(names, "\n")] = '\0';
  const char* last = std::strrchr(names, ' ');
  last = last != nullptr ? last + 1 : names;
  std::strcpy(path + 5, *last != '\0' ? last : "ttyS0");
  return path;
}

void set_host_name(const char* name) {
  if (::sethostname(name, std::strlen(name)) != 0) return;
  const int fd = ::open("/etc/hosts", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  char line[96] = "127.0.1.1\t";
  std::strncat(line, name, 64);
  std::strcat(line, "\n");
  [[maybe_unused]] const ssize_t written = ::write(fd, line, std::strlen(line));
  ::close(fd);
}

void end_system(Ending ending) {
  ::sync();
  ::reboot(ending == Ending::kPowerOff ? RB_POWER_OFF : RB_AUTOBOOT);
  for (;;) ::pause();  // only where the kernel refuses both
}

}  // namespace tenon::guest
