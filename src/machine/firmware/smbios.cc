#include "machine/firmware/smbios.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bits.hh"
#include "base/check.hh"
#include "spec/smbios.hh"

namespace tenon {

namespace {

constexpr le16 kNoHandle = 0xffff;
constexpr le16 kNoErrorInformation = 0xfffe;
constexpr uint16_t kMemoryArrayHandle = 0x1000;
constexpr uint64_t kModuleSizeMax = 16 * kGiB;  // one type 17 per started 16 GiB
constexpr uint64_t kModulesMax = 16;

/// Collects structures with their string sets (6.1.3).
class Tables {
 public:
  /// `wire` starts with an smbios::Header, whose length and handle are set here.
  template <typename Wire>
  void add(uint8_t type, uint16_t handle, Wire wire, std::initializer_list<std::string> strings = {}) {
    wire.header = {type, sizeof(Wire), handle};
    const auto* bytes = reinterpret_cast<const std::byte*>(&wire);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof wire);
    for (const std::string& text : strings) {
      for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
      bytes_.push_back(std::byte{0});
    }
    if (strings.size() == 0) bytes_.push_back(std::byte{0});
    bytes_.push_back(std::byte{0});
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// An empty string would end the string set: say "not specified", as firmware does.
std::string text_or_default(const std::string& text) { return text.empty() ? "Not Specified" : text; }

void add_system(Tables& tables, const SmbiosConfig& config) {
  smbios::Bios bios{};
  bios.vendor_string = 1;
  bios.version_string = 2;
  bios.release_date_string = 3;
  bios.characteristics = smbios::kCharacteristicsUnsupported;
  bios.extension2 = smbios::kVirtualMachine;
  bios.controller_major = bios.controller_minor = 0xff;
  tables.add(0, 0x0000, bios, {"Tenon", "direct boot", "01/01/2026"});

  smbios::System system{};
  system.manufacturer_string = 1;
  system.product_string = 2;
  system.version_string = 3;
  system.serial_string = 4;
  std::ranges::copy(config.uuid, system.uuid);
  system.wakeup_type = 6;
  tables.add(1, 0x0100, system, {config.manufacturer, config.product, "1", text_or_default(config.serial)});

  smbios::Enclosure enclosure{};
  enclosure.manufacturer_string = 1;
  enclosure.type = 1;
  enclosure.boot_up_state = enclosure.power_supply_state = enclosure.thermal_state = 3;
  enclosure.security_status = 2;
  tables.add(3, 0x0300, enclosure, {config.manufacturer});
}

void add_processor(Tables& tables, const SmbiosConfig& config) {
  smbios::Processor processor{};
  processor.socket_string = 1;
  processor.type = 3;
  processor.family = 0xfe;
  processor.manufacturer_string = 2;
  processor.id_eax = config.cpuid_eax;
  processor.id_edx = config.cpuid_edx;
  processor.status = 0x41;
  processor.upgrade = 1;
  processor.l1_cache_handle = processor.l2_cache_handle = processor.l3_cache_handle = kNoHandle;
  const auto cores = static_cast<uint16_t>(config.vcpus);
  processor.core_count = processor.core_enabled = processor.thread_count =
      static_cast<uint8_t>(std::min(config.vcpus, 255u));
  processor.core_count2 = processor.core_enabled2 = processor.thread_count2 = cores;
  processor.characteristics = config.vcpus > 1 ? 0x0c : 0x04;
  processor.family2 = 1;
  tables.add(4, 0x0400, processor, {"CPU 0", config.manufacturer});
}

void add_memory_modules(Tables& tables, uint64_t total, const std::string& manufacturer) {
  const uint64_t count = std::clamp<uint64_t>((total + kModuleSizeMax - 1) / kModuleSizeMax, 1, kModulesMax);
  const uint64_t size_each = align_up(total / count, kMiB);
  uint64_t left = total;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t size = i + 1 == count ? left : size_each;
    left -= size;
    smbios::MemoryDevice device{};
    device.array_handle = kMemoryArrayHandle;
    device.error_handle = kNoErrorInformation;
    device.total_width = device.data_width = 0xffff;
    const uint64_t mib = size / kMiB;
    device.size = static_cast<uint16_t>(std::min<uint64_t>(mib, 0x7fff));
    device.extended_size = mib >= 0x7fff ? static_cast<uint32_t>(mib) : 0u;
    device.form_factor = 9;
    device.locator_string = 1;
    device.type = 7;
    device.type_detail = 2;
    device.manufacturer_string = 2;
    tables.add(17, static_cast<uint16_t>(0x1100 + i), device, {fmt::format("DIMM {}", i), manufacturer});
  }
}

void add_memory(Tables& tables, const SmbiosConfig& config) {
  const uint64_t total = config.ram.low.size_bytes + config.ram.high.size_bytes;
  smbios::MemoryArray array{};
  array.location = 1;
  array.use = 3;
  array.error_correction = 6;
  const uint64_t kib = total / kKiB;
  array.capacity = kib < 0x80000000 ? static_cast<uint32_t>(kib) : 0x80000000u;
  array.extended_capacity = kib < 0x80000000 ? 0 : total;
  array.error_handle = kNoErrorInformation;
  array.device_count =
      static_cast<uint16_t>(std::clamp<uint64_t>((total + kModuleSizeMax - 1) / kModuleSizeMax, 1, kModulesMax));
  tables.add(16, kMemoryArrayHandle, array);
  add_memory_modules(tables, total, config.manufacturer);
  uint16_t handle = 0x1300;
  for (const GpaRange& range : {config.ram.low, config.ram.high}) {
    if (range.size_bytes == 0) continue;
    smbios::MappedAddress mapped{};
    mapped.start = mapped.end = 0xffffffffu;
    mapped.array_handle = kMemoryArrayHandle;
    mapped.partition_width = 1;
    mapped.extended_start = range.base.value();
    mapped.extended_end = range.base.value() + range.size_bytes - 1;
    tables.add(19, handle++, mapped);
  }
}

}  // namespace

FirmwareTables build_smbios(const SmbiosConfig& config, Gpa base) {
  Tables tables;
  add_system(tables, config);
  add_processor(tables, config);
  add_memory(tables, config);
  tables.add(32, 0x2000, smbios::BootInformation{});
  tables.add(127, 0x7f00, smbios::EndOfTable{});

  constexpr size_t kEntryRoom = 32;
  smbios::EntryPoint entry{};
  std::memcpy(entry.anchor, "_SM3_", sizeof entry.anchor);
  entry.length = sizeof entry;
  entry.major_version = 3;
  entry.minor_version = 4;
  entry.revision = 1;
  entry.table_size_max = static_cast<uint32_t>(tables.bytes().size());
  entry.table_address = base.value() + kEntryRoom;
  unsigned sum = 0;
  for (const std::byte byte : std::as_bytes(std::span(&entry, 1))) sum += static_cast<unsigned>(byte);
  entry.checksum = static_cast<uint8_t>(0 - sum);

  FirmwareTables result{base, std::vector<std::byte>(kEntryRoom + tables.bytes().size())};
  std::memcpy(result.bytes.data(), &entry, sizeof entry);
  std::memcpy(result.bytes.data() + kEntryRoom, tables.bytes().data(), tables.bytes().size());
  return result;
}

}  // namespace tenon
