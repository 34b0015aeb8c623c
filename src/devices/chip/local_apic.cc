#include "devices/chip/local_apic.hh"

#include <bit>

#include "base/check.hh"

namespace tenon {
namespace {

using namespace apic;  // the manual's register names

// How a register may be reached: by MMIO in xAPIC mode, by MSR in x2APIC mode.
constexpr uint8_t kXr = 1, kXw = 2, k2r = 4, k2w = 8;
constexpr uint8_t kRead = kXr | k2r, kReadWrite = kXr | kXw | k2r | k2w;

struct RegisterRow {
  uint32_t offset = 0;
  uint8_t access = 0;
  uint32_t writable = 0;   // xAPIC: other bits are kept out. x2APIC: other bits raise #GP, but for:
  uint32_t read_only = 0;  // status bits that software may write back as it read them
};

// clang-format off
/// SDM Vol. 3 Table 11-1 and Table 11-6; LVT layouts Figure 11-8, ICR Figure 11-12, SVR Figure 11-23.
constexpr RegisterRow kRows[] = {
    // offset         access           writable    read_only
    {kId,             kRead,           0x00000000, 0},
    {kVersion,        kRead,           0x00000000, 0},
    {kTpr,            kReadWrite,      0x000000ff, 0},
    {kApr,            kXr,             0x00000000, 0},
    {kPpr,            kRead,           0x00000000, 0},
    {kEoi,            kXw | k2w,       0x00000000, 0},
    {kRrd,            kXr,             0x00000000, 0},
    {kLdr,            kRead | kXw,     0xff000000, 0},
    {kDfr,            kXr | kXw,       0xf0000000, 0},
    {kSvr,            kReadWrite,      0x000013ff, 0},
    {kEsr,            kReadWrite,      0x00000000, 0},
    {kLvtCmci,        kReadWrite,      0x000107ff, 0x1000},
    {kIcrLow,         kReadWrite,      0x000ccfff, 0x1000},
    {kIcrHigh,        kXr | kXw,       0xff000000, 0},
    {kLvtTimer,       kReadWrite,      0x000700ff, 0x1000},
    {kLvtThermal,     kReadWrite,      0x000107ff, 0x1000},
    {kLvtPerformance, kReadWrite,      0x000107ff, 0x1000},
    {kLvtLint0,       kReadWrite,      0x0001a7ff, 0x5000},
    {kLvtLint1,       kReadWrite,      0x0001a7ff, 0x5000},
    {kLvtError,       kReadWrite,      0x000100ff, 0x1000},
    {kInitialCount,   kReadWrite,      0xffffffff, 0},
    {kCurrentCount,   kRead,           0x00000000, 0},
    {kDivide,         kReadWrite,      0x0000000b, 0},
    {kSelfIpi,        k2w,             0x000000ff, 0},
};
// clang-format on

/// The rows by offset / 16, with ISR, TMR and IRR added.
consteval std::array<RegisterRow, 64> index_rows() {
  std::array<RegisterRow, 64> index{};
  for (const RegisterRow& row : kRows) index[row.offset / 16] = row;
  for (uint32_t offset = kIsr; offset < kEsr; offset += 16) index[offset / 16] = {offset, kRead, 0, 0};
  return index;
}
constexpr std::array<RegisterRow, 64> kIndex = index_rows();

consteval bool rows_are_good() {
  for (const RegisterRow& row : kRows)
    if (row.offset % 16 != 0 || row.offset >= 0x400 || (row.writable & row.read_only & ~0x1000u) != 0) return false;
  return true;
}
static_assert(rows_are_good());

using LvtVector = Bits<7, 0>;
using LvtMode = Bits<10, 8>;
using LvtRemoteIrr = Bit<14>;
using LvtLevel = Bit<15>;
using LvtMasked = Bit<16>;

using SvrVector = Bits<7, 0>;
using SvrEnabled = Bit<8>;
using SvrSuppressBroadcast = Bit<12>;

using IcrVector = Bits<7, 0>;
using IcrMode = Bits<10, 8>;
using IcrLogical = Bit<11>;
using IcrAssert = Bit<14>;
using IcrLevel = Bit<15>;
using IcrShorthand = Bits<19, 18>;
using IcrXapicDestination = Bits<63, 56>;
using IcrX2apicDestination = Bits<63, 32>;

constexpr uint32_t kSvrReset = 0xff;
constexpr uint32_t kDfrReset = 0xffffffff;
constexpr uint32_t kDfrOnes = 0x0fffffff;

constexpr uint32_t kLvtOffsets[] = {kLvtCmci, kLvtTimer, kLvtThermal, kLvtPerformance, kLvtLint0, kLvtLint1, kLvtError};

constexpr uint8_t kPvEoiEnabled = 1;  // both the MSR's enable bit and the flag in memory
constexpr uint64_t kPvEoiReserved = 2;

}  // namespace

LocalApic::LocalApic(const Config& config, VcpuSignal& signal, const Clock& clock, ApicBus& bus)
    : config_(config),
      name_("lapic" + std::to_string(number(config.id))),
      signal_(signal),
      clock_(clock),
      bus_(bus),
      base_(kDefaultBase | BaseEnable::kMask | BaseBootstrap::make(config.is_bootstrap ? 1 : 0)) {
  reset_registers();
  bus_.attach(*this);
}

// Vector sets.

void LocalApic::set_bit(VectorSet& set, uint8_t vector) {
  set[vector / 32].fetch_or(1u << vector % 32, std::memory_order_acq_rel);
}

void LocalApic::clear_bit(VectorSet& set, uint8_t vector) {
  set[vector / 32].fetch_and(~(1u << vector % 32), std::memory_order_acq_rel);
}

bool LocalApic::test_bit(const VectorSet& set, uint8_t vector) {
  return (set[vector / 32].load(std::memory_order_acquire) >> vector % 32 & 1) != 0;
}

int LocalApic::highest(const VectorSet& set) {
  for (int word = 7; word >= 0; --word) {
    const uint32_t bits = set[static_cast<size_t>(word)].load(std::memory_order_acquire);
    if (bits != 0) return word * 32 + 31 - std::countl_zero(bits);
  }
  return -1;
}

// Priority, acknowledge, end of interrupt.

bool LocalApic::is_software_enabled() const { return SvrEnabled::test(svr_.load(std::memory_order_relaxed)); }

/// SDM Vol. 3 11.8.3.1, Figure 11-19.
void LocalApic::update_ppr() {
  const int in_service = highest(isr_);
  const uint8_t isr_class = in_service < 0 ? 0 : static_cast<uint8_t>(in_service & 0xf0);
  const uint8_t tpr = tpr_.load(std::memory_order_relaxed);
  ppr_.store((tpr & 0xf0) >= isr_class ? tpr : isr_class, std::memory_order_relaxed);
}

void LocalApic::set_tpr(uint8_t value) {
  tpr_.store(value, std::memory_order_relaxed);
  sync_pv_eoi(OfferStays::kYes);
  update_ppr();
  raise_if_pending();
}

/// The highest request that passes the processor priority, or -1 (SDM Vol. 3 11.8.3.1).
int LocalApic::deliverable_vector() {
  if (!is_enabled()) return -1;
  const int requested = highest(irr_);
  if (requested < 0) return -1;
  sync_pv_eoi(OfferStays::kNo);  // from here on this APIC has to see the EOI
  return (requested >> 4) > (ppr_.load(std::memory_order_relaxed) >> 4) ? requested : -1;
}

/// SDM Vol. 3 11.4.3: with the APIC disabled, LINT0 is the processor's INTR pin. ExtINT: 11.5.1.
bool LocalApic::external_pending() const {
  if (!external_acknowledge_ || !lint_level_[0].load(std::memory_order_acquire)) return false;
  const uint32_t lvt = lvt_[kLint0].load(std::memory_order_relaxed);
  return !is_enabled() ||
         (!LvtMasked::test(lvt) && static_cast<DeliveryMode>(LvtMode::get(lvt)) == DeliveryMode::kExtInt);
}

bool LocalApic::interrupt_pending() { return external_pending() || deliverable_vector() >= 0; }

void LocalApic::raise_if_pending() {
  if (interrupt_pending()) signal_.raise(VcpuSignal::kInterrupt);
}

int LocalApic::acknowledge_interrupt() {
  int vector = -1;
  if (external_pending()) {
    vector = external_acknowledge_();
  } else {
    vector = deliverable_vector();
    if (vector < 0) return -1;
    const auto accepted = static_cast<uint8_t>(vector);
    clear_bit(irr_, accepted);
    offer_pv_eoi(accepted);
    set_bit(isr_, accepted);
    update_ppr();
  }
  raise_if_pending();  // ExtINT does not raise the priority, so more may be deliverable at once
  return vector;
}

void LocalApic::write_eoi() {
  sync_pv_eoi(OfferStays::kNo);
  end_of_interrupt();
}

/// SDM Vol. 3 11.8.5.
void LocalApic::end_of_interrupt() {
  const int in_service = highest(isr_);
  if (in_service < 0) return;
  const auto vector = static_cast<uint8_t>(in_service);
  clear_bit(isr_, vector);
  update_ppr();
  if (test_bit(tmr_, vector)) {
    const uint32_t lint0 = lvt_[kLint0].load();
    if (LvtRemoteIrr::test(lint0) && LvtVector::get(lint0) == vector) {
      lvt_[kLint0].fetch_and(~static_cast<uint32_t>(LvtRemoteIrr::kMask));
      if (lint_level_[0].load()) deliver_lvt(kLint0);
    }
    if (!SvrSuppressBroadcast::test(svr_.load(std::memory_order_relaxed))) bus_.broadcast_eoi(vector);
  }
  raise_if_pending();
}

// Incoming messages and pins; any thread.

void LocalApic::accept(const ApicMessage& message) {
  switch (message.delivery_mode) {
    case DeliveryMode::kFixed:
    case DeliveryMode::kLowestPriority: break;
    case DeliveryMode::kSmi: return signal_.raise(VcpuSignal::kSmi);
    case DeliveryMode::kNmi: return signal_.raise(VcpuSignal::kNmi);
    case DeliveryMode::kInit: return signal_.raise(VcpuSignal::kInit);
    case DeliveryMode::kStartup:
      startup_vector_.store(message.vector, std::memory_order_release);
      return signal_.raise(VcpuSignal::kStartup);
    case DeliveryMode::kExtInt:  // our only ExtINT source is the LINT0 pin
    case DeliveryMode::kReserved: return;
  }
  if (!is_software_enabled()) return;  // SDM Vol. 3 11.4.7.2: only INIT, NMI, SMI and SIPI get through
  if (message.vector < kFirstLegalVector) return set_error(kErrorReceiveIllegalVector);
  // TMR first: the acknowledge that sees the request must find its trigger mode (SDM Vol. 3 11.8.4).
  if (message.is_level) {
    set_bit(tmr_, message.vector);
  } else {
    clear_bit(tmr_, message.vector);
  }
  set_bit(irr_, message.vector);
  signal_.raise(VcpuSignal::kInterrupt);
}

void LocalApic::set_lint(Lint pin, bool level) {
  const bool is_lint0 = pin == Lint::kLint0;
  const bool was_high = lint_level_[is_lint0 ? 0 : 1].exchange(level, std::memory_order_acq_rel);
  if (!level || was_high) return;
  if (is_enabled()) return deliver_lvt(is_lint0 ? kLint0 : kLint1);
  // SDM Vol. 3 11.4.3: a disabled APIC passes the pins through as INTR and NMI.
  signal_.raise(is_lint0 ? VcpuSignal::kInterrupt : VcpuSignal::kNmi);
}

/// A local interrupt source fires (SDM Vol. 3 11.5.1).
void LocalApic::deliver_lvt(LvtIndex index) {
  const uint32_t lvt = lvt_[index].load(std::memory_order_acquire);
  if (LvtMasked::test(lvt)) return;
  const bool has_mode = index != kTimer && index != kError;  // those two are always fixed
  const auto mode = has_mode ? static_cast<DeliveryMode>(LvtMode::get(lvt)) : DeliveryMode::kFixed;
  switch (mode) {
    case DeliveryMode::kFixed: break;
    case DeliveryMode::kExtInt: return signal_.raise(VcpuSignal::kInterrupt);  // external_pending() decides
    case DeliveryMode::kNmi: return signal_.raise(VcpuSignal::kNmi);
    case DeliveryMode::kSmi: return signal_.raise(VcpuSignal::kSmi);
    case DeliveryMode::kInit: return signal_.raise(VcpuSignal::kInit);
    default: return;
  }
  ApicMessage message;
  message.vector = static_cast<uint8_t>(LvtVector::get(lvt));
  // Only LINT0 can be level-triggered (SDM Vol. 3 11.5.1, "Trigger Mode"); remote IRR holds it back until its EOI.
  if (index == kLint0 && LvtLevel::test(lvt)) {
    const uint32_t before = lvt_[kLint0].fetch_or(static_cast<uint32_t>(LvtRemoteIrr::kMask));
    if (LvtRemoteIrr::test(before)) return;
    message.is_level = true;
  }
  accept(message);
}

/// Errors collect until software writes ESR (SDM Vol. 3 11.5.3).
void LocalApic::set_error(uint32_t error_bit) {
  const uint32_t before = pending_errors_.fetch_or(error_bit, std::memory_order_acq_rel);
  const uint32_t lvt = lvt_[kError].load(std::memory_order_relaxed);
  // An illegal vector in the error LVT itself would be an error again, for ever.
  if ((before & error_bit) == 0 && LvtVector::get(lvt) >= kFirstLegalVector) deliver_lvt(kError);
}

/// SDM Vol. 3 11.6.2.2. `destination` has 8 bits.
bool LocalApic::matches_logical(uint32_t destination) const {
  if (is_x2apic()) {
    const uint32_t logical = x2apic_logical_id(id());
    return destination >> 16 == logical >> 16 && (destination & logical & 0xffff) != 0;
  }
  const uint32_t logical = ldr_.load(std::memory_order_relaxed) >> 24;
  const bool is_flat = dfr_.load(std::memory_order_relaxed) >> 28 == 0xf;
  if (is_flat) return (logical & destination) != 0;
  return (logical >> 4) == (destination >> 4) && (logical & destination & 0xf) != 0;
}

// Interprocessor interrupts (SDM Vol. 3 11.6.1).

void LocalApic::send_ipi() {
  ApicMessage message;
  message.vector = static_cast<uint8_t>(IcrVector::get(icr_));
  message.delivery_mode = static_cast<DeliveryMode>(IcrMode::get(icr_));
  const bool is_vectored =
      message.delivery_mode == DeliveryMode::kFixed || message.delivery_mode == DeliveryMode::kLowestPriority;
  if (is_vectored && message.vector < kFirstLegalVector) return set_error(kErrorSendIllegalVector);
  // INIT level de-assert only synchronised arbitration IDs of old processors (SDM Vol. 3 11.6.1, "Level").
  if (message.delivery_mode == DeliveryMode::kInit && IcrLevel::test(icr_) && !IcrAssert::test(icr_)) return;
  message.destination_mode = IcrLogical::test(icr_) ? DestinationMode::kLogical : DestinationMode::kPhysical;
  message.source = is_x2apic() ? ApicMessage::Source::kX2apicIpi : ApicMessage::Source::kXapicIpi;
  message.destination =
      static_cast<uint32_t>(is_x2apic() ? IcrX2apicDestination::get(icr_) : IcrXapicDestination::get(icr_));
  switch (IcrShorthand::get(icr_)) {
    case 0: bus_.deliver(message); return;
    case 1: return accept(message);
    case 2: return bus_.deliver_all(message, nullptr);
    default: return bus_.deliver_all(message, this);
  }
}

// Registers.

uint32_t LocalApic::read_register(uint32_t offset) {
  if (offset >= kIsr && offset < kEsr) {
    sync_pv_eoi(OfferStays::kYes);
    const VectorSet& set = offset < kTmr ? isr_ : offset < kIrr ? tmr_ : irr_;
    return set[offset / 16 % 8].load(std::memory_order_acquire);
  }
  for (unsigned i = 0; i < kLvtCount; ++i) {
    if (offset != kLvtOffsets[i]) continue;
    return lvt_[i].load(std::memory_order_relaxed);
  }
  switch (offset) {
    case kId: return is_x2apic() ? id() : id() << 24;
    case kVersion: return 0x15 | (kLvtCount - 1) << 16 | 1u << 24;  // SDM Vol. 3 Figure 11-7
    case kTpr: return tpr_.load(std::memory_order_relaxed);
    case kPpr: sync_pv_eoi(OfferStays::kYes); return ppr_.load(std::memory_order_relaxed);
    case kLdr: return is_x2apic() ? x2apic_logical_id(id()) : ldr_.load(std::memory_order_relaxed);
    case kDfr: return dfr_.load(std::memory_order_relaxed);
    case kSvr: return svr_.load(std::memory_order_relaxed);
    case kEsr: return esr_;
    case kIcrLow: return static_cast<uint32_t>(icr_);
    case kIcrHigh: return static_cast<uint32_t>(icr_ >> 32);
    case kInitialCount: return initial_count_;
    case kCurrentCount: return current_count();
    case kDivide: return divide_;
    default: return 0;  // APR, RRD
  }
}

/// `value` holds writable bits only.
void LocalApic::write_register(uint32_t offset, uint32_t value) {
  for (unsigned i = 0; i < kLvtCount; ++i)
    if (offset == kLvtOffsets[i]) return write_lvt(static_cast<LvtIndex>(i), value);
  switch (offset) {
    case kTpr: return set_tpr(static_cast<uint8_t>(value));
    case kEoi: return write_eoi();
    case kLdr: ldr_.store(value, std::memory_order_relaxed); return;
    case kDfr: dfr_.store(value | kDfrOnes, std::memory_order_relaxed); return;
    case kSvr: return write_svr(value);
    // SDM Vol. 3 11.5.3: a write of any value makes what has collected readable and starts anew.
    case kEsr: esr_ = pending_errors_.exchange(0, std::memory_order_acq_rel); return;
    case kIcrLow: icr_ = (icr_ & 0xffffffff00000000) | value; return send_ipi();
    case kIcrHigh: icr_ = uint64_t{value} << 32 | static_cast<uint32_t>(icr_); return;
    case kInitialCount: return write_initial_count(value);
    case kDivide: return write_divide(value);
    case kSelfIpi: {
      ApicMessage message;
      message.vector = static_cast<uint8_t>(value);
      return accept(message);
    }
    default: return;
  }
}

void LocalApic::write_svr(uint32_t value) {
  svr_.store(value, std::memory_order_relaxed);
  if (!SvrEnabled::test(value)) {  // SDM Vol. 3 11.4.7.2: disabling masks every LVT entry
    settle_timer();
    for (auto& lvt : lvt_) lvt.fetch_or(static_cast<uint32_t>(LvtMasked::kMask));
    update_deadline();
  }
  raise_if_pending();
}

void LocalApic::write_lvt(LvtIndex index, uint32_t value) {
  if (!is_software_enabled()) value |= static_cast<uint32_t>(LvtMasked::kMask);
  if (index == kTimer) return write_lvt_timer(value);
  uint32_t old = lvt_[index].load();
  uint32_t next = 0;
  do {  // another thread may set remote IRR meanwhile; it only means something for a level-triggered fixed LINT0
    const bool keeps_remote_irr = index == kLint0 && LvtLevel::test(value) && LvtMode::get(value) == 0;
    next = value | (keeps_remote_irr ? old & static_cast<uint32_t>(LvtRemoteIrr::kMask) : 0);
  } while (!lvt_[index].compare_exchange_weak(old, next));
  if (index == kLint0 && LvtLevel::test(next) && lint_level_[0].load()) deliver_lvt(kLint0);
  raise_if_pending();
}

// Memory-mapped access (SDM Vol. 3 11.4.1): 32 bits at 16-byte steps.

uint64_t LocalApic::read_mmio(Gpa gpa, unsigned size_bytes) {
  const auto offset = static_cast<uint32_t>(gpa.value() & (kWindowSize - 1));
  const uint32_t byte = offset % 16;
  if (byte >= 4) return 0;
  const RegisterRow row = offset < 0x400 ? kIndex[offset / 16] : RegisterRow{};
  uint32_t value = 0;
  if ((row.access & kXr) != 0) {
    value = read_register(row.offset);
  } else if (row.access == 0) {
    set_error(kErrorIllegalRegister);
  }
  const uint64_t shifted = uint64_t{value} >> (8 * byte);
  return size_bytes >= 8 ? shifted : shifted & ((uint64_t{1} << 8 * size_bytes) - 1);
}

void LocalApic::write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value) {
  const auto offset = static_cast<uint32_t>(gpa.value() & (kWindowSize - 1));
  // SDM Vol. 3 11.4.1: anything but an aligned 32-bit access is undefined; here it does nothing. Of 64 bits the low
  // half counts.
  if (offset % 16 != 0 || size_bytes < 4) return;
  const RegisterRow row = offset < 0x400 ? kIndex[offset / 16] : RegisterRow{};
  if ((row.access & kXw) != 0) {
    write_register(row.offset, static_cast<uint32_t>(value) & row.writable);
  } else if (row.access == 0) {
    set_error(kErrorIllegalRegister);
  }
}

