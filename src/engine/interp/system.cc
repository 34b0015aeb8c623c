// The system family: which handler does which instruction, the checks they share, and the small ones.
//
// Three ways to end an instruction: the trace goes on (nothing that decoding or translation depends on has changed), it
// is left for the next instruction, or the body has set rip itself (far transfers).
#include "base/shared_memory.hh"
#include "engine/interp/families.hh"
#include "engine/interp/memory.hh"
#include "engine/interp/segment.hh"
#include "engine/interp/system_handlers.hh"

namespace tenon::interp {
namespace {

using x86::Op;

/// What the opcode row says about mode and CPL. #UD comes before #GP (SDM Vol. 3 Table 6-2).
bool permitted(Cpu& cpu, const Step* step) {
  const uint32_t flags = step->insn.row->flags;
  if ((flags & x86::kNotReal) != 0 && !in_protected_mode(cpu)) return cpu.raise(x86::kInvalidOpcode);
  if ((flags & x86::kCpl0) != 0 && cpu.cpl != 0) return raise_gp0(cpu);
  return true;
}

template <Body body>
void continuing(Cpu& cpu, const Step* step) {
  if (!permitted(cpu, step) || !body(cpu, step)) return cpu.fault(step);
  return next(cpu, step);
}

template <Body body>
void leaving(Cpu& cpu, const Step* step) {
  if (!permitted(cpu, step) || !body(cpu, step)) return cpu.fault(step);
  return cpu.leave_after(step);
}

/// The body sets rip; it starts as the instruction's own, where faults point.
template <Body body>
void transferring(Cpu& cpu, const Step* step) {
  cpu.leave_at(step);
  if (!permitted(cpu, step) || !body(cpu, step)) return;
  ++cpu.instructions;
}

/// The same for SYSENTER and SYSEXIT, which are #GP(0), not #UD, where they are not allowed.
template <Body body>
void transferring_unchecked(Cpu& cpu, const Step* step) {
  cpu.leave_at(step);
  if (body(cpu, step)) ++cpu.instructions;
}

// --- Processor identification and time.

/// CPUID bits that follow registers (SDM Vol. 2, CPUID: 01H:ECX.OSXSAVE, 01H:EDX.APIC, 0DH:EBX).
void apply_dynamic_bits(Cpu& cpu, uint32_t leaf, uint32_t subleaf, CpuidResult& result) {
  constexpr uint32_t kOsxsave = 1u << 27, kApic = 1u << 9, kApicBaseMsr = 0x1b;
  constexpr uint64_t kApicEnabled = 1u << 11;
  constexpr uint32_t kLegacyAndHeader = 576, kAvxSize = 256;
  if (leaf == 1) {
    result.ecx &= ~kOsxsave;
    if ((cpu.state.cr4 & x86::kCr4Osxsave) != 0) result.ecx |= kOsxsave;
    uint64_t apic_base = 0;
    if (cpu.io->read_msr(kApicBaseMsr, apic_base) && (apic_base & kApicEnabled) == 0) result.edx &= ~kApic;
  }
  if (leaf == 0xd && subleaf <= 1 && result.ebx != 0) {
    const bool avx = (cpu.state.xcr0 & 4) != 0;
    result.ebx = kLegacyAndHeader + (avx ? kAvxSize : 0);  // both formats agree: AVX follows the header
  }
}

bool cpuid(Cpu& cpu, const Step*) {
  const auto leaf = cpu.reg<uint32_t>(x86::kRax), subleaf = cpu.reg<uint32_t>(x86::kRcx);
  CpuidResult result = x86::look_up_cpuid(cpu.cpuid, leaf, subleaf);
  apply_dynamic_bits(cpu, leaf, subleaf, result);
  cpu.gpr[x86::kRax] = result.eax;
  cpu.gpr[x86::kRbx] = result.ebx;
  cpu.gpr[x86::kRcx] = result.ecx;
  cpu.gpr[x86::kRdx] = result.edx;
  return true;
}

/// CR4.TSD keeps the counter from CPL 1-3 (SDM Vol. 3 17.17).
bool tsc_allowed(Cpu& cpu) { return (cpu.state.cr4 & x86::kCr4Tsd) == 0 || cpu.cpl == 0 || raise_gp0(cpu); }

bool rdtsc(Cpu& cpu, const Step*) {
  if (!tsc_allowed(cpu)) return false;
  write_edx_eax(cpu, guest_tsc(cpu));
  return true;
}

bool rdtscp(Cpu& cpu, const Step*) {
  if (!tsc_allowed(cpu)) return false;
  write_edx_eax(cpu, guest_tsc(cpu));
  cpu.gpr[x86::kRcx] = static_cast<uint32_t>(cpu.state.tsc_aux);
  return true;
}

bool rdpid(Cpu& cpu, const Step* step) {
  cpu.gpr[step->insn.rm] = static_cast<uint32_t>(cpu.state.tsc_aux);
  return true;
}

/// There are no performance counters: every index is invalid.
bool rdpmc(Cpu& cpu, const Step*) { return raise_gp0(cpu); }

// --- FS and GS base, AC.

bool swapgs(Cpu& cpu, const Step*) {
  std::swap(cpu.state.segments[x86::kGs].base, cpu.state.kernel_gs_base);
  cpu.window[x86::kGs].base = cpu.state.segments[x86::kGs].base;
  return true;
}

template <SegmentIndex segment>
bool read_base(Cpu& cpu, const Step* step) {
  if ((cpu.state.cr4 & x86::kCr4Fsgsbase) == 0) return cpu.raise(x86::kInvalidOpcode);
  write_gpr(cpu, step->insn.rm, step->insn.operand_size == 8 ? 8 : 4, cpu.state.segments[segment].base);
  return true;
}

template <SegmentIndex segment>
bool write_base(Cpu& cpu, const Step* step) {
  if ((cpu.state.cr4 & x86::kCr4Fsgsbase) == 0) return cpu.raise(x86::kInvalidOpcode);
  uint64_t value = cpu.gpr[step->insn.rm];
  if (step->insn.operand_size != 8) value = static_cast<uint32_t>(value);
  if (!x86::is_canonical(value)) return raise_gp0(cpu);
  cpu.state.segments[segment].base = value;
  cpu.window[segment].base = value;
  return true;
}

/// CLAC and STAC are #UD above CPL 0, not #GP (SDM Vol. 2, CLAC).
template <bool set>
void change_ac(Cpu& cpu, const Step* step) {
  if (cpu.cpl != 0) return cpu.fault(step, x86::kInvalidOpcode);
  cpu.system_flags = set ? cpu.system_flags | x86::kAc : cpu.system_flags & ~uint64_t{x86::kAc};
  update_tlb_mode(cpu);
  cpu.code_context_changed();
  return next(cpu, step);
}

// --- Waiting, caches, ordering, hypercalls.

bool hlt(Cpu& cpu, const Step*) {
  cpu.state.activity = x86::Activity::kHalted;
  cpu.request_event_check();
  return true;
}

/// Guest memory is coherent: writing a line back or dropping it changes nothing. The address is checked like a load's.
bool flush_line(Cpu& cpu, const Step* step) {
  return probe_load(cpu, memory_segment(step), cpu.effective_offset(step), 1);
}

bool nothing(Cpu&, const Step*) { return true; }

bool mfence(Cpu&, const Step*) {
  full_fence();
  return true;
}

/// VMCALL and VMMCALL without a hypervisor interface are #UD, as without VMX and SVM.
bool hypercall(Cpu& cpu, const Step*) {
  return cpu.io->hypercall(std::span<uint64_t, 16>(cpu.gpr, 16), cpu.cpl) || cpu.raise(x86::kInvalidOpcode);
}

bool undefined(Cpu& cpu, const Step*) { return cpu.raise(x86::kInvalidOpcode); }

Handler descriptor_handler(Op op) {
  switch (op) {
    case Op::kMovToSeg: return leaving<mov_to_segment>;
    case Op::kMovFromSeg: return continuing<mov_from_segment>;
    case Op::kPushSeg: return continuing<push_segment>;
    case Op::kPopSeg: return leaving<pop_segment>;
    case Op::kLds:
    case Op::kLes:
    case Op::kLfs:
    case Op::kLgs:
    case Op::kLss: return leaving<load_far_pointer>;
    case Op::kLldt: return leaving<lldt>;
    case Op::kLtr: return leaving<ltr>;
    case Op::kSldt: return continuing<sldt>;
    case Op::kStr: return continuing<str>;
    case Op::kLar: return continuing<lar>;
    case Op::kLsl: return continuing<lsl>;
    case Op::kVerr: return continuing<verr>;
    case Op::kVerw: return continuing<verw>;
    case Op::kArpl: return continuing<arpl>;
    case Op::kLgdt: return leaving<lgdt>;
    case Op::kLidt: return leaving<lidt>;
    case Op::kSgdt: return continuing<sgdt>;
    case Op::kSidt: return continuing<sidt>;
    default: return nullptr;
  }
}

Handler transfer_handler(Op op) {
  switch (op) {
    case Op::kJmpFar: return transferring<jmp_far>;
    case Op::kCallFar: return transferring<call_far>;
    case Op::kRetFar: return transferring<ret_far>;
    case Op::kIret: return transferring<iret>;
    case Op::kSyscall: return transferring<syscall>;
    case Op::kSysret: return transferring<sysret>;
    case Op::kSysenter: return transferring_unchecked<sysenter>;
    case Op::kSysexit: return transferring_unchecked<sysexit>;
    case Op::kRsm: return leaving<undefined>;  // outside SMM, which does not exist here
    case Op::kVmcall:
    case Op::kVmmcall: return leaving<hypercall>;
    case Op::kIn: return continuing<in>;
    case Op::kOut: return continuing<out>;
    case Op::kIns: return ins;
    case Op::kOuts: return outs;
    default: return nullptr;
  }
}

Handler control_handler(Op op) {
  switch (op) {
    case Op::kMovFromCr: return continuing<mov_from_cr>;
    case Op::kMovToCr: return leaving<mov_to_cr>;
    case Op::kMovFromDr: return mov_from_dr;
    case Op::kMovToDr: return mov_to_dr;
    case Op::kClts: return leaving<clts>;
    case Op::kLmsw: return leaving<lmsw>;
    case Op::kSmsw: return continuing<smsw>;
    case Op::kInvlpg: return leaving<invlpg>;
    case Op::kInvpcid: return leaving<invpcid>;
    case Op::kXgetbv: return continuing<xgetbv>;
    case Op::kXsetbv: return leaving<xsetbv>;
    case Op::kRdmsr: return continuing<rdmsr>;
    case Op::kWrmsr: return leaving<wrmsr>;
    case Op::kHlt: return leaving<hlt>;
    default: return nullptr;
  }
}

Handler small_handler(Op op) {
  switch (op) {
    case Op::kCpuid: return leaving<cpuid>;
    case Op::kRdtsc: return continuing<rdtsc>;
    case Op::kRdtscp: return continuing<rdtscp>;
    case Op::kRdpid: return continuing<rdpid>;
    case Op::kRdpmc: return continuing<rdpmc>;
    case Op::kSwapgs: return continuing<swapgs>;
    case Op::kRdfsbase: return continuing<read_base<x86::kFs>>;
    case Op::kRdgsbase: return continuing<read_base<x86::kGs>>;
    case Op::kWrfsbase: return continuing<write_base<x86::kFs>>;
    case Op::kWrgsbase: return continuing<write_base<x86::kGs>>;
    case Op::kClac: return change_ac<false>;
    case Op::kStac: return change_ac<true>;
    case Op::kClflush:
    case Op::kClflushopt:
    case Op::kClwb: return continuing<flush_line>;
    case Op::kInvd:
    case Op::kWbinvd: return leaving<nothing>;
    case Op::kSerialize: return leaving<mfence>;
    case Op::kMfence: return continuing<mfence>;
    case Op::kLfence:
    case Op::kSfence: return continuing<nothing>;
    default: return nullptr;
  }
}

}  // namespace

Handler system_handler(const Insn& insn, x86::CodeSize) {
  const Op op = insn.row->op;
  if (const Handler handler = descriptor_handler(op)) return handler;
  if (const Handler handler = transfer_handler(op)) return handler;
  if (const Handler handler = control_handler(op)) return handler;
  return small_handler(op);
}

void system_attach(Cpu& cpu) {
  cpu.limits = x86::cpu_limits(cpu.cpuid);
  cpu.features = x86::exposed_features(cpu.cpuid);
  // VMCALL and VMMCALL are the hypercalls of a guest that sees neither VMX nor SVM. The rest of both sets has no
  // handler, which is #UD.
  cpu.features.set(static_cast<size_t>(x86::Feature::kVmx));
  cpu.features.set(static_cast<size_t>(x86::Feature::kSvm));
}

}  // namespace tenon::interp
