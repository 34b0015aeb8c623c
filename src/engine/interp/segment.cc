#include "engine/interp/segment.hh"

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/memory.hh"

namespace tenon::interp {

using x86::kCs;
using x86::kSs;
using x86::Segment;

bool in_virtual_8086(const Cpu& cpu) { return (cpu.system_flags & x86::kVm) != 0; }

bool in_protected_mode(const Cpu& cpu) { return (cpu.state.cr0 & x86::kCr0Pe) != 0 && !in_virtual_8086(cpu); }

bool in_ia32e_mode(const Cpu& cpu) { return (cpu.state.efer & x86::kEferLma) != 0; }

Segment Descriptor::to_segment() const {
  Segment segment;
  segment.selector = selector;
  segment.base = Bits<39, 16>::get(low) | Bits<63, 56>::get(low) << 24;
  if (!is_code_or_data()) segment.base |= high << 32;
  auto limit = static_cast<uint32_t>(Bits<15, 0>::get(low) | Bits<51, 48>::get(low) << 16);
  if (Bit<55>::test(low)) limit = limit << 12 | 0xfff;
  segment.limit = limit;
  segment.attributes = static_cast<uint32_t>((low >> 40) & 0xf0ff);
  return segment;
}

Gate unpack_gate(uint64_t low, uint64_t high, bool ia32e) {
  Gate gate;
  gate.selector = static_cast<uint16_t>(Bits<31, 16>::get(low));
  gate.type = static_cast<unsigned>(Bits<44, 40>::get(low));  // with S: a set S matches no gate type
  gate.dpl = static_cast<unsigned>(Bits<46, 45>::get(low));
  gate.present = Bit<47>::test(low);
  gate.offset = Bits<15, 0>::get(low);
  const bool narrow = gate.type == kCallGate16 || gate.type == kInterruptGate16 || gate.type == kTrapGate16;
  if (!narrow) gate.offset |= Bits<63, 48>::get(low) << 16;
  if (ia32e) {
    gate.offset |= (high & 0xffffffff) << 32;
    gate.stack_table = static_cast<unsigned>(Bits<34, 32>::get(low));
  } else {
    gate.parameter_count = static_cast<unsigned>(Bits<36, 32>::get(low));
  }
  return gate;
}

bool find_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out, bool& found) {
  const bool local = selector_is_local(selector);
  const uint64_t base = local ? cpu.state.ldtr.base : cpu.state.gdtr.base;
  const uint64_t limit = local ? cpu.state.ldtr.limit : cpu.state.gdtr.limit;
  const uint64_t offset = selector & 0xfff8u;
  found = offset + 7 <= limit && !(local && cpu.state.ldtr.unusable());
  if (!found) return true;
  out = Descriptor{};
  out.selector = selector;
  out.address = base + offset;
  return cpu.load_linear(out.address, out.low, Privilege::kSupervisor);
}

bool read_descriptor(Cpu& cpu, uint16_t selector, x86::Vector number, Descriptor& out) {
  bool found = false;
  if (!find_descriptor(cpu, selector, out, found)) return false;
  return found || cpu.raise(number, selector_error(selector));
}

bool read_descriptor_high(Cpu& cpu, x86::Vector number, Descriptor& descriptor) {
  const bool local = selector_is_local(descriptor.selector);
  const uint64_t limit = local ? cpu.state.ldtr.limit : cpu.state.gdtr.limit;
  if ((descriptor.selector & 0xfff8u) + uint64_t{15} > limit) {
    return cpu.raise(number, selector_error(descriptor.selector));
  }
  if (!cpu.load_linear(descriptor.address + 8, descriptor.high, Privilege::kSupervisor)) return false;
  if (Bits<44, 40>::test(descriptor.high)) return cpu.raise(number, selector_error(descriptor.selector));
  descriptor.high &= 0xffffffff;
  return true;
}