// MSR access (SDM Vol. 3 11.12.1.3).

bool LocalApic::read_x2apic(uint32_t index, uint64_t& value) {
  const uint32_t offset = (index - kMsrX2apicFirst) * 16;
  if (!is_x2apic() || offset >= 0x400) return false;
  const RegisterRow& row = kIndex[offset / 16];
  if ((row.access & k2r) == 0) return false;
  value = offset == kIcrLow ? icr_ : read_register(row.offset);
  return true;
}

bool LocalApic::write_x2apic(uint32_t index, uint64_t value) {
  const uint32_t offset = (index - kMsrX2apicFirst) * 16;
  if (!is_x2apic() || offset >= 0x400) return false;
  const RegisterRow& row = kIndex[offset / 16];
  if ((row.access & k2w) == 0) return false;
  if (offset == kIcrLow) {  // one 64-bit register, SDM Vol. 3 11.12.9; a single write sends
    if ((static_cast<uint32_t>(value) & ~(row.writable | row.read_only)) != 0) return false;
    icr_ = value & ~uint64_t{row.read_only};
    send_ipi();
    return true;
  }
  if ((value & ~uint64_t{row.writable | row.read_only}) != 0) return false;  // reserved bits
  write_register(row.offset, static_cast<uint32_t>(value) & row.writable);
  return true;
}

