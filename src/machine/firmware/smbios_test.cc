#include "machine/firmware/smbios.hh"

#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "spec/smbios.hh"

namespace tenon {
namespace {

struct Structure {
  smbios::Header header;
  std::vector<std::byte> bytes;
  std::vector<std::string> strings;
};

/// Walks the table as a guest does (DSP0134 6.1.2).
std::vector<Structure> walk(const FirmwareTables& tables) {
  std::vector<Structure> found;
  const auto entry = load_wire<smbios::EntryPoint>(tables.bytes.data());
  size_t at = entry.table_address - tables.base.value();
  const size_t end = at + entry.table_size_max;
  EXPECT_EQ(end, tables.bytes.size());
  while (at + sizeof(smbios::Header) <= end) {
    Structure structure;
    structure.header = load_wire<smbios::Header>(tables.bytes.data() + at);
    structure.bytes.assign(tables.bytes.begin() + static_cast<long>(at),
                           tables.bytes.begin() + static_cast<long>(at + structure.header.length));
    at += structure.header.length;
    std::string text;
    while (at + 1 < end && !(tables.bytes[at] == std::byte{0} && text.empty())) {
      const char c = static_cast<char>(tables.bytes[at++]);
      if (c != 0) {
        text += c;
        continue;
      }
      structure.strings.push_back(text);
      text.clear();
    }
    at += structure.strings.empty() ? 2 : 1;
    found.push_back(structure);
  }
  EXPECT_EQ(at, end);
  return found;
}

SmbiosConfig sample(uint64_t ram, uint32_t vcpus) {
  SmbiosConfig config;
  config.ram = MUST(ram_layout(ram, 46));
  config.vcpus = vcpus;
  config.uuid[0] = 0xab;
  return config;
}

TEST(Smbios, EntryPoint) {
  const FirmwareTables tables = build_smbios(sample(512 * kMiB, 1), Gpa(0xf0000));
  const auto entry = load_wire<smbios::EntryPoint>(tables.bytes.data());
  EXPECT_EQ(std::string(entry.anchor, 5), "_SM3_");
  EXPECT_EQ(entry.length, 0x18);
  EXPECT_EQ(std::accumulate(tables.bytes.begin(), tables.bytes.begin() + 0x18, uint8_t{0},
                            [](uint8_t a, std::byte b) { return static_cast<uint8_t>(a + static_cast<uint8_t>(b)); }),
            0);
}

TEST(Smbios, TypesInOrder) {
  std::vector<int> types;
  for (const Structure& structure : walk(build_smbios(sample(512 * kMiB, 1), Gpa(0xf0000))))
    types.push_back(structure.header.type);
  EXPECT_EQ(types, (std::vector<int>{0, 1, 3, 4, 16, 17, 19, 32, 127}));
}

TEST(Smbios, HandlesAreUnique) {
  std::vector<uint16_t> handles;
  for (const Structure& structure : walk(build_smbios(sample(200 * kGiB, 4), Gpa(0xf0000))))
    handles.push_back(structure.header.handle);
  std::sort(handles.begin(), handles.end());
  EXPECT_EQ(std::adjacent_find(handles.begin(), handles.end()), handles.end());
}

TEST(Smbios, MemoryAddsUp) {
  for (const uint64_t ram : {2 * kMiB, 512 * kMiB, 40 * kGiB, 1024 * kGiB}) {
    uint64_t modules = 0;
    uint64_t mapped = 0;
    for (const Structure& structure : walk(build_smbios(sample(ram, 1), Gpa(0xf0000)))) {
      if (structure.header.type == 17) {
        const auto device = load_wire<smbios::MemoryDevice>(structure.bytes.data());
        modules += (device.size == 0x7fff ? uint32_t{device.extended_size} : uint16_t{device.size}) * kMiB;
      }
      if (structure.header.type == 19) {
        const auto range = load_wire<smbios::MappedAddress>(structure.bytes.data());
        mapped += range.extended_end - range.extended_start + 1;
      }
    }
    EXPECT_EQ(modules, ram);
    EXPECT_EQ(mapped, ram);
  }
}

TEST(Smbios, SystemStringsAndUuid) {
  SmbiosConfig config = sample(512 * kMiB, 300);
  config.product = "Machine";
  for (const Structure& structure : walk(build_smbios(config, Gpa(0xf0000)))) {
    if (structure.header.type == 1) {
      EXPECT_EQ(structure.strings, (std::vector<std::string>{"Tenon", "Machine", "1", "Not Specified"}));
      EXPECT_EQ(load_wire<smbios::System>(structure.bytes.data()).uuid[0], 0xab);
    }
    if (structure.header.type == 4) {
      const auto processor = load_wire<smbios::Processor>(structure.bytes.data());
      EXPECT_EQ(processor.core_count, 255);
      EXPECT_EQ(processor.core_count2, 300);
    }
  }
}

}  // namespace
}  // namespace tenon
