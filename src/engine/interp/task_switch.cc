#include "engine/interp/task_switch.hh"

#include <array>

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/memory.hh"

namespace tenon::interp {
namespace {

using x86::kCs;
using x86::kSs;

/// Byte offsets in a TSS (SDM Vol. 3 Figures 8-2 and 8-10).
struct TssLayout {
  unsigned size_bytes;  // the least limit is one less
  unsigned word;        // 4 or 2
  unsigned cr3;         // 0: none
  unsigned ip;          // then flags and the eight general registers, each `word` bytes
  unsigned selectors;   // ES, CS, SS, DS (FS, GS), each in `word` bytes
  unsigned selector_count;
  unsigned ldt;
};
constexpr TssLayout kTss32 = {
    .size_bytes = 104, .word = 4, .cr3 = 0x1c, .ip = 0x20, .selectors = 0x48, .selector_count = 6, .ldt = 0x60};
constexpr TssLayout kTss16 = {
    .size_bytes = 44, .word = 2, .cr3 = 0, .ip = 0x0e, .selectors = 0x22, .selector_count = 4, .ldt = 0x2a};
constexpr unsigned kTss32TrapWord = 0x64;
constexpr unsigned kTss32IoBase = 0x66;
constexpr unsigned kTssGprCount = 8;

const TssLayout& layout_of(unsigned type) { return (type & 8) != 0 ? kTss32 : kTss16; }

/// What a TSS holds of a task.
struct TaskImage {
  uint64_t cr3 = 0;
  uint64_t ip = 0;
  uint64_t flags = 0;
  std::array<uint64_t, kTssGprCount> gpr{};
  std::array<uint16_t, x86::kSegmentCount> selectors{};
  uint16_t ldt = 0;
  bool trap = false;
};

bool load_word(Cpu& cpu, uint64_t linear, unsigned size_bytes, uint64_t& out) {
  out = 0;
  return cpu.load_linear_slow(linear, &out, size_bytes, Privilege::kSupervisor);
}

bool load_image(Cpu& cpu, uint64_t base, const TssLayout& layout, TaskImage& image) {
  if (layout.cr3 != 0 && !load_word(cpu, base + layout.cr3, layout.word, image.cr3)) return false;
  uint64_t at = base + layout.ip;
  if (!load_word(cpu, at, layout.word, image.ip)) return false;
  if (!load_word(cpu, at += layout.word, layout.word, image.flags)) return false;
  for (uint64_t& value : image.gpr) {
    if (!load_word(cpu, at += layout.word, layout.word, value)) return false;
  }
  for (unsigned i = 0; i < layout.selector_count; ++i) {
    if (!cpu.load_linear(base + layout.selectors + i * layout.word, image.selectors[i], Privilege::kSupervisor)) {
      return false;
    }
  }
  if (!cpu.load_linear(base + layout.ldt, image.ldt, Privilege::kSupervisor)) return false;
  if (layout.word == 2) return true;
  uint16_t trap = 0;
  if (!cpu.load_linear(base + kTss32TrapWord, trap, Privilege::kSupervisor)) return false;
  image.trap = (trap & 1) != 0;
  return true;
}

/// Step 7 of SDM Vol. 3 8.3. probe_save() has made sure that nothing here can fault.
void save_image(Cpu& cpu, uint64_t base, const TssLayout& layout, uint64_t flags) {
  uint64_t at = base + layout.ip;
  const auto put = [&](uint64_t value) {
    cpu.store_linear_slow(at, &value, layout.word, Privilege::kSupervisor);
    at += layout.word;
  };
  put(cpu.rip);
  put(flags);
  for (unsigned i = 0; i < kTssGprCount; ++i) put(cpu.gpr[i]);
  for (unsigned i = 0; i < layout.selector_count; ++i) {
    cpu.store_linear(base + layout.selectors + i * layout.word, cpu.state.segments[i].selector, Privilege::kSupervisor);
  }
}

bool probe_save(Cpu& cpu, uint64_t base, const TssLayout& layout) {
  const uint64_t first = base + layout.ip;
  const unsigned size_bytes = layout.selectors + layout.selector_count * layout.word - layout.ip;
  return probe_linear_store(cpu, first, size_bytes, Privilege::kSupervisor);
}

bool set_busy(Cpu& cpu, uint64_t descriptor_address, bool busy) {
  uint8_t rights = 0;
  if (!cpu.load_linear(descriptor_address + 5, rights, Privilege::kSupervisor)) return false;
  rights = static_cast<uint8_t>(busy ? rights | 2 : rights & ~2);
  return cpu.store_linear(descriptor_address + 5, rights, Privilege::kSupervisor);
}

// --- Loading the new task (SDM Vol. 3 8.3, steps 11 and 12; Table 8-1 for the faults).

bool load_task_ldt(Cpu& cpu, uint16_t selector) {
  cpu.state.ldtr = null_segment(selector);
  if (selector_is_null(selector)) return true;
  if (selector_is_local(selector)) return cpu.raise(x86::kInvalidTss, selector_error(selector));
  Descriptor ldt;
  if (!read_descriptor(cpu, selector, x86::kInvalidTss, ldt)) return false;
  if (!ldt.is_system(kLdt) || !ldt.present()) return cpu.raise(x86::kInvalidTss, selector_error(selector));
  cpu.state.ldtr = ldt.to_segment();
  return true;
}

bool load_task_code(Cpu& cpu, uint16_t selector) {
  const uint32_t error = selector_error(selector);
  if (selector_is_null(selector)) return cpu.raise(x86::kInvalidTss, error);
  Descriptor code;
  if (!read_descriptor(cpu, selector, x86::kInvalidTss, code)) return false;
  const unsigned rpl = selector_rpl(selector);
  const bool level_ok = code.is_conforming_code() ? code.dpl() <= rpl : code.dpl() == rpl;
  if (!code.is_code() || !level_ok) return cpu.raise(x86::kInvalidTss, error);
  if (!code.present()) return cpu.raise(x86::kSegmentNotPresent, error);
  if (!mark_accessed(cpu, code)) return false;
  cpu.state.segments[kCs] = code.to_segment();
  return true;
}

bool load_task_stack(Cpu& cpu, uint16_t selector, unsigned cpl) {
  if (selector_is_null(selector)) return cpu.raise(x86::kInvalidTss, selector_error(selector));
  Descriptor stack;
  if (!read_descriptor(cpu, selector, x86::kInvalidTss, stack)) return false;
  if (!check_stack_descriptor(cpu, stack, cpl, x86::kInvalidTss) || !mark_accessed(cpu, stack)) return false;
  cpu.state.segments[kSs] = stack.to_segment();
  return true;
}

bool load_task_data(Cpu& cpu, SegmentIndex index, uint16_t selector, unsigned cpl) {
  if (selector_is_null(selector)) return true;
  const uint32_t error = selector_error(selector);
  Descriptor data;
  if (!read_descriptor(cpu, selector, x86::kInvalidTss, data)) return false;
  const bool level_ok = data.is_conforming_code() || (data.dpl() >= cpl && data.dpl() >= selector_rpl(selector));
  if (!data.is_readable() || !level_ok) return cpu.raise(x86::kInvalidTss, error);
  if (!data.present()) return cpu.raise(x86::kSegmentNotPresent, error);
  if (!mark_accessed(cpu, data)) return false;
  cpu.state.segments[index] = data.to_segment();
  return true;
}

bool load_task_segments(Cpu& cpu, const TaskImage& image) {
  if (!load_task_ldt(cpu, image.ldt)) return false;
  if ((image.flags & x86::kVm) != 0) {
    for (unsigned i = 0; i < x86::kSegmentCount; ++i) {
      set_virtual_8086_segment(cpu, static_cast<SegmentIndex>(i), image.selectors[i]);
    }
    return true;
  }
  const unsigned cpl = selector_rpl(image.selectors[kCs]);
  if (!load_task_code(cpu, image.selectors[kCs]) || !load_task_stack(cpu, image.selectors[kSs], cpl)) return false;
  for (const SegmentIndex index : {x86::kEs, x86::kDs, x86::kFs, x86::kGs}) {
    if (!load_task_data(cpu, index, image.selectors[index], cpl)) return false;
  }
  return true;
}

/// Registers that load without checks, and segment registers as selectors without descriptors.
bool enter_task(Cpu& cpu, const TaskImage& image, const TssLayout& layout, uint64_t flags) {
  for (unsigned i = 0; i < kTssGprCount; ++i) cpu.gpr[i] = image.gpr[i];
  cpu.rip = image.ip;
  const unsigned cpl = (flags & x86::kVm) != 0 ? 3 : selector_rpl(image.selectors[kCs]);
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) {
    cpu.state.segments[i] = null_segment(image.selectors[i], i == kSs ? cpl : 0);
  }
  cpu.state.cr0 |= x86::kCr0Ts;
  constexpr uint64_t kLocalEnables = 0x155;  // L0-L3, LE (SDM Vol. 3 18.2.4)
  cpu.state.dr7 &= ~kLocalEnables;
  cpu.shadow = Cpu::Shadow::kNone;
  constexpr uint64_t kLoadable = x86::kArithmeticFlags | x86::kTf | x86::kIf | x86::kDf | x86::kIopl | x86::kNt |
                                 x86::kRf | x86::kVm | x86::kAc | x86::kVif | x86::kVip | x86::kId;
  cpu.set_rflags((flags & kLoadable) | x86::kFlagsOne);
  bool pdptes_ok = true;
  if (layout.cr3 != 0 && (cpu.state.cr0 & x86::kCr0Pg) != 0) {
    cpu.state.cr3 = image.cr3;
    if (cpu.paging.kind == x86::PagingKind::kPae) {
      pdptes_ok = x86::load_pdptes(*cpu.memory, image.cr3, cpu.limits.physical_bits, cpu.state.pdpte);
    }
    cpu.flush_tlb(true);
  }
  cpu.update_mode();
  return pdptes_ok || cpu.raise(x86::kGeneralProtection, 0);
}

bool check_tss_selector(Cpu& cpu, uint16_t selector, x86::Vector number, Descriptor& tss) {
  if (selector_is_null(selector) || selector_is_local(selector)) return cpu.raise(number, selector_error(selector));
  return read_descriptor(cpu, selector, number, tss);
}

}  // namespace

