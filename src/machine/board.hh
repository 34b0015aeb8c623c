// Board: a Q35-like PC around an engine. Memory, buses, chips and their wiring, for any number of vCPUs.
//
// The board knows devices and interrupts, not lifecycle: threads, start, reset and end are machine.hh's. With an engine
// that has interrupt controllers in the kernel, ours are left out and device interrupts go to the engine's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.hh"
#include "devices/chip/acpi_pm.hh"
#include "devices/chip/cmos_rtc.hh"
#include "devices/chip/debug_exit.hh"
#include "devices/chip/i8042.hh"
#include "devices/chip/post_code.hh"
#include "devices/chip/reset_control.hh"
#include "devices/chip/uart16550.hh"
#include "devices/pci/lpc_bridge.hh"
#include "devices/pci/pci_host.hh"
#include "engine/engine.hh"
#include "machine/firmware/memory_map.hh"
#include "machine/interrupt_chips.hh"
#include "machine/personality.hh"
#include "machine/wired_or.hh"
#include "vm/bus.hh"
#include "vm/byte_channel.hh"

namespace tenon {

constexpr unsigned kSerialPorts = 4;

struct BoardConfig {
  Engine* engine = nullptr;  // outlives the board
  Clock* clock = nullptr;    // outlives it too
  uint32_t vcpus = 1;
  uint64_t memory_bytes = 0;
  HostPages host_pages = HostPages::kBase;
  PersonalityKind personality = PersonalityKind::kKvm;
  std::array<uint8_t, 16> uuid{};                // as RFC 4122 writes it
  std::array<ByteSink*, kSerialPorts> serial{};  // nullptr: nothing at the other end
  // What the guest may ask for; called on vCPU threads, so they only note the request.
  std::function<void()> on_reset;
  std::function<void()> on_power_off;
  std::function<void(uint32_t)> on_debug_exit;
};

class Board {
 public:
  static Result<std::unique_ptr<Board>> create(const BoardConfig& config);
  ~Board();

  GuestMemory& memory() { return memory_; }
  Bus& ports() { return ports_; }
  Bus& mmio() { return mmio_; }
  PciBus& pci() { return pci_host_->bus(); }
  InterruptSink& interrupts() { return *interrupts_; }
  Personality& personality() { return *personality_; }
  AcpiPm& power() { return *acpi_pm_; }
  Uart16550& serial(unsigned n) { return *uarts_[n]; }
  const RamLayout& ram() const { return ram_; }
  MemoryMap memory_map() const { return tenon::memory_map(ram_); }
  unsigned physical_address_bits() const { return physical_address_bits_; }
  uint32_t vcpus() const { return static_cast<uint32_t>(signals_.size()); }

  /// Of our own controllers; nullptr where the engine has them in the kernel.
  LocalApic* local_apic(VcpuId id) { return chips_ ? &chips_->local_apic(id) : nullptr; }
  VcpuSignal& signal(VcpuId id) { return signals_[number(id)]; }
  std::span<const CpuidEntry> cpuid(VcpuId id) const { return cpuid_[number(id)]; }

  /// Writes ACPI and SMBIOS tables into memory; returns where the RSDP is.
  Result<Gpa> load_firmware_tables();

  /// Every device in the order of start(); pause and halt go backwards.
  std::span<Device* const> devices() const { return devices_; }
  /// All devices to their power-on state, then what firmware would have set. While no vCPU runs.
  void reset();

 private:
  explicit Board(const BoardConfig& config);
  Result<void> add_memory();
  Result<void> make_cpuid();
  void make_chips();
  Result<void> map_chips();
  void set_cmos_memory_size();

  const BoardConfig config_;
  RamLayout ram_;
  GpaRange pci_window_64_;
  unsigned physical_address_bits_ = 36;
  GuestMemory memory_;
  Bus ports_{"ports"};
  Bus mmio_{"mmio"};
  std::vector<VcpuSignal> signals_;
  std::vector<std::vector<CpuidEntry>> cpuid_;  // a table for each vCPU
  std::unique_ptr<Personality> personality_;

  // Devices. What they call comes first, so that it is destroyed last.
  std::unique_ptr<InterruptChips> chips_;
  InterruptSink* interrupts_ = nullptr;
  std::array<std::unique_ptr<WiredOr>, 2> serial_lines_;  // IRQ 4 and IRQ 3, shared by two ports each
  std::array<std::unique_ptr<Uart16550>, kSerialPorts> uarts_;
  std::unique_ptr<CmosRtc> rtc_;
  std::unique_ptr<AcpiPm> acpi_pm_;
  std::unique_ptr<I8042> i8042_;
  std::unique_ptr<ResetControl> reset_control_;
  std::unique_ptr<DebugExit> debug_exit_;
  std::unique_ptr<PostCode> post_code_;
  std::unique_ptr<PciHost> pci_host_;
  std::unique_ptr<LpcBridge> lpc_bridge_;
  std::vector<Device*> devices_;
};

}  // namespace tenon
