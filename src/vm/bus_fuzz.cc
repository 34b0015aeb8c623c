// Random maps, unmaps and accesses of a Bus, checked against a plain list of ranges.
#include <cstdint>
#include <optional>
#include <vector>

#include "base/check.hh"
#include "vm/bus.hh"

namespace tenon {
namespace {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return next_ >= size_; }
  uint64_t take(unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value = value << 8 | (next_ < size_ ? data_[next_++] : 0u);
    return value;
  }
  /// Mostly small addresses that meet each other, sometimes the end of the address space.
  uint64_t take_address() {
    const uint64_t selector = take(1);
    if (selector < 0xf0) return take(1);
    return selector < 0xf8 ? ~take(1) : take(8);
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t next_ = 0;
};

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
  Input input(data, size);
  Bus bus("fuzz");
  std::vector<Model> models;
  while (!input.empty()) {
    const uint64_t choice = input.take(1);
    if (choice < 0x30 && models.size() < 64) {
      const uint64_t base = input.take_address();
      map_one(bus, models, base, choice < 0x20 ? input.take(1) % 16 : input.take_address());
    } else if (choice < 0x40 && !models.empty()) {
      models.erase(models.begin() + static_cast<ptrdiff_t>(input.take(1) % models.size()));
    } else {
      access_one(bus, models, input.take_address(), 1u << (choice & 3), (choice & 4) != 0);
    }
    CHECK(bus.retired_count() == 0);
  }
  CHECK(bus.describe().size() == models.size());
  return 0;
}