bool switch_task(Cpu& cpu, Descriptor tss, TaskSwitch reason, uint64_t saved_flags) {
  const TssLayout& old_layout = layout_of(cpu.state.tr.type());
  const TssLayout& new_layout = layout_of(tss.type());
  const x86::Segment old_task = cpu.state.tr;
  x86::Segment new_task = tss.to_segment();
  if (new_task.limit < new_layout.size_bytes - 1) return cpu.raise(x86::kInvalidTss, selector_error(tss.selector));

  // Everything that is read or written before the commit point is tried first (8.3, step 6).
  TaskImage image;
  const bool nests = reason == TaskSwitch::kCall || reason == TaskSwitch::kInterrupt;
  if (!load_image(cpu, new_task.base, new_layout, image)) return false;
  if (!probe_save(cpu, old_task.base, old_layout)) return false;
  if (nests && !probe_linear_store(cpu, new_task.base, 2, Privilege::kSupervisor)) return false;
  const uint64_t old_descriptor = cpu.state.gdtr.base + (old_task.selector & 0xfff8u);
  if (!nests && !set_busy(cpu, old_descriptor, false)) return false;
  if (reason != TaskSwitch::kReturn && !set_busy(cpu, tss.address, true)) return false;

  if (reason == TaskSwitch::kReturn) saved_flags &= ~x86::kNt;
  save_image(cpu, old_task.base, old_layout, saved_flags);
  uint64_t flags = image.flags;
  if (nests) {
    cpu.store_linear(new_task.base, old_task.selector, Privilege::kSupervisor);
    flags |= x86::kNt;
  }
  new_task.attributes |= 2;  // busy
  cpu.state.tr = new_task;
  if (!enter_task(cpu, image, new_layout, flags)) return false;
  const bool loaded = load_task_segments(cpu, image);
  cpu.update_mode();
  if (!loaded) return false;
  if (cpu.rip > cpu.state.segments[kCs].limit) return cpu.raise(x86::kGeneralProtection, 0);
  constexpr uint32_t kTaskSwitchHit = 1u << 15;  // DR6.BT
  if (image.trap) cpu.note_debug_hit(kTaskSwitchHit);
  return true;
}

