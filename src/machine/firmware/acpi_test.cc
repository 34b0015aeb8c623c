#include "machine/firmware/acpi.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "spec/acpi.hh"

namespace tenon {
namespace {

constexpr Gpa kBase{0xe0000};

AcpiConfig sample(uint32_t vcpus) {
  AcpiConfig config;
  config.vcpus = vcpus;
  config.io_apic = {Gpa(0xfec00000), 0x1000};
  config.local_apic = {Gpa(0xfee00000), 0x1000};
  config.ecam = {Gpa(0xe0000000), 0x10000000};
  config.pci_windows_32 = {{Gpa(0xc0000000), 0x20000000}, {Gpa(0xf0000000), 0xec00000}};
  config.pci_window_64 = {Gpa(0x800000000), 0x800000000};
  return config;
}

uint8_t sum(std::span<const std::byte> bytes) {
  return static_cast<uint8_t>(std::accumulate(
      bytes.begin(), bytes.end(), 0u, [](unsigned total, std::byte b) { return total + static_cast<unsigned>(b); }));
}

/// The tables by signature, found as a guest finds them: RSDP, XSDT, entries, FADT to DSDT and FACS. Checks every
/// checksum.
class AcpiTables {
 public:
  explicit AcpiTables(FirmwareTables tables) : tables_(std::move(tables)) {
    const auto rsdp = load_wire<acpi::Rsdp>(tables_.bytes.data());
    EXPECT_EQ(std::string(rsdp.signature, 8), "RSD PTR ");
    EXPECT_EQ(rsdp.revision, 2);
    EXPECT_EQ(sum(std::span(tables_.bytes).first(20)), 0);
    EXPECT_EQ(sum(std::span(tables_.bytes).first(36)), 0);
    const auto xsdt = add(rsdp.xsdt_address);
    EXPECT_EQ((xsdt.size() - sizeof(acpi::TableHeader)) % 8, 0u);
    for (size_t at = sizeof(acpi::TableHeader); at < xsdt.size(); at += 8) add(load_wire<le64>(xsdt.data() + at));
    const auto fadt = get<acpi::Fadt>("FACP");
    EXPECT_EQ(fadt.x_dsdt, uint64_t{fadt.dsdt});
    add(fadt.dsdt);
    EXPECT_EQ(fadt.firmware_ctrl % 64, 0u);
    facs = load_wire<acpi::Facs>(at_address(fadt.firmware_ctrl, sizeof(acpi::Facs)).data());
  }

  std::span<const std::byte> table(const std::string& signature) { return found_.at(signature); }
  template <typename Wire>
  Wire get(const std::string& signature) {
    EXPECT_GE(table(signature).size(), sizeof(Wire));
    return load_wire<Wire>(table(signature).data());
  }
  size_t count() const { return found_.size(); }
  acpi::Facs facs{};

 private:
  std::span<const std::byte> at_address(uint64_t address, uint64_t size) {
    EXPECT_GE(address, kBase.value());
    EXPECT_LE(address - kBase.value() + size, tables_.bytes.size());
    return std::span(tables_.bytes).subspan(address - kBase.value(), size);
  }
  std::span<const std::byte> add(uint64_t address) {
    const auto header = load_wire<acpi::TableHeader>(at_address(address, sizeof(acpi::TableHeader)).data());
    const auto bytes = at_address(address, header.length);
    EXPECT_EQ(sum(bytes), 0);
    found_[std::string(header.signature, 4)] = bytes;
    return bytes;
  }

