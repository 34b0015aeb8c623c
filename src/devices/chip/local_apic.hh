// Local APIC of one vCPU: xAPIC by memory-mapped registers, x2APIC by MSRs.
//
// Source: Intel SDM Vol. 3 chapter 11 ("SDM 11.x" below), IA32_TSC_DEADLINE 11.5.4.1; PV EOI from the Linux kernel
// documentation, virt/kvm/x86/msr.rst.
// The idea: whoever interrupts this vCPU sets a bit in IRR (and TMR) with one atomic OR and raises
// VcpuSignal::kInterrupt; everything else happens on the vCPU's own thread, without locks. The timer is a deadline in
// VcpuSignal, never a host timer, so an idle vCPU sleeps and a busy one compares a number.
//
// Threads: accept(), set_lint(), and the const accessors used by ApicBus from any thread. All else on the vCPU's
// thread, or while that vCPU is stopped.
//
// Not implemented: SMI delivery (raised as VcpuSignal::kSmi, which engines ignore), remote read, bus arbitration (APR,
// RRD read 0), focus processor. Deviation: the APIC ID is read-only in xAPIC mode too, as on current processors. An
// APIC whose ID needs more than 8 bits answers to its full ID in either mode. IA32_APIC_BASE may move the window, but
// not over RAM: the machine looks for RAM first.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "devices/chip/apic_bus.hh"
#include "spec/apic.hh"
#include "spec/kvm_pv.hh"
#include "vm/address.hh"
#include "vm/clock.hh"
#include "vm/device.hh"
#include "vm/guest_memory.hh"
#include "vm/vcpu_signal.hh"

namespace tenon {

class LocalApic final : public Device {
 public:
  struct Config {
    VcpuId id{};  // also the APIC ID
    bool is_bootstrap = false;
    unsigned physical_address_bits = 46;  // IA32_APIC_BASE bits above it are reserved
  };
  /// `signal`, `clock` and `bus` outlive the APIC. Attaches itself to `bus`.
  LocalApic(const Config& config, VcpuSignal& signal, const Clock& clock, ApicBus& bus);

  // The machine's CpuIo forwards to these.

  /// IA32_APIC_BASE, IA32_TSC_DEADLINE, 0x800-0x8ff and, where enabled, the PV EOI MSR.
  static constexpr bool owns_msr(uint32_t index) {
    return index == apic::kMsrApicBase || index == apic::kMsrTscDeadline || index == kvm_pv::kMsrPvEoi ||
           (index >= apic::kMsrX2apicFirst && index <= apic::kMsrX2apicLast);
  }
  /// False: the instruction raises #GP(0).
  bool read_msr(uint32_t index, uint64_t& value);
  bool write_msr(uint32_t index, uint64_t value);

  /// Whether `gpa` lies in this APIC's register window (only in xAPIC mode).
  bool claims(Gpa gpa) const { return gpa.value() - window_base_ < window_size_; }
  /// `gpa` is claimed by this APIC. Any width and alignment.
  uint64_t read_mmio(Gpa gpa, unsigned size_bytes);
  void write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value);

  /// The vector to deliver now, moved from IRR to ISR (or taken from the 8259 through ExtINT); -1 for none.
  int acknowledge_interrupt();
  /// Whether acknowledge_interrupt() would give a vector.
  bool interrupt_pending();
  /// The deadline in VcpuSignal has passed. Calling it early does no harm.
  void timer_expired();
  uint8_t startup_vector() const { return startup_vector_.load(std::memory_order_acquire); }
  /// INIT: every register but ID and IA32_APIC_BASE is reset (SDM 11.4.7.3, 11.12.5.1).
  void init_received();
  uint8_t read_cr8() const { return static_cast<uint8_t>(tpr_.load(std::memory_order_relaxed) >> 4); }
  void write_cr8(uint8_t value) { set_tpr(static_cast<uint8_t>(value << 4)); }

  // Wiring and configuration by the machine, before start or while the vCPU is stopped.

  /// The ExtINT source: returns the vector of an 8259 interrupt-acknowledge cycle. Only the bootstrap APIC has one.
  void connect_external(std::function<uint8_t()> acknowledge) { external_acknowledge_ = std::move(acknowledge); }
  /// Guest TSC = Clock::now_tsc() + offset. Also from the vCPU's thread when the guest writes its TSC.
  void set_tsc_offset(uint64_t offset);
  /// What firmware leaves behind: enabled by SVR, LINT0 = ExtINT on the bootstrap processor, LINT1 = NMI
  /// (MP 1.4 3.6.2.2).
  void set_virtual_wire_mode();
  /// Offers KVM's PV EOI MSR (kvm_pv::kPvEoi in CPUID); `memory` outlives the APIC.
  void enable_pv_eoi(GuestMemory& memory) { pv_eoi_memory_ = &memory; }

  // Any thread.