bool mark_accessed(Cpu& cpu, Descriptor& descriptor) {
  if ((descriptor.type() & 1) != 0) return true;
  const auto rights = static_cast<uint8_t>(Bits<47, 40>::get(descriptor.low) | 1);
  if (!cpu.store_linear(descriptor.address + 5, rights, Privilege::kSupervisor)) return false;
  descriptor.low |= Bit<40>::kMask;
  return true;
}

bool check_stack_descriptor(Cpu& cpu, const Descriptor& descriptor, unsigned cpl, x86::Vector number) {
  const uint32_t error = selector_error(descriptor.selector);
  if (selector_rpl(descriptor.selector) != cpl || descriptor.dpl() != cpl || !descriptor.is_writable_data()) {
    return cpu.raise(number, error);
  }
  if (!descriptor.present()) return cpu.raise(x86::kStackFault, error);
  return true;
}

Segment null_segment(uint16_t selector, unsigned dpl) {
  return Segment{.base = 0, .limit = 0, .attributes = Segment::kUnusable | dpl << 5, .selector = selector};
}

void set_real_segment(Cpu& cpu, SegmentIndex segment, uint16_t selector) {
  Segment& cache = cpu.state.segments[segment];
  cache.selector = selector;
  cache.base = uint64_t{selector} << 4;
  // Limit, G and D/B stay ("unreal" mode); the rest becomes present, writable data, accessed.
  cache.attributes = (cache.attributes & 0xf000) | 0x93;
}

void set_virtual_8086_segment(Cpu& cpu, SegmentIndex segment, uint16_t selector) {
  cpu.state.segments[segment] =
      Segment{.base = uint64_t{selector} << 4, .limit = 0xffff, .attributes = 0xf3, .selector = selector};
}

namespace {

bool load_null(Cpu& cpu, SegmentIndex segment, uint16_t selector) {
  // SDM Vol. 3 3.4.2, Vol. 2 MOV: SS takes a null selector only in 64-bit mode at CPL 0-2 with RPL = CPL.
  if (segment == kSs) {
    if (!cpu.in_long_mode || cpu.cpl == 3 || selector_rpl(selector) != cpu.cpl) {
      return cpu.raise(x86::kGeneralProtection, 0);
    }
  }
  cpu.state.segments[segment] = null_segment(selector, segment == kSs ? cpu.cpl : 0);
  return true;
}

/// SDM Vol. 2, MOV, "Loading a segment register while in protected mode".
bool check_data_descriptor(Cpu& cpu, const Descriptor& descriptor) {
  const uint32_t error = selector_error(descriptor.selector);
  if (!descriptor.is_readable()) return cpu.raise(x86::kGeneralProtection, error);
  const unsigned rpl = selector_rpl(descriptor.selector);
  if (!descriptor.is_conforming_code() && (rpl > descriptor.dpl() || cpu.cpl > descriptor.dpl())) {
    return cpu.raise(x86::kGeneralProtection, error);
  }
  if (!descriptor.present()) return cpu.raise(x86::kSegmentNotPresent, error);
  return true;
}

}  // namespace

bool load_segment(Cpu& cpu, SegmentIndex segment, uint16_t selector) {
  if (in_virtual_8086(cpu)) {
    set_virtual_8086_segment(cpu, segment, selector);
    return true;
  }
  if (!in_protected_mode(cpu)) {
    set_real_segment(cpu, segment, selector);
    return true;
  }
  if (selector_is_null(selector)) return load_null(cpu, segment, selector);
  Descriptor descriptor;
  if (!read_descriptor(cpu, selector, x86::kGeneralProtection, descriptor)) return false;
  if (segment == kSs) {
    if (!check_stack_descriptor(cpu, descriptor, cpu.cpl, x86::kGeneralProtection)) return false;
  } else if (!check_data_descriptor(cpu, descriptor)) {
    return false;
  }
  if (!mark_accessed(cpu, descriptor)) return false;
  cpu.state.segments[segment] = descriptor.to_segment();
  return true;
}

