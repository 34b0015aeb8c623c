// ioctl(2) on KVM's file descriptors with errors that name the request.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

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

/// kvm_cpuid2, kvm_msrs and kvm_xsave end in a flexible array, whose macro in the kernel headers of Debian 12 (6.1)
/// puts an empty structure of one byte before it in C++: their size, the entries' offset and the request numbers made
/// from the size are all wrong there. So they are declared here: for the lists a header of two words, then the entries.
template <typename Entry>
class CountedList {
 public:
  explicit CountedList(size_t count) : bytes_(kHeaderSize + count * sizeof(Entry)) {
    count_word() = static_cast<uint32_t>(count);
  }
  uint32_t& count_word() { return *reinterpret_cast<uint32_t*>(bytes_.data()); }
  Entry& operator[](size_t i) { return *reinterpret_cast<Entry*>(bytes_.data() + kHeaderSize + i * sizeof(Entry)); }
  void* data() { return bytes_.data(); }

 private:
  static constexpr size_t kHeaderSize = 8;
  std::vector<std::byte> bytes_;
};
using CpuidList = CountedList<kvm_cpuid_entry2>;
using MsrList = CountedList<kvm_msr_entry>;

struct CountedHeader {
  uint32_t count, padding;
};
constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CountedHeader);
constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, CountedHeader);
constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, CountedHeader);
/// kvm_xsave as it was before its `extra` array; enough for every component CpuState holds.
struct XsaveRegion {
  uint32_t words[1024];
};
constexpr unsigned long kGetXsave = _IOR(KVMIO, 0xa4, XsaveRegion);
constexpr unsigned long kSetXsave = _IOW(KVMIO, 0xa5, XsaveRegion);
constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CountedHeader);

}  // namespace tenon::kvm

// KVM_IOCTL(fd, KVM_SET_REGS, &regs)
#define KVM_IOCTL(fd, request, argument) ::tenon::kvm::kvm_ioctl(fd, request, argument, #request)