bool LocalApic::read_msr(uint32_t index, uint64_t& value) {
  switch (index) {
    case kMsrApicBase: value = base_.load(std::memory_order_relaxed); return true;
    case kMsrTscDeadline:
      settle_timer();
      value = tsc_deadline_;
      return true;
    case kvm_pv::kMsrPvEoi: value = pv_eoi_msr_; return pv_eoi_memory_ != nullptr;
    default: return read_x2apic(index, value);
  }
}

bool LocalApic::write_msr(uint32_t index, uint64_t value) {
  switch (index) {
    case kMsrApicBase: return write_base(value);
    case kMsrTscDeadline: write_tsc_deadline(value); return true;
    case kvm_pv::kMsrPvEoi: return write_pv_eoi(value);
    default: return write_x2apic(index, value);
  }
}

/// SDM Vol. 3 11.12.5, Figure 11-27: the legal changes of mode.
bool LocalApic::write_base(uint64_t value) {
  constexpr uint64_t kReservedLow = 0xff | 1u << 9;
  const unsigned bits = config_.physical_address_bits;
  const uint64_t reserved_high = bits >= 64 ? 0 : ~uint64_t{0} << bits;
  if ((value & (kReservedLow | reserved_high)) != 0) return false;
  const uint64_t old = base_.load(std::memory_order_relaxed);
  const bool enable = BaseEnable::test(value), extend = BaseX2apic::test(value);
  const bool was_enabled = BaseEnable::test(old), was_extended = BaseX2apic::test(old);
  if (extend && !enable) return false;                  // the invalid state
  if (was_extended && enable && !extend) return false;  // x2APIC mode is left through disabled only
  if (!was_enabled && enable && extend) return false;   // and entered from xAPIC mode only
  base_.store(value, std::memory_order_relaxed);
  update_window();
  if (was_enabled && !enable) reset_registers();                    // 11.4.3: nothing survives the disabled state
  if (!was_extended && extend) icr_ = static_cast<uint32_t>(icr_);  // 11.12.5.1: only the ICR's high half is lost
  update_deadline();
  raise_if_pending();
  return true;
}

