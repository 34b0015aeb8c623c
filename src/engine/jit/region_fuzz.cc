// Any page content, any start: the region holds together (region_test_support.hh), and depends on nothing but the bytes
// whose granules it marks.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/jit/region_test_support.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon::jit;
  constexpr size_t kHeader = 4;
  if (size <= kHeader) return 0;
  const unsigned start_offset = (data[0] | data[1] << 8) % 4096u;
  const RegionOptions options{.strict_flags = (data[2] & 1) != 0, .insns_max = data[3] % 80u};
  RegionPage page;
  RegionPage noise;
  for (size_t i = 0; i < page.size(); ++i) {
    page[i] = data[kHeader + i % (size - kHeader)];
    noise[i] = static_cast<uint8_t>(~page[i]);
  }
  const auto region = std::make_unique<Region>();
  find_region(page, start_offset, options, *region);
  check_region(page, start_offset, options, *region);
  check_granules(page, start_offset, options, *region, noise);
  return 0;
}