void drop_privileged_segments(Cpu& cpu) {
  for (const SegmentIndex index : {x86::kEs, x86::kDs, x86::kFs, x86::kGs}) {
    Segment& segment = cpu.state.segments[index];
    const bool conforming_code = (segment.type() & 0xc) == 0xc;
    if (segment.unusable() || conforming_code || segment.dpl() >= cpu.cpl) continue;
    segment = null_segment(0);
  }
}

// --- Derived state.

namespace {

SegmentWindow make_window(const Cpu& cpu, SegmentIndex index) {
  const Segment& segment = cpu.state.segments[index];
  if (cpu.in_long_mode) {
    const bool based = index >= x86::kFs;
    return SegmentWindow{.base = based ? segment.base : 0, .read_end = ~uint64_t{0}, .write_end = ~uint64_t{0}};
  }
  SegmentWindow window{.base = segment.base, .read_end = 0, .write_end = 0};
  const uint64_t end = uint64_t{segment.limit} + 1;
  if (!in_protected_mode(cpu)) {
    window.read_end = window.write_end = end;
    return window;
  }
  const bool code = (segment.type() & 8) != 0;
  const bool expand_down = !code && (segment.type() & 4) != 0;
  const bool read_write_bit = (segment.type() & 2) != 0;
  if (segment.unusable() || expand_down) return window;
  if (!code || read_write_bit) window.read_end = end;
  if (!code && read_write_bit) window.write_end = end;
  return window;
}

Cpu::TlbMode choose_tlb_mode(const Cpu& cpu) {
  const bool ac = (cpu.system_flags & x86::kAc) != 0;
  if (data_breakpoints_armed(cpu.state)) return Cpu::kTlbNever;
  if (cpu.cpl == 3) return ac && (cpu.state.cr0 & x86::kCr0Am) != 0 ? Cpu::kTlbNever : Cpu::kTlbUser;
  return cpu.paging.smap && !ac ? Cpu::kTlbSupervisor : Cpu::kTlbSupervisorUser;
}

}  // namespace

void update_window(Cpu& cpu, SegmentIndex segment) { cpu.window[segment] = make_window(cpu, segment); }

void update_tlb_mode(Cpu& cpu) {
  cpu.tlb_mode = choose_tlb_mode(cpu);
  cpu.tlb_read = cpu.tlb.table(cpu.tlb_mode, false);
  cpu.tlb_write = cpu.tlb.table(cpu.tlb_mode, true);
}

void Cpu::update_level() {
  cpl = static_cast<uint8_t>(state.segments[kSs].dpl());
  update_tlb_mode(*this);
  code_context_changed();
}

void Cpu::update_mode() {
  const Segment& code = state.segments[kCs];
  const Segment& stack = state.segments[kSs];
  paging = x86::paging_mode(state, limits.physical_bits, limits.gigabyte_pages);
  const bool protected_mode = (state.cr0 & x86::kCr0Pe) != 0;
  const bool virtual_8086 = (system_flags & x86::kVm) != 0;
  in_long_mode = (state.efer & x86::kEferLma) != 0 && code.is_long();
  cpl = static_cast<uint8_t>(!protected_mode ? 0 : virtual_8086 ? 3 : stack.dpl());
  code_size = in_long_mode ? x86::CodeSize::k64 : code.is_big() ? x86::CodeSize::k32 : x86::CodeSize::k16;
  stack_address_size = static_cast<uint8_t>(in_long_mode ? 8 : stack.is_big() ? 4 : 2);
  linear_mask = in_long_mode ? ~uint64_t{0} : 0xffffffff;
  code_base = in_long_mode ? 0 : code.base;
  update_tlb_mode(*this);
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) update_window(*this, static_cast<SegmentIndex>(i));
  code_context_changed();
}

}  // namespace tenon::interp
