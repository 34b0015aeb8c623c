// GuestFiles: reads kernel, initrd and modules, lets the loaders place them, and copies the result into guest memory.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "base/result.hh"
#include "machine/loader/boot_image.hh"
#include "vm/guest_memory.hh"

namespace tenon {

/// A boot image together with the files that its segments point into.
class GuestFiles {
 public:
  struct Module {
    std::string path;
    std::string command_line;
  };

  /// `request` has everything but the files' bytes and names.
  static Result<GuestFiles> load(const std::string& kernel_path, const std::vector<Module>& modules,
                                 BootRequest request);

  const BootImage& image() const { return image_; }

  enum class Zeroing : uint8_t { kNeeded, kMemoryIsZero };
  /// Copies all segments; their zero parts are skipped where memory is known to be zero.
  void copy_to(GuestMemory& memory, Zeroing zeroing) const;

 private:
  std::vector<std::string> contents_;
  BootImage image_;
};

}  // namespace tenon
