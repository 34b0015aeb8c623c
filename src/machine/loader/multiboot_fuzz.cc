// Fuzzer of the multiboot loader: the input is the header's fields, with magic and checksum repaired, then the file.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.hh"
#include "machine/loader/multiboot.hh"
#include "machine/loader/synthetic_kernel.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  synthetic::Buffer file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  if (size >= sizeof(multiboot::Header)) {
    auto header = load_wire<multiboot::Header>(data);
    header.magic = multiboot::kHeaderMagic;
    header.checksum = 0 - (header.magic + header.flags);
    synthetic::put(file, 0, header);
  }
  const BootRequest request = synthetic::make_request(file, 64 * kMiB);
  const auto image = load_multiboot(request);
  if (image) CHECK(check_placement(*image, request.memory).has_value());
  return 0;
}