bool switch_task_by_selector(Cpu& cpu, uint16_t selector, TaskSwitch reason, uint64_t saved_flags) {
  Descriptor tss;
  if (!check_tss_selector(cpu, selector, x86::kGeneralProtection, tss)) return false;
  if (!tss.is_system(kTss16Available) && !tss.is_system(kTss32Available)) {
    return cpu.raise(x86::kGeneralProtection, selector_error(selector));
  }
  if (!tss.present()) return cpu.raise(x86::kSegmentNotPresent, selector_error(selector));
  return switch_task(cpu, tss, reason, saved_flags);
}

bool return_to_previous_task(Cpu& cpu) {
  uint16_t link = 0;
  if (!cpu.load_linear(cpu.state.tr.base, link, Privilege::kSupervisor)) return false;
  Descriptor tss;
  if (!check_tss_selector(cpu, link, x86::kInvalidTss, tss)) return false;
  if (!tss.is_system(kTss16Busy) && !tss.is_system(kTss32Busy)) {
    return cpu.raise(x86::kInvalidTss, selector_error(link));
  }
  if (!tss.present()) return cpu.raise(x86::kSegmentNotPresent, selector_error(link));
  return switch_task(cpu, tss, TaskSwitch::kReturn, cpu.rflags());
}

// --- Parts of the TSS that other transfers read.