void LocalApic::update_window() {
  const bool has_window = is_enabled() && !is_x2apic();
  window_base_ = base_.load(std::memory_order_relaxed) & ~uint64_t{kWindowSize - 1};
  window_size_ = has_window ? kWindowSize : 0;
}

// PV EOI: the guest ends an edge-triggered interrupt by clearing a flag in its memory, without an exit. Only the vCPU's
// own thread touches the flag, on either side.

bool LocalApic::write_pv_eoi(uint64_t value) {
  if (pv_eoi_memory_ == nullptr || (value & kPvEoiReserved) != 0) return false;
  sync_pv_eoi(OfferStays::kNo);
  pv_eoi_msr_ = value;
  return true;
}

/// Just before `vector` goes into service: offers the short way where its EOI would have no other effect.
void LocalApic::offer_pv_eoi(uint8_t vector) {
  if ((pv_eoi_msr_ & kPvEoiEnabled) == 0 || pv_eoi_memory_ == nullptr) return;
  if (test_bit(tmr_, vector) || highest(isr_) >= 0 || highest(irr_) >= 0) return;
  pv_eoi_offered_ = pv_eoi_memory_->write_object(Gpa(pv_eoi_msr_ & ~uint64_t{3}), kPvEoiEnabled);
}

void LocalApic::sync_pv_eoi(OfferStays stays) {
  if (!pv_eoi_offered_) return;
  const Gpa flag_gpa(pv_eoi_msr_ & ~uint64_t{3});
  uint8_t flag = kPvEoiEnabled;
  if (!pv_eoi_memory_->read_object(flag_gpa, flag)) flag = kPvEoiEnabled;
  if ((flag & kPvEoiEnabled) == 0) {
    pv_eoi_offered_ = false;
    end_of_interrupt();
  } else if (stays == OfferStays::kNo) {
    pv_eoi_offered_ = false;
    pv_eoi_memory_->write_object(flag_gpa, uint8_t{0});
  }
}

