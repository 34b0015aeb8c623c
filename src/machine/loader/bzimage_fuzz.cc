// Fuzzer of the bzImage loader: the input overwrites the setup header and the start of the payload of a good image.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.hh"
#include "machine/loader/bzimage.hh"
#include "machine/loader/synthetic_streams.hh"

namespace {

/// A good image for each payload format, made once: packing it is most of an execution otherwise.
const tenon::synthetic::Buffer& good_image(uint8_t selector) {
  using namespace tenon;
  constexpr Compression kFormats[] = {Compression::kNone, Compression::kGzip, Compression::kXz, Compression::kLz4,
                                      Compression::kZstd};
  static synthetic::Buffer images[std::size(kFormats)];
  const size_t format = selector % std::size(kFormats);
  if (images[format].empty())
    images[format] = synthetic::make_bzimage(synthetic::pack_payload(kFormats[format], synthetic::make_elf()));
  return images[format];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  if (size < 4) return 0;
  synthetic::Buffer file = good_image(data[0]);
  // Where the bytes go: a two-byte offset, so that the fuzzer can aim at one field.
  const size_t offset = (data[1] | data[2] << 8) % file.size();
  std::memcpy(file.data() + offset, data + 3, std::min(size - 3, std::min<size_t>(file.size() - offset, data[3] + 1u)));
  const BootRequest request = synthetic::make_request(file, 64 * kMiB);
  const auto image = load_bzimage(request);
  if (image) CHECK(check_placement(*image, request.memory).has_value());
  return 0;
}
