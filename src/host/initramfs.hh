// The initramfs of our own guests: busybox, a link per applet, a handful of files in /etc, and the init of images/init.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"

namespace tenon {

constexpr std::string_view kBusyboxPath = "/bin/busybox";

struct InitramfsParts {
  std::string_view init;                  // a static program
  std::string_view busybox;               // likewise
  std::vector<std::string> applet_paths;  // "bin/ls": what `busybox --list-full` prints
};

/// The /init that the build has put into this program.
std::string_view embedded_guest_init();

/// The archive, uncompressed: unpacking costs guest instructions, host memory bandwidth is cheap. Equal parts give
/// equal bytes.
std::string make_initramfs(const InitramfsParts& parts);

/// make_initramfs() with the embedded init and the host's busybox. The error says what to install where busybox is
/// missing or needs shared libraries that the guest does not have.
Result<std::string> build_initramfs(const std::string& busybox_path = std::string(kBusyboxPath));

}  // namespace tenon