  /// Takes a message that addresses this APIC (ApicBus has matched the destination).
  void accept(const ApicMessage& message);
  enum class Lint : uint8_t { kLint0, kLint1 };
  /// Level of a local interrupt pin: LINT0 is the 8259's INTR, LINT1 is NMI.
  void set_lint(Lint pin, bool level);

  uint32_t id() const { return number(config_.id); }
  bool is_enabled() const { return (base_.load(std::memory_order_relaxed) & apic::BaseEnable::kMask) != 0; }
  bool is_x2apic() const { return (base_.load(std::memory_order_relaxed) & apic::BaseX2apic::kMask) != 0; }
  bool is_software_enabled() const;
  /// Whether an xAPIC-mode or x2APIC-mode logical destination means this APIC (SDM 11.6.2.2, 11.12.10.2).
  bool matches_logical(uint32_t destination) const;
  /// For lowest-priority arbitration: the processor priority as of its last change.
  uint8_t arbitration_priority() const { return ppr_.load(std::memory_order_relaxed); }

  std::string_view name() const override { return name_; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  /// 256 bits, one a vector. IRR and TMR are set by any thread; ISR only here.
  using VectorSet = std::array<std::atomic<uint32_t>, 8>;
  enum LvtIndex : unsigned { kCmci, kTimer, kThermal, kPerformance, kLint0, kLint1, kError, kLvtCount };

  static void set_bit(VectorSet& set, uint8_t vector);
  static void clear_bit(VectorSet& set, uint8_t vector);
  static bool test_bit(const VectorSet& set, uint8_t vector);
  static int highest(const VectorSet& set);

  uint32_t read_register(uint32_t offset);
  void write_register(uint32_t offset, uint32_t value);
  bool read_x2apic(uint32_t index, uint64_t& value);
  bool write_x2apic(uint32_t index, uint64_t value);
  bool write_base(uint64_t value);
  void update_window();

  void set_tpr(uint8_t value);
  void update_ppr();
  void raise_if_pending();
  int deliverable_vector();
  bool external_pending() const;
  void write_eoi();
  void end_of_interrupt();
  void write_svr(uint32_t value);
  void write_lvt(LvtIndex index, uint32_t value);
  void send_ipi();
  void deliver_lvt(LvtIndex index);
  void set_error(uint32_t error_bit);

  unsigned timer_mode() const;
  bool is_timer_masked() const;
  unsigned timer_shift() const;
  void write_initial_count(uint32_t value);
  void write_divide(uint32_t value);
  void start_count(uint64_t ticks);
  uint32_t current_count();
  void settle_timer();
  void write_lvt_timer(uint32_t value);
  void update_deadline();
  uint64_t guest_tsc() const { return clock_.now_tsc() + tsc_offset_; }
  uint64_t tsc_deadline_ns() const;
  void write_tsc_deadline(uint64_t value);

  bool write_pv_eoi(uint64_t value);
  void offer_pv_eoi(uint8_t vector);
  enum class OfferStays : uint8_t { kYes, kNo };
  void sync_pv_eoi(OfferStays stays);

  void reset_registers();

  // Configuration.
  const Config config_;
  const std::string name_;
  VcpuSignal& signal_;
  const Clock& clock_;
  ApicBus& bus_;
  std::function<uint8_t()> external_acknowledge_;
  GuestMemory* pv_eoi_memory_ = nullptr;

  // Guest-visible, written by the vCPU's thread and read by senders that match destinations.
  std::atomic<uint64_t> base_;
  std::atomic<uint32_t> ldr_{0};
  std::atomic<uint32_t> dfr_{0};
  std::atomic<uint32_t> svr_{0};
  std::atomic<uint8_t> tpr_{0};
  std::atomic<uint8_t> ppr_{0};
  std::array<std::atomic<uint32_t>, kLvtCount> lvt_{};
  // Guest-visible, written by any thread.
  VectorSet irr_{};
  VectorSet tmr_{};
  std::atomic<uint32_t> pending_errors_{0};  // collected until software writes ESR
  std::atomic<uint8_t> startup_vector_{0};
  std::array<std::atomic<bool>, 2> lint_level_{};
  // Guest-visible, of the vCPU's thread alone.
  VectorSet isr_{};
  uint32_t esr_ = 0;
  uint64_t icr_ = 0;
  uint32_t initial_count_ = 0;
  uint32_t divide_ = 0;
  uint64_t count_end_ns_ = kNoDeadline;  // when the running count reaches zero
  uint64_t tsc_deadline_ = 0;            // IA32_TSC_DEADLINE, 0: disarmed
  uint64_t tsc_offset_ = 0;
  uint64_t pv_eoi_msr_ = 0;
  bool pv_eoi_offered_ = false;  // the guest may end the interrupt in service by clearing the PV EOI flag

  // Not saved: derived from base_.
  uint64_t window_base_ = apic::kDefaultBase;
  uint64_t window_size_ = apic::kWindowSize;
};

}  // namespace tenon
