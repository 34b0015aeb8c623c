// ioctl(2) on KVM's file descriptors with errors that name the request.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <string>

#include "base/fd.hh"
#include "base/result.hh"

namespace tenon::kvm {

/// The non-negative result of the ioctl; retried on EINTR except by KVM_RUN, which calls ioctl itself.
template <typename Argument>
Result<int> kvm_ioctl(const Fd& fd, unsigned long request, Argument argument, const char* name) {
  int result = 0;
  do {
    result = ::ioctl(fd.get(), request, argument);
  } while (result < 0 && errno == EINTR);
  if (result < 0) return fail_errno(std::string("/dev/kvm: ") + name);
  return result;
}

}  // namespace tenon::kvm

// KVM_IOCTL(fd, KVM_SET_REGS, &regs)
#define KVM_IOCTL(fd, request, argument) ::tenon::kvm::kvm_ioctl(fd, request, argument, #request)
