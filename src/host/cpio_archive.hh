// CpioArchive: writes the "newc" cpio format that Linux unpacks as an initramfs.
//
// Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst. Reproducible: every owner is root, every
// time is zero, inode numbers count from 1, so equal calls give equal bytes. No root needed, not even for device nodes.
// Not implemented: hard links, checksums ("070702"), files of 4 GiB and more (the format's size field is 32 bits).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tenon {

class CpioArchive {
 public:
  // Paths are relative, without a leading slash; a directory is added before what is in it. Modes are permission bits.
  void add_directory(std::string_view path, unsigned mode = 0755);
  void add_file(std::string_view path, unsigned mode, std::string_view contents);
  void add_symlink(std::string_view path, std::string_view target);
  void add_character_device(std::string_view path, unsigned mode, unsigned major, unsigned minor);

  /// The archive with its trailer. The object is empty afterwards.
  std::string finish();

 private:
  struct Entry {
    std::string_view path;
    unsigned mode = 0;  // type and permissions
    unsigned links = 1;
    unsigned device_major = 0;
    unsigned device_minor = 0;
    std::string_view contents;
  };
  void append(const Entry& entry, uint32_t inode);
  void add(const Entry& entry) { append(entry, next_inode_++); }

  std::string bytes_;
  uint32_t next_inode_ = 1;
};

}  // namespace tenon
