// Fuzzer of the ELF loaders (vmlinux and PVH): the input overwrites part of a good file.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.hh"
#include "machine/loader/linux_boot.hh"
#include "machine/loader/pvh.hh"
#include "machine/loader/synthetic_kernel.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  if (size < 4) return 0;
  synthetic::Buffer file = synthetic::make_elf({.is_64 = (data[0] & 1) != 0, .has_pvh_note = true});
  const size_t offset = (data[1] | data[2] << 8) % synthetic::kElfCodeOffset;
  std::memcpy(file.data() + offset, data + 3, std::min(size - 3, std::min<size_t>(file.size() - offset, data[3] + 1u)));
  const BootRequest request = synthetic::make_request(file, 64 * kMiB);
  for (auto* loader : {load_vmlinux, load_pvh}) {
    const auto image = loader(request);
    if (image) CHECK(check_placement(*image, request.memory).has_value());
  }
  return 0;
}
