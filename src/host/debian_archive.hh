// Packages from Debian's archive, with the host's own apt and dpkg, as any user: nothing is installed on the host.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hh"
#include "host/image_cache.hh"

namespace tenon {

/// The first package that `Depends:` in the output of `apt-cache show` names, or nothing.
std::string first_dependency(std::string_view package_record);

/// Progress of apt from one line on APT::Status-Fd ("dlstatus:1:42.5:..."): 0 to 1, or -1 where the line has none.
double download_progress(std::string_view status_line);

/// Downloads the newest version of what the meta package depends on into `directory`; returns the file's path. Where
/// the host's package lists have nothing or point to a version that is gone, fresh lists are fetched into
/// `lists_directory`.
Result<std::string> download_debian_package(std::string_view meta_package, const std::string& directory,
                                            const std::string& lists_directory, const ProgressReport& report);

/// Unpacks /boot of a kernel package into `directory`/boot and nothing else: its modules would be ninety per cent.
Result<void> unpack_boot_directory(const std::string& package_file, const std::string& directory);

}  // namespace tenon
