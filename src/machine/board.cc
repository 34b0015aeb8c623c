#include "machine/board.hh"

#include <fmt/format.h>

#include <algorithm>

#include "machine/cpuid_table.hh"
#include "machine/firmware/acpi.hh"
#include "machine/firmware/bios_data.hh"
#include "machine/firmware/smbios.hh"
#include "spec/apic.hh"

namespace tenon {

namespace {

constexpr Gpa kSmbiosBase{0xf0000};

// ISA interrupts of the board; the DSDT says the same.
constexpr Gsi kKeyboardGsi{1};
constexpr Gsi kRtcGsi{8};
constexpr Gsi kSciGsi{9};

struct SerialRow {
  const char* name;
  uint16_t port;
  unsigned line;   // index of the shared interrupt line
  unsigned input;  // of that line
};

// clang-format off
constexpr Gsi kSerialLines[] = {Gsi{4}, Gsi{3}};
constexpr SerialRow kSerialRows[kSerialPorts] = {
    {"uart0", 0x3f8, 0, 0},
    {"uart1", 0x2f8, 1, 0},
    {"uart2", 0x3e8, 0, 1},
    {"uart3", 0x2e8, 1, 1},
};
// clang-format on

/// SMBIOS keeps the first three fields little-endian (DSP0134 7.2.1).
std::array<uint8_t, 16> smbios_uuid(std::array<uint8_t, 16> uuid) {
  std::reverse(uuid.begin(), uuid.begin() + 4);
  std::reverse(uuid.begin() + 4, uuid.begin() + 6);
  std::reverse(uuid.begin() + 6, uuid.begin() + 8);
  return uuid;
}

/// The other end of a serial port with no cable in it.
class NullSink final : public ByteSink {
 public:
  void write(std::span<const uint8_t>) override {}
};
NullSink null_sink;

}  // namespace

Board::Board(const BoardConfig& config) : config_(config), signals_(config.vcpus) {}
Board::~Board() = default;

Result<std::unique_ptr<Board>> Board::create(const BoardConfig& config) {
  if (config.vcpus == 0 || config.vcpus > kAcpiVcpusMax)
    return fail(ErrorCode::kInvalidArgument, fmt::format("{} vCPUs: give 1 to {}", config.vcpus, kAcpiVcpusMax));
  std::unique_ptr<Board> board(new Board(config));
  TRY(board->make_cpuid());
  TRY(board->add_memory());
  TRY(config.engine->attach(board->memory_, *config.clock));
  board->make_chips();
  TRY(board->map_chips());
  board->reset();
  return board;
}

Result<void> Board::make_cpuid() {
  const std::vector<CpuidEntry> supported = TRY(config_.engine->supported_cpuid());
  physical_address_bits_ = tenon::physical_address_bits(supported);
  personality_ =
      make_personality(config_.personality, {.memory = &memory_,
                                             .clock = config_.clock,
                                             .vcpus = config_.vcpus,
                                             .apic_timer_hz = apic::kTimerHz,
                                             .has_own_local_apics = config_.engine->in_kernel_interrupts() == nullptr});
  const CpuidConfig cpuid{.vcpus = config_.vcpus, .tsc_hz = config_.clock->tsc_hz(), .apic_timer_hz = apic::kTimerHz};
  for (uint32_t id = 0; id < config_.vcpus; ++id)
    cpuid_.push_back(make_cpuid_table(supported, personality_->cpuid(), cpuid, VcpuId{id}));
  return {};
}

Result<void> Board::add_memory() {
  ram_ = TRY(ram_layout(config_.memory_bytes, physical_address_bits_));
  pci_window_64_ = pci_window_64(ram_, physical_address_bits_);
  TRY(memory_.add(ram_.low, ExtentKind::kPrivate, "ram", config_.host_pages));
  if (ram_.high.size_bytes > 0) TRY(memory_.add(ram_.high, ExtentKind::kPrivate, "ram-above-4g", config_.host_pages));
  return {};
}

void Board::make_chips() {
  Clock& clock = *config_.clock;
  interrupts_ = config_.engine->in_kernel_interrupts();
  if (interrupts_ == nullptr) {
    chips_ = std::make_unique<InterruptChips>(clock, signals_, physical_address_bits_);
    interrupts_ = chips_.get();
    if (personality_->has_pv_eoi()) chips_->enable_pv_eoi(memory_);
  }
  const auto line = [this](Gsi gsi) { return IrqLine(*interrupts_, gsi); };
  for (size_t i = 0; i < serial_lines_.size(); ++i) serial_lines_[i] = std::make_unique<WiredOr>(line(kSerialLines[i]));
  for (size_t i = 0; i < kSerialPorts; ++i) {
    const SerialRow& row = kSerialRows[i];
    ByteSink& sink = config_.serial[i] != nullptr ? *config_.serial[i] : null_sink;
    uarts_[i] = std::make_unique<Uart16550>(row.name, clock, serial_lines_[row.line]->input(row.input), sink);
  }
  rtc_ = std::make_unique<CmosRtc>(clock, line(kRtcGsi));
  acpi_pm_ = std::make_unique<AcpiPm>(clock, line(kSciGsi), config_.on_power_off);
  i8042_ = std::make_unique<I8042>(line(kKeyboardGsi), config_.on_reset);
  reset_control_ = std::make_unique<ResetControl>(config_.on_reset);
  debug_exit_ = std::make_unique<DebugExit>(config_.on_debug_exit);
  post_code_ = std::make_unique<PostCode>();
  pci_host_ = std::make_unique<PciHost>(ports_, mmio_, *interrupts_);
  pci_host_->set_reset_control(*reset_control_);
  lpc_bridge_ = std::make_unique<LpcBridge>(AcpiPm::kBase);

  devices_ = {personality_.get(), rtc_.get(),       acpi_pm_.get(),  i8042_.get(),     reset_control_.get(),
              debug_exit_.get(),  post_code_.get(), pci_host_.get(), lpc_bridge_.get()};
  for (const auto& uart : uarts_) devices_.push_back(uart.get());
  if (chips_) std::ranges::copy(chips_->devices(), std::back_inserter(devices_));
}

Result<void> Board::map_chips() {
  if (chips_) TRY(chips_->map(ports_, mmio_));
  for (size_t i = 0; i < kSerialPorts; ++i) TRY(uarts_[i]->map(ports_, kSerialRows[i].port));
  TRY(rtc_->map(ports_));
  TRY(acpi_pm_->map(ports_));
  TRY(i8042_->map(ports_));
  TRY(debug_exit_->map(ports_));
  TRY(post_code_->map(ports_));
  TRY(pci_host_->map());
  TRY(lpc_bridge_->add_to(pci_host_->bus()));
  set_cmos_memory_size();
  return {};
}

/// Memory sizes where AT firmware leaves them, for guests without E820 (bootloaders, small kernels).
void Board::set_cmos_memory_size() {
  const uint64_t low = ram_.low.size_bytes;
  const auto extended_kib = static_cast<uint16_t>(std::min<uint64_t>((low - kMiB) / kKiB, 0xffff));
  const uint64_t above_16m = low > 16 * kMiB ? (low - 16 * kMiB) / (64 * kKiB) : 0;
  const auto above_16m_units = static_cast<uint16_t>(std::min<uint64_t>(above_16m, 0xffff));
  constexpr uint16_t kBaseKib = 640;
  struct Row {
    uint8_t index;  // of the low byte; the high byte follows
    uint16_t value;
  };
  for (const Row row :
       {Row{0x15, kBaseKib}, Row{0x17, extended_kib}, Row{0x30, extended_kib}, Row{0x34, above_16m_units}}) {
    rtc_->set_memory(row.index, static_cast<uint8_t>(row.value));
    rtc_->set_memory(static_cast<uint8_t>(row.index + 1), static_cast<uint8_t>(row.value >> 8));
  }
}

Result<Gpa> Board::load_firmware_tables() {
  AcpiConfig acpi;
  acpi.vcpus = config_.vcpus;
  acpi.pm1_event_port = AcpiPm::kPm1EventPort;
  acpi.pm1_control_port = AcpiPm::kPm1ControlPort;
  acpi.pm_timer_port = AcpiPm::kTimerPort;
  acpi.gpe0_port = AcpiPm::kGpe0Port;
  acpi.gpe0_size_bytes = AcpiPm::kGpe0SizeBytes;
  acpi.smi_command_port = AcpiPm::kSmiCommandPort;
  acpi.acpi_enable = AcpiPm::kAcpiEnable;
  acpi.acpi_disable = AcpiPm::kAcpiDisable;
  acpi.reset_port = ResetControl::kPort;
  acpi.reset_value = ResetControl::kResetValue;
  acpi.sci_gsi = static_cast<uint8_t>(number(kSciGsi));
  acpi.io_apic = kIoApicRange;
  acpi.local_apic = kLocalApicRange;
  acpi.ecam = kEcam;
  acpi.pci_windows_32 = {std::begin(kPciWindowsBelow4G), std::end(kPciWindowsBelow4G)};
  acpi.pci_window_64 = pci_window_64_;
  const uint64_t acpi_size_max = kSmbiosBase.value() - kFirmwareArea.base.value();
  const FirmwareTables tables = TRY(build_acpi(acpi, kFirmwareArea.base, acpi_size_max));

  SmbiosConfig smbios;
  smbios.vcpus = config_.vcpus;
  smbios.ram = ram_;
  smbios.uuid = smbios_uuid(config_.uuid);
  for (const CpuidEntry& entry : cpuid_.front()) {
    if (entry.leaf != 1) continue;
    smbios.cpuid_eax = entry.result.eax;
    smbios.cpuid_edx = entry.result.edx;
  }
  // All of these lie below 1 MiB, which is RAM of every board.
  std::vector<FirmwareTables> all = build_bios_data();
  all.push_back(tables);
  all.push_back(build_smbios(smbios, kSmbiosBase));
  for (const FirmwareTables& one : all) CHECK(memory_.load(one.base, one.bytes));
  return tables.base;
}

void Board::reset() {
  for (Device* device : devices_) device->reset();
  if (chips_) chips_->set_firmware_defaults();
}

}  // namespace tenon