bool read_inner_stack(Cpu& cpu, unsigned cpl, x86::Segment& stack, uint64_t& esp) {
  const x86::Segment& task = cpu.state.tr;
  const bool wide = (task.type() & 8) != 0;
  // SDM Vol. 2, CALL: "TSSstackAddress + 5 > current TSS limit", + 3 for a 16-bit TSS.
  const unsigned offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
  const unsigned last = offset + (wide ? 5 : 3);
  if (last > task.limit) return cpu.raise(x86::kInvalidTss, selector_error(task.selector));
  if (!load_word(cpu, task.base + offset, wide ? 4 : 2, esp)) return false;
  uint16_t selector = 0;
  if (!cpu.load_linear(task.base + offset + (wide ? 4 : 2), selector, Privilege::kSupervisor)) return false;
  if (selector_is_null(selector)) return cpu.raise(x86::kInvalidTss, 0);
  Descriptor descriptor;
  if (!read_descriptor(cpu, selector, x86::kInvalidTss, descriptor)) return false;
  if (!check_stack_descriptor(cpu, descriptor, cpl, x86::kInvalidTss) || !mark_accessed(cpu, descriptor)) return false;
  stack = descriptor.to_segment();
  return true;
}

bool read_inner_rsp(Cpu& cpu, unsigned slot, uint64_t& rsp) {
  const x86::Segment& task = cpu.state.tr;
  if (slot + 7 > task.limit) return cpu.raise(x86::kInvalidTss, selector_error(task.selector));
  if (!cpu.load_linear(task.base + slot, rsp, Privilege::kSupervisor)) return false;
  if (!x86::is_canonical(rsp)) return cpu.raise(x86::kStackFault, 0);  // SDM Vol. 3 6.14.4
  return true;
}

namespace {

/// The offset of the I/O map in the current TSS, which must be a 32- or 64-bit one.
bool read_io_base(Cpu& cpu, uint16_t& base) {
  const x86::Segment& task = cpu.state.tr;
  const bool wide = !task.unusable() && (task.type() & 8) != 0;
  if (!wide || task.limit < kTss32.size_bytes - 1) return cpu.raise(x86::kGeneralProtection, 0);
  return cpu.load_linear(task.base + kTss32IoBase, base, Privilege::kSupervisor);
}

}  // namespace

bool io_bitmap_allows(Cpu& cpu, uint16_t port, unsigned size_bytes) {
  uint16_t base = 0;
  if (!read_io_base(cpu, base)) return false;
  // Two bytes are always read, so the map needs one beyond its last (SDM Vol. 1 19.5.2).
  const unsigned offset = base + port / 8u;
  if (offset + 1 > cpu.state.tr.limit) return cpu.raise(x86::kGeneralProtection, 0);
  uint16_t bits = 0;
  if (!cpu.load_linear(cpu.state.tr.base + offset, bits, Privilege::kSupervisor)) return false;
  const unsigned wanted = ((1u << size_bytes) - 1) << (port % 8);
  return (bits & wanted) == 0 || cpu.raise(x86::kGeneralProtection, 0);
}

bool read_redirection(Cpu& cpu, uint8_t vector, bool& to_program) {
  constexpr unsigned kRedirectionBytes = 32;
  uint16_t base = 0;
  if (!read_io_base(cpu, base)) return false;
  const unsigned offset = base - kRedirectionBytes + vector / 8u;
  if (base < kRedirectionBytes || offset > cpu.state.tr.limit) return cpu.raise(x86::kGeneralProtection, 0);
  uint8_t bits = 0;
  if (!cpu.load_linear(cpu.state.tr.base + offset, bits, Privilege::kSupervisor)) return false;
  to_program = ((bits >> (vector % 8)) & 1) == 0;
  return true;
}

}  // namespace tenon::interp
