#include "host/cpio_archive.hh"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "base/bits.hh"
#include "base/check.hh"

namespace tenon {

namespace {

constexpr unsigned kDirectory = 0040000;
constexpr unsigned kRegular = 0100000;
constexpr unsigned kSymlink = 0120000;
constexpr unsigned kCharacterDevice = 0020000;
constexpr unsigned kAlignment = 4;

}  // namespace

void CpioArchive::append(const Entry& entry, uint32_t inode) {
  CHECK(entry.contents.size() <= UINT32_MAX);
  CHECK(!entry.path.starts_with('/'));
  // Fields in order: inode, mode, uid, gid, links, mtime, size, major, minor, rmajor, rminor, name size, checksum.
  fmt::format_to(std::back_inserter(bytes_),
                 "070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}", inode,
                 entry.mode, 0, 0, entry.links, 0, entry.contents.size(), 0, 0, entry.device_major, entry.device_minor,
                 entry.path.size() + 1, 0);
  bytes_.append(entry.path).push_back('\0');
  bytes_.resize(align_up(bytes_.size(), kAlignment), '\0');
  bytes_.append(entry.contents);
  bytes_.resize(align_up(bytes_.size(), kAlignment), '\0');
}

void CpioArchive::add_directory(std::string_view path, unsigned mode) {
  add({.path = path, .mode = kDirectory | mode, .links = 2, .contents = {}});
}

void CpioArchive::add_file(std::string_view path, unsigned mode, std::string_view contents) {
  add({.path = path, .mode = kRegular | mode, .contents = contents});
}

void CpioArchive::add_symlink(std::string_view path, std::string_view target) {
  add({.path = path, .mode = kSymlink | 0777, .contents = target});
}

void CpioArchive::add_character_device(std::string_view path, unsigned mode, unsigned major, unsigned minor) {
  add({.path = path, .mode = kCharacterDevice | mode, .device_major = major, .device_minor = minor, .contents = {}});
}

std::string CpioArchive::finish() {
  append({.path = "TRAILER!!!", .contents = {}}, 0);
  next_inode_ = 1;
  return std::exchange(bytes_, {});
}

}  // namespace tenon
