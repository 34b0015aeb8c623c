// Segment descriptors: reading them from GDT and LDT, checking them, and loading segment registers.
//
// Functions return false with a fault pending; nothing has then changed. Selector faults carry the selector without RPL
// as error code (SDM Vol. 3 6.13); event delivery adds EXT itself.
// Source: Intel SDM Vol. 3 chapters 3.4, 3.5, 5.
#pragma once

#include "base/bits.hh"
#include "engine/interp/cpu.hh"

namespace tenon::interp {

/// A selector's parts (SDM Vol. 3 3.4.2).
constexpr bool selector_is_null(uint16_t selector) { return (selector & ~3u) == 0; }
constexpr unsigned selector_rpl(uint16_t selector) { return selector & 3u; }
constexpr bool selector_is_local(uint16_t selector) { return (selector & 4u) != 0; }
constexpr uint32_t selector_error(uint16_t selector) { return selector & 0xfffcu; }

// clang-format off
/// Types of system descriptors (SDM Vol. 3 Table 3-2).
enum SystemType : uint8_t {
  kTss16Available = 1, kLdt = 2, kTss16Busy = 3, kCallGate16 = 4, kTaskGate = 5, kInterruptGate16 = 6, kTrapGate16 = 7,
  kTss32Available = 9, kTss32Busy = 11, kCallGate32 = 12, kInterruptGate32 = 14, kTrapGate32 = 15,
};
// clang-format on

/// A descriptor as it stands in memory: 8 bytes, or 16 for system descriptors in IA-32e mode.
struct Descriptor {
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t address = 0;  // linear, of `low`
  uint16_t selector = 0;

  unsigned type() const { return static_cast<unsigned>(Bits<43, 40>::get(low)); }
  bool is_code_or_data() const { return Bit<44>::test(low); }
  unsigned dpl() const { return static_cast<unsigned>(Bits<46, 45>::get(low)); }
  bool present() const { return Bit<47>::test(low); }
  bool is_long() const { return Bit<53>::test(low); }
  bool is_big() const { return Bit<54>::test(low); }
  bool is_code() const { return is_code_or_data() && (type() & 8) != 0; }
  bool is_conforming_code() const { return is_code() && (type() & 4) != 0; }
  bool is_readable() const { return is_code_or_data() && ((type() & 8) == 0 || (type() & 2) != 0); }
  bool is_writable_data() const { return is_code_or_data() && (type() & 8) == 0 && (type() & 2) != 0; }
  bool is_system(SystemType wanted) const { return !is_code_or_data() && type() == wanted; }

  /// The descriptor cache for it; 64-bit base from `high` for system descriptors in IA-32e mode.
  x86::Segment to_segment() const;
};

/// A call, interrupt, trap or task gate (SDM Vol. 3 Figures 5-8, 5-9, 6-2, 6-8).
struct Gate {
  uint16_t selector = 0;
  uint64_t offset = 0;
  unsigned type = 0;
  unsigned dpl = 0;
  bool present = false;
  unsigned parameter_count = 0;  // call gates outside IA-32e mode
  unsigned stack_table = 0;      // IST index; interrupt gates in IA-32e mode
};

Gate unpack_gate(uint64_t low, uint64_t high, bool ia32e);

bool in_protected_mode(const Cpu& cpu);  // PE, not virtual-8086
bool in_virtual_8086(const Cpu& cpu);
bool in_ia32e_mode(const Cpu& cpu);  // EFER.LMA

/// The parts of update_mode() that a data segment load and a change of EFLAGS.AC need.
void update_window(Cpu& cpu, SegmentIndex segment);
void update_tlb_mode(Cpu& cpu);

/// Looks for a descriptor without a fault where there is none: LAR, LSL, VERR, VERW. False: the read itself faulted.
bool find_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out, bool& found);
/// Reads the descriptor that a non-null `selector` names. Outside the table's limit: `number`(selector).
bool read_descriptor(Cpu& cpu, uint16_t selector, x86::Vector number, Descriptor& out);
/// The upper half of a 16-byte descriptor; its type field must be 0, else `number`(selector) (SDM Vol. 3 5.8.3.1).
bool read_descriptor_high(Cpu& cpu, x86::Vector number, Descriptor& descriptor);
/// Sets the accessed bit of a code or data descriptor in its table, and in `descriptor`.
bool mark_accessed(Cpu& cpu, Descriptor& descriptor);

/// What loading SS must satisfy; the faults differ by instruction (MOV: #GP; stack switch: #TS).
bool check_stack_descriptor(Cpu& cpu, const Descriptor& descriptor, unsigned cpl, x86::Vector number);
/// MOV, POP, LDS...: loads a data or stack segment register in any mode.
bool load_segment(Cpu& cpu, SegmentIndex segment, uint16_t selector);

/// Register contents for real and virtual-8086 mode (SDM Vol. 3 21.1.1, 21.2.1).
void set_real_segment(Cpu& cpu, SegmentIndex segment, uint16_t selector);
void set_virtual_8086_segment(Cpu& cpu, SegmentIndex segment, uint16_t selector);
/// A null selector in a data segment register, or in SS in 64-bit mode, where `dpl` is kept as the CPL.
x86::Segment null_segment(uint16_t selector, unsigned dpl = 0);
/// After a return to an outer level: ES, DS, FS, GS that the new CPL may not use become null (SDM Vol. 2, IRET and
/// RET).
void drop_privileged_segments(Cpu& cpu);

}  // namespace tenon::interp
