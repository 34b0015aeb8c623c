// PciFunction: what a device derives from, beside Device, to be a function on the PCI bus.
//
// Source: PCI Local Bus Specification 3.0 chapter 6.
// It owns configuration space, maps BARs on the buses as software moves them and switches decoding, and turns
// interrupts into MSI-X, MSI or INTx, whichever software enabled. A device constructor declares what it has:
//
//   Nvme::Nvme(...) : PciFunction({.vendor_id = ..., .device_id = ..., .class_code = 0x010802}) {
//     add_memory_bar(0, 16384, BarKind::kMemory64, registers_);
//     add_msix(4, queue_count);
//   }
//
// then PciBus::add() connects it. Interrupts: notify(vector) from any thread, lock-free with MSI-X.
// Threads: configuration accesses take the function's mutex; on_config_written() runs after it is released.
//
// Not implemented: expansion ROM, PCI Express and power management capabilities, type 1 headers.
// Deviation: a BAR that software puts over another mapping stays unmapped until it is moved or decoding is switched
// again.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.hh"
#include "devices/pci/config_space.hh"
#include "devices/pci/msix_table.hh"
#include "spec/pci.hh"
#include "vm/bus.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"

namespace tenon {

struct PciIdentity {
  uint16_t vendor_id = 0xffff;
  uint16_t device_id = 0xffff;
  uint32_t class_code = 0;  // class, subclass, programming interface: 0xCCSSPP
  uint8_t revision = 0;
  uint16_t subsystem_vendor_id = 0;
  uint16_t subsystem_id = 0;
  pci::IntxPin intx = pci::IntxPin::kNone;
  bool is_multi_function = false;
};

enum class BarKind : uint8_t { kIo, kMemory32, kMemory64, kMemory64Prefetchable };

/// Drives the INTx wire of one function; implemented by PciBus.
class IntxWire {
 public:
  virtual ~IntxWire() = default;
  virtual void set_intx(pci::Slot slot, pci::IntxPin pin, bool level) = 0;
};

class PciFunction {
 public:
  explicit PciFunction(const PciIdentity& identity);
  virtual ~PciFunction() = default;
  PciFunction(const PciFunction&) = delete;
  PciFunction& operator=(const PciFunction&) = delete;

  /// What PciBus gives a function when it is added; all outlive it.
  struct Connection {
    Bus* ports = nullptr;
    Bus* mmio = nullptr;
    InterruptSink* interrupts = nullptr;
    IntxWire* wire = nullptr;
    pci::Slot slot;
  };
  void connect(const Connection& connection);
  /// The function leaves the bus: its BARs no longer answer, its INTx wire is released.
  void disconnect();

  /// The guest's configuration accesses; `offset` is below 4096. Any vCPU thread.
  uint64_t config_read(unsigned offset, unsigned size_bytes);
  void config_write(unsigned offset, unsigned size_bytes, uint64_t value);

  pci::Slot slot() const { return connection_.slot; }

 protected:
  // Declaration, in the device's constructor.

  /// `size_bytes` is a power of two: at least 16 for memory, 4 to 256 for I/O. A 64-bit BAR takes `index` and the next.
  /// `handler` outlives the function's last mapping and must ignore nothing: any offset, width and alignment comes.
  void add_bar(unsigned index, uint64_t size_bytes, BarKind kind, BusHandler& handler);
  /// MSI-X with its own memory BAR (64-bit, so `bar` and the next).
  void add_msix(unsigned bar, unsigned vector_count);
  /// MSI with 64-bit address and per-vector masks; `vector_count` is a power of two up to 32.
  void add_msi(unsigned vector_count);
  /// Room for a capability of `size_bytes` (with its two-byte header), linked into the list. Returns its offset.
  unsigned add_capability(uint8_t id, unsigned size_bytes);
  /// Device-specific registers: writable bits, initial values.
  ConfigSpace& config() { return config_; }

  // Operation.

  /// Runs after a guest write touched [offset, offset + size_bytes), with no lock held.
  virtual void on_config_written(unsigned /*offset*/, unsigned /*size_bytes*/) {}
  uint64_t config_value(unsigned offset, unsigned size_bytes) const;

  /// Sends interrupt `vector` by MSI-X or MSI; false where neither is enabled: the device then uses set_intx().
  bool notify(unsigned vector);
  /// Level of the INTx pin. Masked by Interrupt Disable and while MSI or MSI-X is enabled.
  void set_intx(bool level);
  /// Whether the function may access memory and send messages.
  bool is_bus_master() const { return is_bus_master_.load(std::memory_order_relaxed); }

  /// Command, BARs, capabilities to their values before connect(); for Device::reset().
  void reset_config();
  /// Everything above, for the device's saved state. restore_config() validates and moves the BARs.
  std::vector<std::byte> save_config() const;
  Result<void> restore_config(std::span<const std::byte> saved);

 private:
  struct Bar {
    uint64_t size_bytes = 0;  // 0: not there
    BarKind kind = BarKind::kMemory32;
    BusHandler* handler = nullptr;
    bool is_mapped = false;
    uint64_t base = 0;
    BusMapping mapping;
  };

  uint16_t command() const TENON_REQUIRES(mutex_);
  void update_bars() TENON_REQUIRES(mutex_);
  void update_bar(unsigned index) TENON_REQUIRES(mutex_);
  uint64_t bar_base(unsigned index) const TENON_REQUIRES(mutex_);
  bool is_msi_enabled() const TENON_REQUIRES(mutex_);
  std::optional<MsiMessage> take_msi(unsigned vector) TENON_REQUIRES(mutex_);
  std::vector<MsiMessage> take_unmasked_msi() TENON_REQUIRES(mutex_);
  void update_intx() TENON_REQUIRES(mutex_);
  /// After any change of the registers: applies them to BARs and interrupts, then calls out.
  void apply();

  const PciIdentity identity_;
  Connection connection_;

  // Guest-visible; vCPU threads and the device's own threads under mutex_ once connected.
  mutable Mutex mutex_;
  ConfigSpace config_;
  std::array<uint8_t, pci::kConfigSize> initial_config_{};  // as declared, taken by connect()
  std::array<Bar, pci::kBarCount> bars_;
  std::unique_ptr<MsixTable> msix_;
  unsigned msi_offset_ = 0;  // capability offsets, 0: none
  unsigned msix_offset_ = 0;
  unsigned msi_vectors_ = 0;
  unsigned next_capability_ = pci::kFirstCapability;
  unsigned last_capability_ = 0;
  bool intx_level_ = false;  // what the device wants
  OutputPin intx_pin_;       // what the wire gets
  std::atomic<bool> is_bus_master_{false};
};

}  // namespace tenon
