// Saved state of the local APIC.
#include <iterator>

#include "base/byte_order.hh"
#include "devices/chip/local_apic.hh"

namespace tenon {
namespace {

constexpr std::string_view kSchema = "local_apic";
constexpr uint32_t kVersion = 1;

struct LocalApicV1 {
  le64 base;               // 0
  le64 icr;                // 8
  le64 count_end_ns;       // 16, guest time
  le64 tsc_deadline;       // 24
  le64 tsc_offset;         // 32
  le64 pv_eoi_msr;         // 40
  le32 ldr;                // 48
  le32 dfr;                // 52
  le32 svr;                // 56
  le32 esr;                // 60
  le32 pending_errors;     // 64
  le32 initial_count;      // 68
  le32 divide;             // 72
  le32 lvt[7];             // 76
  le32 irr[8];             // 104
  le32 isr[8];             // 136
  le32 tmr[8];             // 168
  uint8_t tpr;             // 200
  uint8_t startup_vector;  // 201
  uint8_t lint_level;      // 202, bit n: LINTn
  uint8_t pv_eoi_offered;  // 203
};
static_assert(sizeof(LocalApicV1) == 204);

constexpr uint32_t kErrorMask =
    apic::kErrorSendIllegalVector | apic::kErrorReceiveIllegalVector | apic::kErrorIllegalRegister;
constexpr uint32_t kLvtMask = 0x7f7ff;
constexpr uint64_t kIcrMask = 0xffffffff000ccfff;
constexpr uint32_t kSvrMask = 0x13ff;

}  // namespace

SavedState LocalApic::save() const {
  LocalApicV1 wire{};
  wire.base = base_.load();
  wire.icr = icr_;
  wire.count_end_ns = count_end_ns_;
  wire.tsc_deadline = tsc_deadline_;
  wire.tsc_offset = tsc_offset_;
  wire.pv_eoi_msr = pv_eoi_msr_;
  wire.ldr = ldr_.load();
  wire.dfr = dfr_.load();
  wire.svr = svr_.load();
  wire.esr = esr_;
  wire.pending_errors = pending_errors_.load();
  wire.initial_count = initial_count_;
  wire.divide = divide_;
  for (size_t i = 0; i < kLvtCount; ++i) wire.lvt[i] = lvt_[i].load();
  for (size_t i = 0; i < 8; ++i) {
    wire.irr[i] = irr_[i].load();
    wire.isr[i] = isr_[i].load();
    wire.tmr[i] = tmr_[i].load();
  }
  wire.tpr = tpr_.load();
  wire.startup_vector = startup_vector_.load();
  wire.lint_level = static_cast<uint8_t>((lint_level_[0].load() ? 1 : 0) | (lint_level_[1].load() ? 2 : 0));
  wire.pv_eoi_offered = pv_eoi_offered_;
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> LocalApic::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<LocalApicV1>(state, kSchema, kVersion));
  using Rule = SavedField::Rule;
  const uint64_t address_mask = (uint64_t{1} << config_.physical_address_bits) - 1;
  const bool is_mode_legal = apic::BaseEnable::test(wire.base) || !apic::BaseX2apic::test(wire.base);
  // Vectors 0-15 can be neither requested nor in service.
  TRY(check_saved_fields(kSchema, {{"base", wire.base, address_mask & ~uint64_t{0x2ff}, Rule::kOnlyBits},
                                   {"base mode", is_mode_legal ? 0u : 1u, 0},
                                   {"icr", wire.icr, kIcrMask, Rule::kOnlyBits},
                                   {"ldr", wire.ldr, 0xff000000, Rule::kOnlyBits},
                                   {"dfr low bits", ~wire.dfr & 0x0fffffff, 0},
                                   {"svr", wire.svr, kSvrMask, Rule::kOnlyBits},
                                   {"esr", wire.esr, kErrorMask, Rule::kOnlyBits},
                                   {"pending_errors", wire.pending_errors, kErrorMask, Rule::kOnlyBits},
                                   {"divide", wire.divide, 0xb, Rule::kOnlyBits},
                                   {"irr[0]", wire.irr[0], 0xffff0000, Rule::kOnlyBits},
                                   {"isr[0]", wire.isr[0], 0xffff0000, Rule::kOnlyBits},
                                   {"tmr[0]", wire.tmr[0], 0xffff0000, Rule::kOnlyBits},
                                   {"lint_level", wire.lint_level, 3},
                                   {"pv_eoi_msr", wire.pv_eoi_msr & 2, 0},
                                   {"pv_eoi_offered", wire.pv_eoi_offered, pv_eoi_memory_ != nullptr ? 1u : 0u}}));
  for (const uint32_t lvt : wire.lvt) TRY(check_saved_fields(kSchema, {{"lvt", lvt, kLvtMask, Rule::kOnlyBits}}));

  base_ = wire.base;
  icr_ = wire.icr;
  count_end_ns_ = wire.count_end_ns;
  tsc_deadline_ = wire.tsc_deadline;
  tsc_offset_ = wire.tsc_offset;
  pv_eoi_msr_ = wire.pv_eoi_msr;
  ldr_ = wire.ldr;
  dfr_ = wire.dfr;
  svr_ = wire.svr;
  esr_ = wire.esr;
  pending_errors_ = wire.pending_errors;
  initial_count_ = wire.initial_count;
  divide_ = wire.divide;
  for (size_t i = 0; i < kLvtCount; ++i) lvt_[i] = wire.lvt[i];
  for (size_t i = 0; i < 8; ++i) {
    irr_[i] = wire.irr[i];
    isr_[i] = wire.isr[i];
    tmr_[i] = wire.tmr[i];
  }
  tpr_ = wire.tpr;
  startup_vector_ = wire.startup_vector;
  lint_level_[0] = (wire.lint_level & 1) != 0;
  lint_level_[1] = (wire.lint_level & 2) != 0;
  pv_eoi_offered_ = wire.pv_eoi_offered != 0;
  update_ppr();
  update_window();
  update_deadline();
  if (highest(irr_) >= 0 || external_pending()) signal_.raise(VcpuSignal::kInterrupt);
  return {};
}

}  // namespace tenon
