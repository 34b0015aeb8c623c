#include "host/initramfs.hh"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/fd.hh"
#include "host/child_process.hh"
#include "host/cpio_archive.hh"

extern "C" {
extern const unsigned char tenon_guest_init_begin[];
extern const unsigned char tenon_guest_init_end[];
}

namespace tenon {

namespace {

constexpr size_t kBusyboxSizeMax = 64 << 20;

struct TextFile {
  const char* path;
  const char* contents;
};

// clang-format off
constexpr const char* kDirectories[] = {
  "bin", "dev", "dev/pts", "dev/shm", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin",
  "usr/local", "usr/local/bin", "usr/local/sbin", "var", "var/log",
};

constexpr TextFile kTextFiles[] = {
  {"etc/group",   "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"},
  {"etc/hosts",   "127.0.0.1\tlocalhost\n::1\tlocalhost\n"},
  {"etc/passwd",  "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"},
  {"etc/profile", "export PS1='\\h:\\w\\$ '\n"
                  "read -r _ _ release _ </proc/version\n"
                  "echo \"Linux $release with a busybox shell. 'exit' or 'poweroff' ends the virtual machine.\"\n"
                  "unset release\n"},
  {"etc/shells",  "/bin/sh\n"},
};

// PID 1 is ours, and it is not what these two would be.
constexpr std::string_view kAppletsLeftOut[] = {"init", "linuxrc", "busybox"};
// clang-format on

bool is_left_out(std::string_view applet_path) {
  const std::string_view name = applet_path.substr(applet_path.rfind('/') + 1);
  return std::ranges::find(kAppletsLeftOut, name) != std::end(kAppletsLeftOut);
}

/// A dynamically linked program names its loader in a PT_INTERP segment (System V gABI, "Program Header").
bool is_static_elf(std::string_view file) {
  Elf64_Ehdr header;
  if (file.size() < sizeof header) return false;
  std::memcpy(&header, file.data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phentsize != sizeof(Elf64_Phdr)) return false;
  for (size_t i = 0; i < header.e_phnum; ++i) {
    const uint64_t at = header.e_phoff + i * sizeof(Elf64_Phdr);
    if (at > file.size() || file.size() - at < sizeof(Elf64_Phdr)) return false;
    Elf64_Phdr segment;
    std::memcpy(&segment, file.data() + at, sizeof segment);
    if (segment.p_type == PT_INTERP) return false;
  }
  return true;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

std::string_view embedded_guest_init() {
  // SAFETY: both symbols bound one object in .rodata (images/init_blob.S).
  return {reinterpret_cast<const char*>(tenon_guest_init_begin),
          static_cast<size_t>(tenon_guest_init_end - tenon_guest_init_begin)};
}

std::string make_initramfs(const InitramfsParts& parts) {
  CpioArchive archive;
  for (const char* path : kDirectories) {
    const bool sticky = std::string_view(path) == "tmp" || std::string_view(path) == "dev/shm";
    archive.add_directory(path, sticky ? 01777 : 0755);
  }
  // The kernel opens /dev/console for init before init can mount /dev.
  archive.add_character_device("dev/console", 0600, 5, 1);
  archive.add_character_device("dev/null", 0666, 1, 3);
  archive.add_file("init", 0755, parts.init);
  archive.add_file("bin/busybox", 0755, parts.busybox);
  for (const TextFile& file : kTextFiles) archive.add_file(file.path, 0644, file.contents);
  const std::set<std::string> applets(parts.applet_paths.begin(), parts.applet_paths.end());
  for (const std::string& path : applets)
    if (!is_left_out(path)) archive.add_symlink(path, "/bin/busybox");
  return archive.finish();
}

Result<std::string> build_initramfs(const std::string& busybox_path) {
  constexpr std::string_view kAdvice = "install it with: sudo apt-get install busybox-static";
  const Result<std::string> busybox = read_file(busybox_path, kBusyboxSizeMax);
  if (!busybox)
    return fail(ErrorCode::kNotFound, "the default guest needs " + busybox_path + "; " + std::string(kAdvice));
  if (!is_static_elf(*busybox))
    return fail(ErrorCode::kUnsupported,
                busybox_path + " is not a static program, so it cannot run in the guest; " + std::string(kAdvice));
  const std::string applets = TRY(output_of_program({busybox_path, "--list-full"}));
  return make_initramfs({.init = embedded_guest_init(), .busybox = *busybox, .applet_paths = lines_of(applets)});
}

}  // namespace tenon
