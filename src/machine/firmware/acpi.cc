#include "machine/firmware/acpi.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <string_view>

#include "base/bits.hh"
#include "spec/acpi.hh"

namespace tenon {

namespace {

using Table = std::vector<std::byte>;

constexpr uint8_t kIoApicId = 0;
constexpr uint32_t kXApicIdMax = 254;  // higher IDs are x2APIC entries (5.2.12.12); 255 is broadcast
constexpr uint32_t kEnabled = 1;
constexpr uint8_t kCmosCentury = 0x32;
constexpr uint16_t kNoC2 = 0x0fff;
constexpr uint16_t kNoC3 = 0x0fff;

uint8_t checksum(std::span<const std::byte> bytes) {
  const unsigned sum = std::accumulate(bytes.begin(), bytes.end(), 0u,
                                       [](unsigned total, std::byte b) { return total + static_cast<unsigned>(b); });
  return static_cast<uint8_t>(0 - sum);
}

template <size_t size>
void set_text(char (&field)[size], std::string_view text) {
  std::fill(std::begin(field), std::end(field), ' ');
  std::copy_n(text.begin(), std::min(size, text.size()), field);
}

acpi::TableHeader header(std::string_view signature, uint8_t revision) {
  acpi::TableHeader header{};
  set_text(header.signature, signature);
  header.revision = revision;
  set_text(header.oem_id, "TENON");
  set_text(header.oem_table_id, "TENON");
  header.oem_revision = 1u;
  set_text(header.creator_id, "TNON");
  header.creator_revision = 1u;
  return header;
}

template <typename Wire>
void append(Table& table, const Wire& wire) {
  const size_t offset = table.size();
  table.resize(offset + sizeof wire);
  std::memcpy(table.data() + offset, &wire, sizeof wire);
}

/// Sets length and checksum.
Table finished(Table table) {
  acpi::TableHeader head = load_wire<acpi::TableHeader>(table.data());
  head.length = static_cast<uint32_t>(table.size());
  head.checksum = 0;
  std::memcpy(table.data(), &head, sizeof head);
  head.checksum = checksum(table);
  std::memcpy(table.data(), &head, sizeof head);
  return table;
}

template <typename Wire>
Table finished_wire(const Wire& wire) {
  Table table;
  append(table, wire);
  return finished(std::move(table));
}

Table make_dsdt(const AcpiConfig& config) {
  Table table;
  append(table, header("DSDT", 2));
  const aml::Code code = build_dsdt(config);
  table.resize(table.size() + code.size());
  std::memcpy(table.data() + table.size() - code.size(), code.data(), code.size());
  return finished(std::move(table));
}

acpi::GenericAddress io_register(uint16_t port, uint8_t bit_width, uint8_t access_size) {
  return {acpi::kSystemIo, bit_width, 0, access_size, uint64_t{port}};
}

Table make_fadt(const AcpiConfig& config, Gpa facs, Gpa dsdt) {
  acpi::Fadt fadt{};
  fadt.header = header("FACP", 6);
  fadt.minor_version = 4;
  fadt.firmware_ctrl = static_cast<uint32_t>(facs.value());
  fadt.dsdt = static_cast<uint32_t>(dsdt.value());
  fadt.x_dsdt = dsdt.value();  // 5.2.9: of FIRMWARE_CTRL and X_FIRMWARE_CTRL only one is set
  fadt.sci_interrupt = config.sci_gsi;
  fadt.smi_command = config.smi_command_port;
  fadt.acpi_enable = config.acpi_enable;
  fadt.acpi_disable = config.acpi_disable;
  fadt.pm1a_event_block = config.pm1_event_port;
  fadt.pm1a_control_block = config.pm1_control_port;
  fadt.pm_timer_block = config.pm_timer_port;
  fadt.gpe0_block = config.gpe0_port;
  fadt.pm1_event_length = 4;
  fadt.pm1_control_length = 2;
  fadt.pm_timer_length = 4;
  fadt.gpe0_block_length = config.gpe0_size_bytes;
  fadt.x_pm1a_event_block = io_register(config.pm1_event_port, 32, 2);
  fadt.x_pm1a_control_block = io_register(config.pm1_control_port, 16, 2);
  fadt.x_pm_timer_block = io_register(config.pm_timer_port, 32, 3);
  fadt.x_gpe0_block = io_register(config.gpe0_port, static_cast<uint8_t>(config.gpe0_size_bytes * 8), 1);
  fadt.c2_latency = kNoC2;
  fadt.c3_latency = kNoC3;
  fadt.century = kCmosCentury;
  // The i8042 answers, but there is no keyboard: without kHas8042 the guest does not probe for one.
  fadt.boot_architecture = acpi::kLegacyDevices | acpi::kNoVga;
  fadt.flags = acpi::kWbinvd | acpi::kProcC1 | acpi::kNoSleepButton | acpi::kTimer32 | acpi::kResetRegister;
  fadt.reset_register = io_register(config.reset_port, 8, 1);
  fadt.reset_value = config.reset_value;
  std::memcpy(&fadt.hypervisor_id, "Tenon\0\0\0", 8);
  return finished_wire(fadt);
}

Table make_facs() {
  acpi::Facs facs{};
  set_text(facs.signature, "FACS");
  facs.length = static_cast<uint32_t>(sizeof facs);
  facs.version = 2;
  Table table;
  append(table, facs);
  return table;
}

void append_processor(Table& table, uint32_t id) {
  if (id <= kXApicIdMax) {
    append(table, acpi::MadtLocalApic{0, sizeof(acpi::MadtLocalApic), static_cast<uint8_t>(id),
                                      static_cast<uint8_t>(id), kEnabled});
  } else {
    append(table, acpi::MadtLocalX2Apic{9, sizeof(acpi::MadtLocalX2Apic), 0, id, kEnabled, id});
  }
}

Table make_madt(const AcpiConfig& config) {
  constexpr uint8_t kIsaTimerIrq = 0;
  constexpr uint32_t kTimerGsi = 2;  // the 8254 is on IOAPIC pin 2, as on every PC
  constexpr uint8_t kNmiPin = 1;     // LINT1
  Table table;
  append(table,
         acpi::Madt{header("APIC", 5), static_cast<uint32_t>(config.local_apic.base.value()), acpi::kPcatCompatible});
  for (uint32_t id = 0; id < config.vcpus; ++id) append_processor(table, id);
  append(table, acpi::MadtIoApic{1, sizeof(acpi::MadtIoApic), kIoApicId, 0,
                                 static_cast<uint32_t>(config.io_apic.base.value()), 0u});
  append(table, acpi::MadtInterruptOverride{2, sizeof(acpi::MadtInterruptOverride), 0, kIsaTimerIrq, kTimerGsi,
                                            acpi::kConforms});
  append(table, acpi::MadtInterruptOverride{2, sizeof(acpi::MadtInterruptOverride), 0, config.sci_gsi,
                                            uint32_t{config.sci_gsi}, acpi::kActiveHighLevel});
  append(table, acpi::MadtLocalApicNmi{4, sizeof(acpi::MadtLocalApicNmi), 0xff, acpi::kConforms, kNmiPin});
  if (config.vcpus > kXApicIdMax + 1)
    append(table,
           acpi::MadtLocalX2ApicNmi{10, sizeof(acpi::MadtLocalX2ApicNmi), acpi::kConforms, 0xffffffffu, kNmiPin, {}});
  return finished(std::move(table));
}

Table make_mcfg(const AcpiConfig& config) {
  acpi::Mcfg mcfg{};
  mcfg.header = header("MCFG", 1);
  mcfg.base_address = config.ecam.base.value();
  mcfg.end_bus = static_cast<uint8_t>(config.ecam.size_bytes / (1u << 20) - 1);  // 1 MiB a bus
  return finished_wire(mcfg);
}

Table make_waet() { return finished_wire(acpi::Waet{header("WAET", 1), acpi::kRtcGood | acpi::kPmTimerGood}); }

Table make_xsdt(std::span<const Gpa> tables) {
  Table table;
  append(table, header("XSDT", 1));
  for (const Gpa address : tables) append(table, le64(address.value()));
  return finished(std::move(table));
}

Table make_rsdp(Gpa xsdt) {
  acpi::Rsdp rsdp{};
  std::memcpy(rsdp.signature, "RSD PTR ", sizeof rsdp.signature);
  set_text(rsdp.oem_id, "TENON");
  rsdp.revision = 2;
  rsdp.length = static_cast<uint32_t>(sizeof rsdp);
  rsdp.xsdt_address = xsdt.value();
  const auto bytes = std::as_bytes(std::span(&rsdp, 1));
  rsdp.checksum = checksum(bytes.first(20));
  rsdp.extended_checksum = checksum(bytes);
  Table table;
  append(table, rsdp);
  return table;
}

/// Tables one after another, each on a 64-byte boundary (the FACS needs it).
class Layout {
 public:
  explicit Layout(Gpa base) : base_(base), bytes_(kRsdpRoom) {}

