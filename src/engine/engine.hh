// The contract between the machine and whatever executes guest instructions: KVM, the interpreter, the JIT.
//
// `Vcpu::run(CpuIo&)` returns only to halt. Port I/O, MMIO, unknown MSRs, CPUID and hypercalls are call-outs on CpuIo
// made from the middle of an instruction on the vCPU's thread, so no engine has to unwind; KVM's exits become the same
// calls.
//
// Threads: create_vcpu() and run() of one vCPU happen on that vCPU's own thread; everything else says so.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hh"
#include "base/result.hh"
#include "engine/x86/cpu_state.hh"
#include "vm/address.hh"
#include "vm/clock.hh"
#include "vm/guest_memory.hh"
#include "vm/irq_line.hh"
#include "vm/vcpu_signal.hh"

namespace tenon {

struct CpuidResult {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// One row of the CPUID table the machine computes once for each vCPU (features, topology, personality).
struct CpuidEntry {
  uint32_t leaf = 0;
  uint32_t subleaf = 0;
  bool subleaf_matters = false;
  CpuidResult result;
};

/// Call-outs of one vCPU into the machine. Called on the vCPU's thread with no lock held; must not call back into the
/// Vcpu.
class CpuIo {
 public:
  virtual ~CpuIo() = default;

  virtual uint32_t read_port(IoPort port, unsigned size_bytes) = 0;
  virtual void write_port(IoPort port, unsigned size_bytes, uint32_t value) = 0;
  virtual uint64_t read_mmio(Gpa gpa, unsigned size_bytes) = 0;
  virtual void write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value) = 0;

  /// MSRs that CpuState does not hold (local APIC, personality, MTRR...). False makes the instruction raise #GP(0).
  virtual bool read_msr(uint32_t index, uint64_t& value) = 0;
  virtual bool write_msr(uint32_t index, uint64_t value) = 0;

  /// VMCALL/VMMCALL: `gpr` is the guest's register file, changed in place. False makes the instruction raise #UD.
  virtual bool hypercall(std::span<uint64_t, 16> gpr, unsigned cpl) = 0;

  /// The guest wrote its TSC: CpuState::tsc_offset is now `offset`. For clock pages of the personality.
  virtual void tsc_offset_changed(uint64_t /*offset*/) {}

  // The rest is for engines without in-kernel interrupt controllers.

  /// The vector to deliver now, acknowledged (moved from IRR to ISR), or -1 where none passes the processor priority.
  virtual int acknowledge_interrupt() = 0;
  /// Whether acknowledge_interrupt() would give a vector; used to leave HLT.
  virtual bool interrupt_pending() = 0;
  /// The deadline in VcpuSignal has passed: the local APIC timer fires and sets the next deadline.
  virtual void timer_expired() = 0;
  /// Vector of the startup IPI behind VcpuSignal::kStartup.
  virtual uint8_t startup_vector() = 0;
  /// INIT was taken (the local APIC resets itself) on this vCPU.
  virtual void init_received() = 0;
  /// CR8 is the task-priority class, TPR[7:4] (SDM Vol. 3 11.8.6).
  virtual uint8_t read_cr8() = 0;
  virtual void write_cr8(uint8_t value) = 0;
};

/// Why run() returned.
struct Halt {
  enum class Reason : uint8_t {
    kStopped,      // VcpuSignal::kStop or Vcpu::request_stop(); state is at an instruction boundary
    kTripleFault,  // shutdown: the machine resets (SDM Vol. 3 6.15, interrupt 8)
    kError,        // the engine cannot go on; `detail` says why and where
  };
  Reason reason = Reason::kStopped;
  std::string detail;
};

/// Counters of translated code; all 0 on engines that translate none. Nothing but uint64_t, so that it can be added up
/// and published word by word.
struct TranslationStats {
  // So far:
  uint64_t fragments_made = 0;
  uint64_t instructions_translated = 0;  // of the guest
  uint64_t guest_bytes_translated = 0;
  uint64_t code_bytes_made = 0;
  uint64_t translation_ns = 0;
  uint64_t untranslatable = 0;  // tries that left the code to the interpreter
  uint64_t fragments_evicted = 0;
  uint64_t fragments_invalidated = 0;
  // Now:
  uint64_t fragments = 0;
  uint64_t code_bytes = 0;
  uint64_t links = 0;
  uint64_t guarded_links = 0;
  // How translated code was left:
  uint64_t exits_link = 0;         // at a direct branch that was not linked
  uint64_t exits_poll = 0;         // because something was pending
  uint64_t exits_indirect = 0;     // at an indirect branch or return that its cache did not know
  uint64_t exits_interpret = 0;    // for an instruction that the interpreter executes
  uint64_t exits_slow_access = 0;  // for an access that the soft TLB cannot answer: MMIO, page crossing, code, fault
  uint64_t exits_host_fault = 0;   // at a fault of the host's own instruction
  uint64_t look_ups = 0;           // of code by its address
  // In lockstep (JitOptions::lockstep):
  uint64_t blocks_compared = 0;
  uint64_t instructions_compared = 0;
  uint64_t blocks_not_compared = 0;  // the interpreter's alone

