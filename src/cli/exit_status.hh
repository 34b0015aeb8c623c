// What tenon's own exit status means; the same as podman's and docker's. Everything else is the guest command's.
#pragma once

namespace tenon::exit_status {

constexpr int kSuccess = 0;
constexpr int kTenonError = 125;   // wrong usage, nothing could be started, or the guest died
constexpr int kNotRunnable = 126;  // COMMAND is there, but cannot be run
constexpr int kNotFound = 127;     // COMMAND is not there
constexpr int kSignalBase = 128;   // 128 + n: COMMAND, or tenon itself, was ended by signal n

}  // namespace tenon::exit_status