  Gpa add(const Table& table) {
    bytes_.resize(align_up(bytes_.size(), kAlignment));
    const Gpa place(base_.value() + bytes_.size());
    bytes_.resize(bytes_.size() + table.size());
    std::memcpy(bytes_.data() + bytes_.size() - table.size(), table.data(), table.size());
    return place;
  }
  FirmwareTables finish(const Table& rsdp) {
    std::memcpy(bytes_.data(), rsdp.data(), rsdp.size());
    return {base_, std::move(bytes_)};
  }

 private:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kRsdpRoom = 64;
  Gpa base_;
  std::vector<std::byte> bytes_;
};

}  // namespace

Result<FirmwareTables> build_acpi(const AcpiConfig& config, Gpa base, uint64_t size_bytes_max) {
  if (config.vcpus == 0 || config.vcpus > kAcpiVcpusMax)
    return fail(ErrorCode::kOutOfRange,
                fmt::format("{} vCPUs: the tables can name 1 to {}", config.vcpus, kAcpiVcpusMax));
  Layout layout(base);
  const Gpa facs = layout.add(make_facs());
  const Gpa dsdt = layout.add(make_dsdt(config));
  const Gpa fadt = layout.add(make_fadt(config, facs, dsdt));
  const Gpa madt = layout.add(make_madt(config));
  const Gpa mcfg = layout.add(make_mcfg(config));
  const Gpa waet = layout.add(make_waet());
  const Gpa listed[] = {fadt, madt, mcfg, waet};
  const Gpa xsdt = layout.add(make_xsdt(listed));
  FirmwareTables tables = layout.finish(make_rsdp(xsdt));
  if (tables.bytes.size() > size_bytes_max)
    return fail(ErrorCode::kOutOfRange,
                fmt::format("ACPI tables of {} vCPUs need {} bytes, {} are there: use fewer vCPUs", config.vcpus,
                            tables.bytes.size(), size_bytes_max));
  return tables;
}

}  // namespace tenon
