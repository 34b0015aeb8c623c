// Facts about the local APIC, the I/O APIC and message-signalled interrupts.
// Source: Intel SDM Vol. 3 chapter 11 (APIC; order number 325462-083), 82093AA I/O APIC data sheet (290566-001).
#pragma once

#include <cstdint>

#include "base/bits.hh"

namespace tenon::apic {

constexpr uint64_t kDefaultBase = 0xfee00000;  // SDM Vol. 3 11.4.1
constexpr uint64_t kWindowSize = 0x1000;
constexpr uint64_t kIoApicDefaultBase = 0xfec00000;

constexpr uint32_t kMsrApicBase = 0x1b;
constexpr uint32_t kMsrTscDeadline = 0x6e0;
constexpr uint32_t kMsrX2apicFirst = 0x800;
constexpr uint32_t kMsrX2apicLast = 0x8ff;

/// IA32_APIC_BASE, SDM Vol. 3 Figure 11-26.
using BaseBootstrap = Bit<8>;
using BaseX2apic = Bit<10>;
using BaseEnable = Bit<11>;

/// xAPIC register offsets, SDM Vol. 3 Table 11-1; the x2APIC MSR is 0x800 + offset / 16 (Table 11-6).
enum Register : uint32_t {
  kId = 0x020,
  kVersion = 0x030,
  kTpr = 0x080,
  kApr = 0x090,
  kPpr = 0x0a0,
  kEoi = 0x0b0,
  kRrd = 0x0c0,
  kLdr = 0x0d0,
  kDfr = 0x0e0,
  kSvr = 0x0f0,
  kIsr = 0x100,  // eight registers, 0x10 apart
  kTmr = 0x180,
  kIrr = 0x200,
  kEsr = 0x280,
  kLvtCmci = 0x2f0,
  kIcrLow = 0x300,
  kIcrHigh = 0x310,
  kLvtTimer = 0x320,
  kLvtThermal = 0x330,
  kLvtPerformance = 0x340,
  kLvtLint0 = 0x350,
  kLvtLint1 = 0x360,
  kLvtError = 0x370,
  kInitialCount = 0x380,
  kCurrentCount = 0x390,
  kDivide = 0x3e0,
  kSelfIpi = 0x3f0,  // x2APIC only
};

/// SDM Vol. 3 Figure 11-12 (ICR), 11-8 (LVT), 11-25 (MSI data).
enum class DeliveryMode : uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kReserved = 3,
  kNmi = 4,
  kInit = 5,
  kStartup = 6,
  kExtInt = 7,
};

/// SDM Vol. 3 11.6.2: who is meant by a destination field.
enum class DestinationMode : uint8_t { kPhysical, kLogical };

/// Error status register bits, SDM Vol. 3 Figure 11-9.
enum ErrorBits : uint32_t {
  kErrorSendIllegalVector = 1u << 5,
  kErrorReceiveIllegalVector = 1u << 6,
  kErrorIllegalRegister = 1u << 7,
};

/// Vectors 0-15 are illegal for fixed and lowest-priority delivery (SDM Vol. 3 11.5.2).
constexpr uint8_t kFirstLegalVector = 16;

constexpr uint32_t kXapicBroadcast = 0xff;
constexpr uint32_t kX2apicBroadcast = 0xffffffff;

/// The frequency of the timer input before the divide configuration register: the "core crystal clock" that the machine
/// publishes in CPUID 0x15 ECX (and hypervisors in 0x40000010). One tick is a nanosecond of guest time.
constexpr uint64_t kTimerHz = 1'000'000'000;

/// The x2APIC logical ID is a function of the APIC ID, SDM Vol. 3 11.12.10.2.
constexpr uint32_t x2apic_logical_id(uint32_t apic_id) { return (apic_id >> 4) << 16 | 1u << (apic_id & 15); }

/// MSI address, SDM Vol. 3 11.11.1. Bits 11:5 are reserved there; KVM, Hyper-V and Xen agree to use them as destination
/// ID bits 14:8 ("extended destination ID"), so a message reaches 32768 APICs without interrupt remapping.
namespace msi {
constexpr uint64_t kAddressBase = 0xfee00000;
using AddressPrefix = Bits<63, 20>;
using AddressDestination = Bits<19, 12>;
using AddressExtendedDestination = Bits<11, 5>;
using AddressRedirectionHint = Bit<3>;
using AddressLogical = Bit<2>;
using DataVector = Bits<7, 0>;
using DataDeliveryMode = Bits<10, 8>;
using DataAssert = Bit<14>;
using DataLevel = Bit<15>;
}  // namespace msi

}  // namespace tenon::apic
