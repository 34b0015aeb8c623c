// Fuzzer of every kernel loader: any file, by every protocol, must give an image whose segments are all in usable
// memory and do not overlap, or an error with a message.
#include <cstddef>
#include <cstdint>

#include "base/check.hh"
#include "machine/loader/kernel.hh"
#include "machine/loader/synthetic_kernel.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  const Bytes file(reinterpret_cast<const std::byte*>(data), size);
  BootRequest request = synthetic::make_request(file, 64 * kMiB);
  request.modules.push_back({"module", file.first(size / 2), "arguments"});
  request.raw_address = Gpa(0x100000);
  for (const BootProtocol protocol :
       {BootProtocol::kAuto, BootProtocol::kLinux, BootProtocol::kPvh, BootProtocol::kMultiboot, BootProtocol::kRaw}) {
    request.protocol = protocol;
    const auto image = load_kernel(request);
    if (image) {
      CHECK(check_placement(*image, request.memory).has_value());
    } else {
      CHECK(!image.error().message().empty());
    }
  }
  return 0;
}
