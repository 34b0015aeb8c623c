// Fuzzer of the initrd check: any bytes, and a good archive with some of them overwritten.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "machine/loader/initrd.hh"
#include "machine/loader/synthetic_streams.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  (void)check_initrd(Bytes(reinterpret_cast<const std::byte*>(data), size));
  if (size < 4) return 0;
  constexpr Compression kFormats[] = {Compression::kNone, Compression::kGzip, Compression::kXz, Compression::kLz4,
                                      Compression::kZstd};
  synthetic::Buffer archive =
      synthetic::pack(kFormats[data[0] % std::size(kFormats)], synthetic::make_cpio({{"init", std::string(300, 'x')}}));
  const size_t offset = (data[1] | data[2] << 8) % archive.size();
  std::memcpy(archive.data() + offset, data + 3,
              std::min(size - 3, std::min<size_t>(archive.size() - offset, data[3] % 16 + 1u)));
  (void)check_initrd(archive);
  return 0;
}
