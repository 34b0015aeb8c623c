// Facts about PCI configuration space.
// Source: PCI Local Bus Specification 3.0 chapter 6 ("PCI 6.x"), PCI Express Base 4.0 chapter 7.
#pragma once

#include <cstdint>

#include "base/bits.hh"

namespace tenon::pci {

constexpr uint16_t kConfigAddressPort = 0xcf8;  // PCI 3.2.2.3.2
constexpr uint16_t kConfigDataPort = 0xcfc;
constexpr unsigned kConfigSize = 4096;       // reached by ECAM
constexpr unsigned kLegacyConfigSize = 256;  // reached by ports
constexpr unsigned kDeviceCount = 32;        // of a bus
constexpr unsigned kFunctionCount = 8;       // of a device
constexpr uint64_t kEcamBytesPerBus = uint64_t{1} << 20;

/// Type 0 header, PCI 6.1 Figure 6-1.
enum Header : unsigned {
  kVendorId = 0x00,
  kDeviceId = 0x02,
  kCommand = 0x04,
  kStatus = 0x06,
  kRevision = 0x08,
  kClassCode = 0x09,
  kCacheLineSize = 0x0c,
  kLatencyTimer = 0x0d,
  kHeaderType = 0x0e,
  kBar0 = 0x10,
  kSubsystemVendorId = 0x2c,
  kSubsystemId = 0x2e,
  kCapabilities = 0x34,
  kInterruptLine = 0x3c,
  kInterruptPin = 0x3d,
};
constexpr unsigned kBarCount = 6;
constexpr unsigned kFirstCapability = 0x40;

// Command register, PCI 6.2.2.
using CommandIo = Bit<0>;
using CommandMemory = Bit<1>;
using CommandBusMaster = Bit<2>;
using CommandIntxDisable = Bit<10>;
constexpr uint16_t kCommandWritable = 0x0547;  // I/O, memory, master, parity, SERR, INTx disable

// Status register, PCI 6.2.3.
using StatusInterrupt = Bit<3>;
using StatusCapabilities = Bit<4>;

constexpr uint8_t kHeaderMultiFunction = 0x80;

// Base address registers, PCI 6.2.5.1.
constexpr uint32_t kBarIo = 0x1;
constexpr uint32_t kBarMemory64 = 0x4;
constexpr uint32_t kBarPrefetchable = 0x8;

enum CapabilityId : uint8_t { kCapabilityMsi = 0x05, kCapabilityVendor = 0x09, kCapabilityMsix = 0x11 };

// MSI capability with 64-bit address and per-vector masks, PCI 6.8.1.
namespace msi {
constexpr unsigned kControl = 2, kAddressLow = 4, kAddressHigh = 8, kData = 12, kMask = 16, kPending = 20, kSize = 24;
using ControlEnable = Bit<0>;
using ControlCapable = Bits<3, 1>;  // log2 of the vectors offered
using ControlEnabled = Bits<6, 4>;  // log2 of the vectors granted
using Control64Bit = Bit<7>;
using ControlMasks = Bit<8>;
}  // namespace msi

// MSI-X capability and table, PCI 6.8.2.
namespace msix {
constexpr unsigned kControl = 2, kTable = 4, kPendingArray = 8, kSize = 12;
using ControlTableSize = Bits<10, 0>;  // vectors less one
using ControlFunctionMask = Bit<14>;
using ControlEnable = Bit<15>;
constexpr unsigned kEntrySize = 16;
constexpr unsigned kVectorsMax = 2048;
using VectorMasked = Bit<0>;
}  // namespace msix

/// INTA-INTD as the Interrupt Pin register names them.
enum class IntxPin : uint8_t { kNone = 0, kA = 1, kB = 2, kC = 3, kD = 4 };

/// Where a function sits on bus 0.
struct Slot {
  uint8_t device = 0;    // 0-31
  uint8_t function = 0;  // 0-7
  constexpr bool operator==(const Slot&) const = default;
};

// Our board (the Intel Q35 family). The ACPI tables publish these.
constexpr uint64_t kEcamBase = 0xe0000000;
constexpr uint64_t kEcamSize = 256 * kEcamBytesPerBus;
constexpr uint32_t kIntxGsiFirst = 16;
constexpr uint32_t kIntxGsiCount = 8;

/// The global system interrupt of a device's pin: pins of one device and neighbours spread over GSIs 16-23. The DSDT's
/// _PRT says the same.
constexpr uint32_t intx_gsi(uint8_t device, IntxPin pin) {
  return kIntxGsiFirst + (device + static_cast<uint32_t>(pin) - 1) % kIntxGsiCount;
}

}  // namespace tenon::pci