  TranslationStats& operator+=(const TranslationStats& other);
};

struct OperationCount {
  const char* name = nullptr;  // nullptr: none
  uint64_t count = 0;
};

/// Counters of one vCPU for `--stats`; approximate while it runs.
struct VcpuStats {
  uint64_t instructions = 0;  // 0 where the engine cannot count
  uint64_t port_accesses = 0;
  uint64_t mmio_accesses = 0;
  uint64_t interrupts = 0;
  uint64_t halts = 0;
  uint64_t tlb_misses = 0;  // accesses that no entry of the soft TLB's tables answered
  uint64_t tlb_walks = 0;   // of page tables, because the soft TLB knew nothing of the page
  uint64_t traces_decoded = 0;
  TranslationStats translation{};
  /// What the interpreter executed in the middle of translated code most often, the most frequent first; counted with
  /// JitOptions::count_instructions.
  std::array<OperationCount, 10> interpreted{};
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;
  /// Executes until halt. HLT and wait-for-SIPI sleep inside.
  virtual Halt run(CpuIo& io) = 0;
  /// Makes run() return kStopped soon. Any thread; sticky until run() has returned once.
  virtual void request_stop() = 0;
  /// Only while run() is not running.
  virtual x86::CpuState get_state() = 0;
  /// kInvalidArgument names the register whose value no CPU could hold (reserved bits, non-canonical addresses).
  virtual Result<void> set_state(const x86::CpuState& state) = 0;
  virtual VcpuStats stats() const = 0;
};

/// A guest write that carries no more news than that it happened: a virtqueue notification.
struct Doorbell {
  bool is_port = false;  // I/O port number, else guest physical address, in `address`
  uint64_t address = 0;
  unsigned size_bytes = 4;   // 1, 2, 4 or 8; 0 matches any size where the kernel can (MMIO only)
  bool match_value = false;  // only writes of `value`
  uint64_t value = 0;
};

struct VcpuConfig {
  VcpuId id{};
  std::span<const CpuidEntry> cpuid;  // outlives the vCPU
  VcpuSignal* signal = nullptr;       // outlives the vCPU
};

/// A virtual machine as an engine sees it: memory and vCPUs.
class Engine {
 public:
  virtual ~Engine() = default;
  /// "interp", "kvm".
  virtual std::string_view name() const = 0;
  /// CPUID leaves 0-0x1f, 0xd and 0x80000000-... that this engine can run on this host, before the machine adds
  /// topology and personality.
  virtual Result<std::vector<CpuidEntry>> supported_cpuid() const = 0;
  /// In-kernel local APIC, IOAPIC, 8259 and 8254 (KVM): the sink that takes device interrupts. nullptr: the machine
  /// brings its own chips and the software-engine half of CpuIo is used.
  virtual InterruptSink* in_kernel_interrupts() { return nullptr; }
  /// Once, after all of `memory` has been added and before the first create_vcpu(); `memory` and `clock` outlive the
  /// engine.
  virtual Result<void> attach(GuestMemory& memory, Clock& clock) = 0;
  virtual Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) = 0;

  // Paths around the vCPU thread, where the kernel offers them; kUnsupported elsewhere, and the device then takes the
  // call-out or the InterruptSink.

  /// From now on a guest write of exactly `doorbell` signals `event` and makes no call-out. `event` outlives the
  /// engine.
  virtual Result<void> add_doorbell(const Doorbell& doorbell, const Eventfd& event);
  /// From now on signalling `event` pulses `gsi`. `event` outlives the engine.
  virtual Result<void> add_interrupt_event(Gsi gsi, const Eventfd& event);
};

}  // namespace tenon
