// MOVS, STOS, LODS, SCAS, CMPS with REP, REPE, REPNE (SDM Vol. 2, "REP/REPE/REPZ/REPNE/REPNZ").
//
// One element at a time is always right: rSI, rDI and rCX are committed after each, so a fault or an interrupt finds
// them exact and the instruction is simply executed again. Where DF = 0 and both operands are plain RAM in the TLB, the
// elements up to the nearer page end are done by the host's own repeated instruction, overlap included. Pages with
// decoded code have no write entry, so they go element by element and are noticed.
#include <algorithm>

#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

enum class StringOp : uint8_t { kMovs, kStos, kLods, kScas, kCmps };

constexpr bool uses_source(StringOp op) {
  return op == StringOp::kMovs || op == StringOp::kLods || op == StringOp::kCmps;
}
constexpr bool uses_destination(StringOp op) { return op != StringOp::kLods; }
constexpr bool compares(StringOp op) { return op == StringOp::kScas || op == StringOp::kCmps; }

/// How much one visit does before the run loop looks for interrupts and timers.
constexpr uint64_t kBytesPerVisit = 64 << 10;
constexpr unsigned kElementsPerVisit = 1024;

uint64_t get_index(const Cpu& cpu, const Insn& insn, unsigned number) {
  const uint64_t value = cpu.gpr[number];
  return insn.address_size == 8   ? value
         : insn.address_size == 4 ? static_cast<uint32_t>(value)
                                  : static_cast<uint16_t>(value);
}

void set_index(Cpu& cpu, const Insn& insn, unsigned number, uint64_t value) {
  switch (insn.address_size) {
    case 2: cpu.set_reg<uint16_t>(number, static_cast<uint16_t>(value)); break;
    case 4: cpu.set_reg<uint32_t>(number, static_cast<uint32_t>(value)); break;
    default: cpu.gpr[number] = value; break;
  }
}

void advance(Cpu& cpu, const Insn& insn, unsigned number, uint64_t by) {
  set_index(cpu, insn, number, get_index(cpu, insn, number) + by);
}

template <StringOp op>
void advance_operands(Cpu& cpu, const Insn& insn, uint64_t by) {
  if constexpr (uses_source(op)) advance(cpu, insn, x86::kRsi, by);
  if constexpr (uses_destination(op)) advance(cpu, insn, x86::kRdi, by);
}

/// One element, indices advanced. False: faulted.
template <StringOp op, typename T>
bool one_element(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source = cpu.reg<T>(x86::kRax);
  T other = 0;
  const uint64_t to = get_index(cpu, insn, x86::kRdi);
  // CMPS reads its second operand first: which fault there is where both are missing.
  if constexpr (compares(op)) {
    if (!cpu.load<T>(x86::kEs, to, other)) return false;
  }
  if constexpr (uses_source(op)) {
    if (!cpu.load<T>(segment_of(step), get_index(cpu, insn, x86::kRsi), source)) return false;
  }
  if constexpr (op == StringOp::kMovs || op == StringOp::kStos) {
    if (!cpu.store<T>(x86::kEs, to, source)) return false;
  }
  if constexpr (compares(op)) alu2<Alu::kCmp, T>(source, other, cpu.arithmetic_flags);
  if constexpr (op == StringOp::kLods) cpu.set_reg<T>(x86::kRax, source);
  const bool down = (cpu.system_flags & x86::kDf) != 0;
  advance_operands<op>(cpu, insn, down ? ~uint64_t{sizeof(T)} + 1 : sizeof(T));
  return true;
}

#define TENON_STRING_SIZED(before, after, ...)                              \
  if constexpr (sizeof(T) == 1) asm volatile(before "b" after __VA_ARGS__); \
  if constexpr (sizeof(T) == 2) asm volatile(before "w" after __VA_ARGS__); \
  if constexpr (sizeof(T) == 4) asm volatile(before "l" after __VA_ARGS__); \
  if constexpr (sizeof(T) == 8) asm volatile(before "q" after __VA_ARGS__)

/// The host's repeated instruction on `count` elements at host addresses. Returns how many were done.
template <StringOp op, typename T, bool until_equal>
uint64_t host_repeat(void* from, void* to, uint64_t count, T accumulator, uint16_t& flags) {
  uint64_t left = count;
  if constexpr (op == StringOp::kMovs) {
    TENON_STRING_SIZED("rep movs", "", : "+S"(from), "+D"(to), "+c"(left) : : "memory");
  } else if constexpr (op == StringOp::kStos) {
    TENON_STRING_SIZED("rep stos", "", : "+D"(to), "+c"(left) : "a"(accumulator) : "memory");
  } else if constexpr (op == StringOp::kScas && until_equal) {
    TENON_STRING_SIZED("repne scas", "\n\t" TENON_FLAGS_OUT,
                       : "+D"(to), "+c"(left), "=a"(flags)
                       : "2"(accumulator)
                       : "cc", "memory");
  } else if constexpr (op == StringOp::kScas) {
    TENON_STRING_SIZED("repe scas", "\n\t" TENON_FLAGS_OUT,
                       : "+D"(to), "+c"(left), "=a"(flags)
                       : "2"(accumulator)
                       : "cc", "memory");
  } else if constexpr (op == StringOp::kCmps && until_equal) {
    TENON_STRING_SIZED("repne cmps", "\n\t" TENON_FLAGS_OUT,
                       : "+S"(from), "+D"(to), "+c"(left), "=a"(flags)
                       :
                       : "cc", "memory");
  } else if constexpr (op == StringOp::kCmps) {
    TENON_STRING_SIZED("repe cmps", "\n\t" TENON_FLAGS_OUT,
                       : "+S"(from), "+D"(to), "+c"(left), "=a"(flags)
                       :
                       : "cc", "memory");
  }
  return count - left;
}

