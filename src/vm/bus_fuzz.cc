// Random maps, unmaps and accesses of a Bus, checked against a plain list of ranges.
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/check.hh"
#include "vm/bus.hh"
#include "vm/fuzz_input.hh"

namespace tenon {
namespace {

/// Mostly small addresses that meet each other, sometimes the end of the address space.
uint64_t take_address(FuzzInput& input) {
  const auto selector = input.take<uint8_t>();
  if (selector < 0xf0) return input.take<uint8_t>();
  return selector < 0xf8 ? ~uint64_t{input.take<uint8_t>()} : input.take<uint64_t>();
}

class Device : public BusHandler {
 public:
  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override {
    seen_offset = offset;
    seen_size = size_bytes;
    return offset;
  }
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t) override {
    seen_offset = offset;
    seen_size = size_bytes;
  }
  std::optional<uint64_t> seen_offset;
  unsigned seen_size = 0;
};

struct Model {
  uint64_t base = 0;
  uint64_t last = 0;
  BusMapping mapping;
  std::unique_ptr<Device> device;
};

void map_one(Bus& bus, std::vector<Model>& models, uint64_t base, uint64_t size_bytes) {
  uint64_t last = 0;
  bool allowed = size_bytes != 0 && !__builtin_add_overflow(base, size_bytes - 1, &last);
  for (const Model& model : models) allowed = allowed && (last < model.base || model.last < base);
  auto device = std::make_unique<Device>();
  Result<BusMapping> mapping = bus.map(base, size_bytes, *device, "range");
  CHECK(mapping.has_value() == allowed);
  if (mapping)
    models.push_back({.base = base, .last = last, .mapping = std::move(*mapping), .device = std::move(device)});
}

void access_one(Bus& bus, std::vector<Model>& models, uint64_t address, unsigned size_bytes, bool is_write) {
  Model* expected = nullptr;
  for (Model& model : models) {
    model.device->seen_offset.reset();
    if (address >= model.base && address <= model.last && model.last - address >= size_bytes - 1) expected = &model;
  }
  const uint64_t unclaimed = bus.unclaimed_count();
  if (is_write) {
    bus.write(address, size_bytes, ~uint64_t{0});
  } else {
    bus.read(address, size_bytes);
  }
  CHECK(bus.unclaimed_count() == unclaimed + (expected == nullptr ? 1 : 0));
  for (const Model& model : models) CHECK(model.device->seen_offset.has_value() == (&model == expected));
  if (expected == nullptr) return;
  CHECK(*expected->device->seen_offset == address - expected->base);
  CHECK(expected->device->seen_size == size_bytes);
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  FuzzInput input(data, size);
  Bus bus("fuzz");
  std::vector<Model> models;
  while (!input.is_empty()) {
    const auto choice = input.take<uint8_t>();
    if (choice < 0x30 && models.size() < 64) {
      const uint64_t base = take_address(input);
      map_one(bus, models, base, choice < 0x20 ? input.take<uint8_t>() % 16 : take_address(input));
    } else if (choice < 0x40 && !models.empty()) {
      models.erase(models.begin() + static_cast<ptrdiff_t>(input.take<uint8_t>() % models.size()));
    } else {
      access_one(bus, models, take_address(input), 1u << (choice & 3), (choice & 4) != 0);
    }
    CHECK(bus.retired_count() == 0);
  }
  CHECK(bus.describe().size() == models.size());
  return 0;
}