// Reset and configuration.

/// SDM Vol. 3 11.4.7.1; ID and IA32_APIC_BASE are not touched.
void LocalApic::reset_registers() {
  for (VectorSet* set : {&irr_, &isr_, &tmr_})
    for (auto& word : *set) word.store(0);
  for (auto& lvt : lvt_) lvt.store(static_cast<uint32_t>(LvtMasked::kMask));
  ldr_ = 0;
  dfr_ = kDfrReset;
  svr_ = kSvrReset;
  tpr_ = ppr_ = 0;
  pending_errors_ = 0;
  esr_ = 0;
  icr_ = 0;
  initial_count_ = divide_ = 0;
  count_end_ns_ = kNoDeadline;
  tsc_deadline_ = 0;
  pv_eoi_offered_ = false;
  signal_.set_deadline_ns(kNoDeadline);
}

void LocalApic::init_received() {
  pv_eoi_msr_ = 0;
  reset_registers();
}

void LocalApic::reset() {
  base_ = kDefaultBase | BaseEnable::kMask | BaseBootstrap::make(config_.is_bootstrap ? 1 : 0);
  pv_eoi_msr_ = 0;
  startup_vector_ = 0;
  tsc_offset_ = 0;
  reset_registers();
  update_window();
}

void LocalApic::set_virtual_wire_mode() {
  constexpr uint32_t kSpuriousVector = 0xff;
  svr_ = static_cast<uint32_t>(SvrEnabled::kMask) | kSpuriousVector;
  const auto mode_bits = [](DeliveryMode mode) {
    return static_cast<uint32_t>(LvtMode::make(static_cast<uint64_t>(mode)));
  };
  if (config_.is_bootstrap) lvt_[kLint0] = mode_bits(DeliveryMode::kExtInt);
  lvt_[kLint1] = mode_bits(DeliveryMode::kNmi);
  raise_if_pending();
}

}  // namespace tenon