/// Bytes from segment:offset to the end of its page, or to where the offset wraps at the address size.
uint64_t left_in_page(const Cpu& cpu, const Insn& insn, unsigned segment, uint64_t offset) {
  const uint64_t in_page = kPageSize - (cpu.window[segment].base + offset) % kPageSize;
  return insn.address_size == 8 ? in_page : std::min(in_page, (uint64_t{1} << (8 * insn.address_size)) - offset);
}

/// As many of `count` elements as lie in one page on both sides. Returns how many were done, 0 for "go by elements".
template <StringOp op, typename T, bool until_equal>
uint64_t bulk(Cpu& cpu, const Step* step, uint64_t count) {
  if constexpr (op == StringOp::kLods) return 0;
  const Insn& insn = step->insn;
  const uint64_t from = get_index(cpu, insn, x86::kRsi);
  const uint64_t to = get_index(cpu, insn, x86::kRdi);
  uint64_t bytes = std::min(count, kPageSize) * sizeof(T);
  bytes = std::min(bytes, left_in_page(cpu, insn, x86::kEs, to));
  if constexpr (uses_source(op)) bytes = std::min(bytes, left_in_page(cpu, insn, insn.segment, from));
  const uint64_t elements = bytes / sizeof(T);
  if (elements == 0) return 0;
  const auto size_bytes = static_cast<unsigned>(elements * sizeof(T));
  void* source = nullptr;
  void* destination = nullptr;
  if constexpr (uses_source(op)) {
    if (!segment_hit(cpu, segment_of(step), from, size_bytes, Access::kRead, source)) return 0;
  }
  constexpr Access kAccess = compares(op) ? Access::kRead : Access::kWrite;
  if (!segment_hit(cpu, x86::kEs, to, size_bytes, kAccess, destination)) return 0;
  const T accumulator = cpu.reg<T>(x86::kRax);
  const uint64_t done =
      host_repeat<op, T, until_equal>(source, destination, elements, accumulator, cpu.arithmetic_flags);
  advance_operands<op>(cpu, insn, done * sizeof(T));
  return done;
}

/// With 32-bit addresses in 64-bit mode a repeated instruction zeroes the upper halves of its counter, and MOVS and
/// STOS those of their indices, even where nothing is done.
template <StringOp op>
void cut_registers(Cpu& cpu, const Insn& insn) {
  set_index(cpu, insn, x86::kRcx, get_index(cpu, insn, x86::kRcx));
  if constexpr (op == StringOp::kMovs || op == StringOp::kStos) advance_operands<op>(cpu, insn, 0);
}

template <StringOp op, typename T, bool until_equal>
void repeat(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const bool single = (cpu.attention & Cpu::kAttentionStep) != 0;
  const bool up = (cpu.system_flags & x86::kDf) == 0;
  const uint16_t flags_before = cpu.arithmetic_flags;
  cut_registers<op>(cpu, insn);
  uint64_t bytes_left = kBytesPerVisit;
  for (;;) {
    const uint64_t count = get_index(cpu, insn, x86::kRcx);
    if (count == 0) return next(cpu, step);
    uint64_t done = up && !single ? bulk<op, T, until_equal>(cpu, step, count) : 0;
    uint64_t cost = done * sizeof(T);
    if (done == 0) {
      if (!one_element<op, T>(cpu, step)) {
        cpu.arithmetic_flags = flags_before;  // SDM Vol. 2, REP: as before the instruction
        return cpu.fault(step);
      }
      done = 1;
      cost = kBytesPerVisit / kElementsPerVisit;
    }
    set_index(cpu, insn, x86::kRcx, count - done);
    if constexpr (compares(op)) {
      const bool equal = (cpu.arithmetic_flags & kAxZf) != 0;
      if (equal == until_equal) return next(cpu, step);
    }
    if (count == done) return next(cpu, step);
    bytes_left -= std::min(bytes_left, cost);
    if (single || bytes_left == 0 || cpu.attention != 0 || cpu.signal->pending() != 0) {
      if (!single) cpu.arithmetic_flags = flags_before;  // a fault after going on still finds those
      return cpu.leave_at(step);
    }
  }
}

template <StringOp op, typename T>
void once(Cpu& cpu, const Step* step) {
  if (!one_element<op, T>(cpu, step)) return cpu.fault(step);
  return next(cpu, step);
}

/// REPNE means something to SCAS and CMPS alone; the others take it as REP.
template <StringOp op>
Handler string(const Insn& insn) {
  const auto& operands = insn.row->operands;
  const bool is_byte = operand_bytes(insn, operands[0]) == 1 || operand_bytes(insn, operands[1]) == 1;
  return by_size(is_byte ? 1 : insn.operand_size, [&]<typename T>() -> Handler {
    if ((insn.prefixes & (x86::kPrefixRep | x86::kPrefixRepne)) == 0) return once<op, T>;
    if constexpr (compares(op)) {
      if ((insn.prefixes & x86::kPrefixRepne) != 0) return repeat<op, T, true>;
    }
    return repeat<op, T, false>;
  });
}

}  // namespace

Handler string_handler(const Insn& insn, x86::CodeSize) {
  switch (insn.row->op) {
    case x86::Op::kMovs: return string<StringOp::kMovs>(insn);
    case x86::Op::kStos: return string<StringOp::kStos>(insn);
    case x86::Op::kLods: return string<StringOp::kLods>(insn);
    case x86::Op::kScas: return string<StringOp::kScas>(insn);
    case x86::Op::kCmps: return string<StringOp::kCmps>(insn);
    default: return nullptr;
  }
}

}  // namespace tenon::interp
