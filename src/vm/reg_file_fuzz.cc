// Random accesses of a RegFile, checked against a model that knows only bytes and their masks.
#include <array>
#include <cstdint>

#include "base/check.hh"
#include "vm/fuzz_input.hh"
#include "vm/reg_file.hh"

namespace tenon {
namespace {

class Device {
 public:
  unsigned writes_seen = 0;

 private:
  static void count_write(Device& device, const RegisterWrite& write) {
    ++device.writes_seen;
    CHECK((write.raw & ~write.enabled) == 0);
  }

  // clang-format off
  static constexpr auto kRegisters = register_table<Device>({
      {.name = "BYTE",   .offset = 0x00, .width_bytes = 1, .reset = 0x12,       .writable = 0x7e},
      {.name = "WORD",   .offset = 0x02, .width_bytes = 2, .w1c = 0x0ff0,       .w1s = 0xf000},
      {.name = "DOUBLE", .offset = 0x04, .width_bytes = 4, .reset = 0xdeadbeef, .writable = 0xff00'00ff, .w1c = 0x00ff'0000},
      {.name = "QUAD",   .offset = 0x08, .width_bytes = 8, .writable = 0x00ff'ffff'0000'ffff, .on_write = count_write},
      {.name = "FIXED",  .offset = 0x14, .width_bytes = 4, .reset = 0x01020304},
  });
  // clang-format on

 public:
  static constexpr auto& rows() { return kRegisters; }
  RegFile<Device, kRegisters> registers;
};

constexpr uint64_t kSpan = decltype(Device::registers)::kSizeBytes;

struct ByteModel {
  uint8_t value = 0, writable = 0, w1c = 0, w1s = 0;
};

std::array<ByteModel, kSpan> make_model() {
  std::array<ByteModel, kSpan> model{};
  for (const auto& row : Device::rows())
    for (unsigned i = 0; i < row.width_bytes; ++i) {
      const auto byte_of = [i](uint64_t mask) { return static_cast<uint8_t>(mask >> (8 * i)); };
      model[row.offset + i] = {byte_of(row.reset), byte_of(row.writable), byte_of(row.w1c), byte_of(row.w1s)};
    }
  return model;
}

void write_model(std::array<ByteModel, kSpan>& model, uint64_t offset, unsigned size_bytes, uint64_t value) {
  for (unsigned i = 0; i < size_bytes && offset + i < kSpan; ++i) {
    ByteModel& byte = model[offset + i];
    const auto raw = static_cast<uint8_t>(value >> (8 * i));
    byte.value = static_cast<uint8_t>((((byte.value & ~byte.writable) | (raw & byte.writable)) & ~(raw & byte.w1c)) |
                                      (raw & byte.w1s));
  }
}

uint64_t read_model(const std::array<ByteModel, kSpan>& model, uint64_t offset, unsigned size_bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size_bytes && offset + i < kSpan; ++i) value |= uint64_t{model[offset + i].value} << (8 * i);
  return value;
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  FuzzInput input(data, size);
  Device device;
  std::array<ByteModel, kSpan> model = make_model();
  unsigned writes_expected = 0;
  while (!input.is_empty()) {
    const auto choice = input.take<uint8_t>();
    const uint64_t offset = choice >= 0xfc ? ~uint64_t{input.take<uint8_t>()} : input.take_below(kSpan + 4);
    const unsigned size_bytes = 1 + choice % 8;
    if ((choice & 8) != 0) {
      const auto value = input.take<uint64_t>();
      device.registers.write(device, offset, size_bytes, value);
      if (offset < kSpan) write_model(model, offset, size_bytes, value);
      if (offset < 0x10 && offset + size_bytes > 0x08) ++writes_expected;
    }
    const uint64_t expected = offset < kSpan ? read_model(model, offset, size_bytes) : 0;
    CHECK(device.registers.read(device, offset, size_bytes) == expected);
    CHECK(device.writes_seen == writes_expected);
  }
  Device other;
  CHECK(other.registers.restore(device.registers.save()).has_value());
  CHECK(other.registers.dump() == device.registers.dump());
  return 0;
}
