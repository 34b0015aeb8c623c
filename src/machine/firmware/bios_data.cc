#include "machine/firmware/bios_data.hh"

#include <cstring>

#include "base/byte_order.hh"
#include "machine/firmware/memory_map.hh"

namespace tenon {

namespace {

constexpr Gpa kBiosDataArea{0x400};

struct BiosData {
  le16 serial_ports[4];    // 0x400
  le16 parallel_ports[3];  // 0x408
  le16 ebda_segment;       // 0x40e
  le16 equipment;          // 0x410, bits 11:9: number of serial ports
  uint8_t reserved_12;     // 0x412
  le16 memory_kib;         // 0x413
};
static_assert(sizeof(BiosData) == 0x15);

constexpr uint16_t kFourSerialPorts = 4 << 9;

}  // namespace

std::vector<FirmwareTables> build_bios_data() {
  BiosData data{};
  const uint16_t ports[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
  for (size_t i = 0; i < 4; ++i) data.serial_ports[i] = ports[i];
  data.ebda_segment = static_cast<uint16_t>(kLowMemoryEnd >> 4);
  data.equipment = kFourSerialPorts;
  data.memory_kib = static_cast<uint16_t>(kLowMemoryEnd / kKiB);
  FirmwareTables area{kBiosDataArea, std::vector<std::byte>(sizeof data)};
  std::memcpy(area.bytes.data(), &data, sizeof data);
  FirmwareTables extended{Gpa(kLowMemoryEnd), {std::byte{1}}};  // its size in KiB
  return {area, extended};
}

}  // namespace tenon