  FirmwareTables tables_;
  std::map<std::string, std::span<const std::byte>> found_;
};

AcpiTables tables_of(uint32_t vcpus) { return AcpiTables(MUST(build_acpi(sample(vcpus), kBase, 0x20000))); }

TEST(Acpi, EveryTableIsReachableAndSums) {
  AcpiTables tables = tables_of(2);
  EXPECT_EQ(tables.count(), 6u);  // XSDT, FACP, APIC, MCFG, WAET, DSDT
  EXPECT_EQ(std::string(tables.facs.signature, 4), "FACS");
  EXPECT_EQ(tables.facs.length, 64u);
}

TEST(Acpi, Fadt) {
  AcpiTables tables = tables_of(1);
  const auto fadt = tables.get<acpi::Fadt>("FACP");
  EXPECT_EQ(fadt.header.length, 276u);
  EXPECT_EQ(fadt.smi_command, 0xb2u);
  EXPECT_EQ(fadt.pm1a_control_block, 0x604u);
  EXPECT_EQ(fadt.x_pm_timer_block.address, 0x608u);
  EXPECT_EQ(fadt.reset_register.address, 0xcf9u);
  EXPECT_EQ(fadt.flags & (1u << 20), 0u);  // not hardware-reduced
  EXPECT_EQ(fadt.flags & acpi::kNoPowerButton, 0u);
}

/// Types of the MADT's entries in order, checking that the lengths lead exactly to its end.
std::vector<uint8_t> madt_types(std::span<const std::byte> madt) {
  std::vector<uint8_t> types;
  size_t at = sizeof(acpi::Madt);
  while (at + 2 <= madt.size()) {
    types.push_back(static_cast<uint8_t>(madt[at]));
    const auto length = static_cast<size_t>(madt[at + 1]);
    EXPECT_GE(length, 6u);
    at += length;
  }
  EXPECT_EQ(at, madt.size());
  return types;
}

TEST(Acpi, MadtOfTwoVcpus) {
  AcpiTables tables = tables_of(2);
  EXPECT_EQ(madt_types(tables.table("APIC")), (std::vector<uint8_t>{0, 0, 1, 2, 2, 4}));
  const auto timer = load_wire<acpi::MadtInterruptOverride>(tables.table("APIC").data() + sizeof(acpi::Madt) + 16 + 12);
  EXPECT_EQ(timer.source, 0);
  EXPECT_EQ(timer.gsi, 2u);
}

TEST(Acpi, MadtUsesX2ApicEntriesAbove254) {
  AcpiTables tables = tables_of(500);
  const std::vector<uint8_t> types = madt_types(tables.table("APIC"));
  EXPECT_EQ(std::count(types.begin(), types.end(), 0), 255);
  EXPECT_EQ(std::count(types.begin(), types.end(), 9), 245);
  EXPECT_EQ(std::count(types.begin(), types.end(), 10), 1);
}

TEST(Acpi, Mcfg) {
  AcpiTables tables = tables_of(1);
  const auto mcfg = tables.get<acpi::Mcfg>("MCFG");
  EXPECT_EQ(mcfg.base_address, 0xe0000000u);
  EXPECT_EQ(mcfg.end_bus, 255);
}

TEST(Acpi, TooManyVcpusIsAnError) {
  EXPECT_EQ(build_acpi(sample(8000), kBase, 0x20000).error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(build_acpi(sample(4000), kBase, 0x10000).error().code(), ErrorCode::kOutOfRange);
  EXPECT_TRUE(build_acpi(sample(1024), kBase, 0x10000));
}

// --- AML structure: every block's PkgLength must end exactly where its parent's content goes on.

struct AmlReader {
  std::span<const uint8_t> code;
  size_t at = 0;
  std::vector<std::string> names;

  /// Value and end offset of the PkgLength at `at`.
  size_t package_end() {
    const size_t start = at;
    const uint8_t lead = code[at++];
    const unsigned extra = lead >> 6;
    size_t length = extra == 0 ? lead & 0x3f : lead & 0x0f;
    for (unsigned i = 0; i < extra; ++i) length |= size_t{code[at++]} << (4 + 8 * i);
    return start + length;
  }
  std::string name_string() {
    if (code[at] == '\\') ++at;
    size_t segments = 1;
    if (code[at] == 0) {
      ++at;
      return "";
    }
    if (code[at] == acpi::aml::kDualName) segments = 2, ++at;
    const std::string text(code.begin() + static_cast<long>(at), code.begin() + static_cast<long>(at + 4 * segments));
    at += 4 * segments;
    return text;
  }
  void data_object() {
    using namespace acpi::aml;
    switch (code[at++]) {
      case kZero:
      case kOne:
      case kOnes: return;
      case kBytePrefix: at += 1; return;
      case kWordPrefix: at += 2; return;
      case kDwordPrefix: at += 4; return;
      case kQwordPrefix: at += 8; return;
      case kString:
        while (code[at++] != 0) {
        }
        return;
      case kBuffer:
      case kPackage: at = package_end(); return;
      default: FAIL() << "unexpected data object at " << at - 1;
    }
  }
  void term_list(size_t end) {
    using namespace acpi::aml;
    while (at < end && !::testing::Test::HasFatalFailure()) {
      const uint8_t opcode = code[at++];
      if (opcode == kName) {
        names.push_back(name_string());
        data_object();
      } else if (opcode == kMethod) {
        const size_t method_end = package_end();
        names.push_back(name_string());
        at = method_end;
      } else if (opcode == kScope || (opcode == kExtended && code[at++] == kDevice)) {
        const size_t child_end = package_end();
        ASSERT_LE(child_end, end);
        names.push_back(name_string());
        term_list(child_end);
      } else {
        FAIL() << "unexpected opcode " << int{opcode} << " at " << at - 1;
      }
    }
    EXPECT_EQ(at, end);
  }
};

TEST(Acpi, DsdtStructure) {
  for (const uint32_t vcpus : {1u, 4u, 300u}) {
    const aml::Code code = build_dsdt(sample(vcpus));
    AmlReader reader{code, 0, {}};
    reader.term_list(code.size());
    const auto has = [&](const char* name) { return std::ranges::count(reader.names, name) > 0; };
    for (const char* name : {"_SB_", "PCI0", "_PRT", "_CRS", "_OSC", "COM1", "COM2", "RTC_", "_S5_", "MBRD", "C000"})
      EXPECT_TRUE(has(name)) << name;
    EXPECT_EQ(has("C12B"), vcpus == 300);
  }
}

TEST(Aml, Encodings) {
  using aml::Code;
  EXPECT_EQ(aml::integer(0), (Code{0x00}));
  EXPECT_EQ(aml::integer(1), (Code{0x01}));
  EXPECT_EQ(aml::integer(0xff), (Code{0x0a, 0xff}));
  EXPECT_EQ(aml::integer(0x100), (Code{0x0b, 0x00, 0x01}));
  EXPECT_EQ(aml::integer(0x10000), (Code{0x0c, 0x00, 0x00, 0x01, 0x00}));
  EXPECT_EQ(aml::integer(uint64_t{1} << 32), (Code{0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(aml::path("\\_SB"), (Code{'\\', '_', 'S', 'B', '_'}));
  EXPECT_EQ(aml::path("_SB.PCI0"), (Code{0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0'}));
  EXPECT_EQ(aml::eisa_id("PNP0A08"), (Code{0x0c, 0x41, 0xd0, 0x0a, 0x08}));  // ACPI 6.4 19.3.4: 0x080AD041
  EXPECT_EQ(aml::uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")[4], 0x5b);
}

TEST(Aml, PackageLengthForms) {
  // 20.2.4: one byte up to 63, then 4 + 8n bits.
  for (const size_t size :
       {size_t{1}, size_t{50}, size_t{60}, size_t{100}, size_t{4000}, size_t{5000}, size_t{70'000}}) {
    const aml::Code code = aml::buffer(std::vector<uint8_t>(size));
    AmlReader reader{code, 0, {}};
    reader.data_object();
    EXPECT_EQ(reader.at, code.size()) << size;
  }
}

}  // namespace
}  // namespace tenon
