// BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT, CRC32, BMI1, BMI2, ADCX, ADOX (SDM Vol. 2).
//
// BMI and friends are the host's instructions where it has them; the machine exposes the features only then, so the
// handlers are never reached on a host without.
#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

template <typename T>
[[gnu::always_inline]] inline bool load_rm(Cpu& cpu, const Step* step, T& out) {
  if (step->insn.is_memory) return load_operand<false, T>(cpu, step, out);
  out = read_register<T>(cpu, step->insn, step->insn.rm);
  return true;
}

// --- BT, BTS, BTR, BTC

enum class BitOp : uint8_t { kTest, kSet, kReset, kComplement };

/// CF = bit, the other flags as the host's BT leaves them.
template <typename T>
[[gnu::always_inline]] inline void test_bit(T value, T bit, uint16_t& flags) {
  asm(TENON_FLAGS_IN "bt %[b], %[a]\n\t" TENON_FLAGS_OUT : "+a"(flags) : [a] "r"(value), [b] "r"(bit) : "cc");
}

template <BitOp op, typename T>
[[gnu::always_inline]] inline T changed_bit(T value, T bit) {
  const T mask = static_cast<T>(T{1} << bit);
  if constexpr (op == BitOp::kSet) return static_cast<T>(value | mask);
  if constexpr (op == BitOp::kReset) return static_cast<T>(value & ~mask);
  return static_cast<T>(value ^ mask);
}

template <typename T>
[[gnu::always_inline]] inline T bit_index(const Cpu& cpu, const Insn& insn) {
  const T index =
      place_of(insn.row->operands[1]) == Place::kImmediate ? static_cast<T>(insn.immediate) : cpu.reg<T>(insn.reg);
  return index;
}

template <BitOp op, typename T>
void bit_register(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const T bit = bit_index<T>(cpu, insn) & (8 * sizeof(T) - 1);
  const T value = cpu.reg<T>(insn.rm);
  test_bit<T>(value, bit, cpu.arithmetic_flags);
  if constexpr (op != BitOp::kTest) cpu.set_reg<T>(insn.rm, changed_bit<op, T>(value, bit));
  return next(cpu, step);
}

/// Offset of the operand that holds the bit: a bit offset in a register is signed and reaches beyond the operand (SDM
/// Vol. 2, BT), an immediate does not.
template <typename T>
uint64_t bit_operand_offset(const Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const uint64_t offset = cpu.effective_offset(step);
  if (place_of(insn.row->operands[1]) == Place::kImmediate) return offset;
  const auto index = static_cast<int64_t>(static_cast<std::make_signed_t<T>>(cpu.reg<T>(insn.reg)));
  constexpr unsigned kShift = sizeof(T) == 8 ? 6 : sizeof(T) == 4 ? 5 : 4;
  const uint64_t sum = offset + static_cast<uint64_t>((index >> kShift) * static_cast<int64_t>(sizeof(T)));
  return insn.address_size == 8   ? sum
         : insn.address_size == 4 ? static_cast<uint32_t>(sum)
                                  : static_cast<uint16_t>(sum);
}

template <typename T>
void bit_test_memory(Cpu& cpu, const Step* step) {
  T value;
  if (!cpu.load<T>(segment_of(step), bit_operand_offset<T>(cpu, step), value)) return cpu.fault(step);
  test_bit<T>(value, bit_index<T>(cpu, step->insn) & (8 * sizeof(T) - 1), cpu.arithmetic_flags);
  return next(cpu, step);
}

/// One atomic host operation serves the locked and the plain form.
template <BitOp op, typename T>
void bit_change_memory(Cpu& cpu, const Step* step) {
  void* host = cpu.begin_rmw(segment_of(step), bit_operand_offset<T>(cpu, step), sizeof(T), is_locked(step->insn));
  if (host == nullptr) return cpu.fault(step);
  const T bit = bit_index<T>(cpu, step->insn) & (8 * sizeof(T) - 1);
  T old = load_host<T>(host);
  if (is_locked(step->insn)) {
    for (;;) {
      const T value = changed_bit<op, T>(old, bit);
      bool done;
      T seen = old;
      asm volatile("lock cmpxchg %[v], (%[p])" : "+a"(seen), "=@ccz"(done) : [v] "r"(value), [p] "r"(host) : "memory");
      if (done) break;
      old = seen;
    }
  } else {
    store_host<T>(host, changed_bit<op, T>(old, bit));
  }
  cpu.finish_rmw();
  test_bit<T>(old, bit, cpu.arithmetic_flags);
  return next(cpu, step);
}

template <BitOp op>
Handler bit_test(const Insn& insn) {
  return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler {
    if (!insn.is_memory) return bit_register<op, T>;
    if constexpr (op == BitOp::kTest) {
      return bit_test_memory<T>;
    } else {
      return bit_change_memory<op, T>;
    }
  });
}

// --- Scans and counts: destination register, r/m source, flags from the host.

enum class Scan : uint8_t { kBsf, kBsr, kTzcnt, kLzcnt, kPopcnt };

/// The destination is an operand of the asm, because BSF and BSR leave it as it was for a source of 0.
template <Scan op, typename T>
[[gnu::always_inline]] inline T scan(T destination, T source, uint16_t& flags) {
#define TENON_SCAN(mnemonic)                                    \
  asm(TENON_FLAGS_IN mnemonic " %[b], %[a]\n\t" TENON_FLAGS_OUT \
      : [a] "+r"(destination), "+a"(flags)                      \
      : [b] "r"(source)                                         \
      : "cc")
  if constexpr (op == Scan::kBsf) TENON_SCAN("bsf");
  if constexpr (op == Scan::kBsr) TENON_SCAN("bsr");
  if constexpr (op == Scan::kTzcnt) TENON_SCAN("tzcnt");
  if constexpr (op == Scan::kLzcnt) TENON_SCAN("lzcnt");
  if constexpr (op == Scan::kPopcnt) TENON_SCAN("popcnt");
#undef TENON_SCAN
  return destination;
}

template <Scan op, typename T>
void scan_bits(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  const T result = scan<op, T>(cpu.reg<T>(insn.reg), source, cpu.arithmetic_flags);
  // A 32-bit BSF or BSR of 0 leaves all 64 bits of the register.
  if ((op == Scan::kBsf || op == Scan::kBsr) && source == 0) return next(cpu, step);
  cpu.set_reg<T>(insn.reg, result);
  return next(cpu, step);
}

template <Scan op>
Handler scan_by_size(const Insn& insn) {
  return by_wide_size(insn.operand_size, []<typename T>() -> Handler { return scan_bits<op, T>; });
}

/// CRC32: the source is a byte or of operand size; the accumulator always 32 bits.
template <typename T>
void crc32(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  uint32_t sum = cpu.reg<uint32_t>(insn.reg);
  if constexpr (sizeof(T) == 8) {
    uint64_t wide = sum;
    asm("crc32q %[s], %[d]" : [d] "+r"(wide) : [s] "r"(source));
    sum = static_cast<uint32_t>(wide);
  } else if constexpr (sizeof(T) == 4) {
    asm("crc32l %[s], %[d]" : [d] "+r"(sum) : [s] "r"(source));
  } else if constexpr (sizeof(T) == 2) {
    asm("crc32w %[s], %[d]" : [d] "+r"(sum) : [s] "r"(source));
  } else {
    asm("crc32b %[s], %[d]" : [d] "+r"(sum) : [s] "r"(source));
  }
  cpu.set_reg<uint32_t>(insn.reg, sum);
  return next(cpu, step);
}

// --- BMI1 and BMI2: VEX-encoded, 32 or 64 bits.

enum class Bmi : uint8_t { kAndn, kBextr, kBzhi, kPdep, kPext, kShlx, kShrx, kSarx };

/// The three-operand forms as host instructions: d = op(vvvv, rm) with the operands in the order of the mnemonic.
template <Bmi op, typename T>
[[gnu::always_inline]] inline T bmi(T rm, T vvvv, uint16_t& flags) {
  T result;
#define TENON_BMI(text) \
  asm(TENON_FLAGS_IN text "\n\t" TENON_FLAGS_OUT : [d] "=&r"(result), "+a"(flags) : [m] "r"(rm), [v] "r"(vvvv) : "cc")
  if constexpr (op == Bmi::kAndn) TENON_BMI("andn %[m], %[v], %[d]");
  if constexpr (op == Bmi::kBextr) TENON_BMI("bextr %[v], %[m], %[d]");
  if constexpr (op == Bmi::kBzhi) TENON_BMI("bzhi %[v], %[m], %[d]");
  if constexpr (op == Bmi::kPdep) TENON_BMI("pdep %[m], %[v], %[d]");
  if constexpr (op == Bmi::kPext) TENON_BMI("pext %[m], %[v], %[d]");
  if constexpr (op == Bmi::kShlx) TENON_BMI("shlx %[v], %[m], %[d]");
  if constexpr (op == Bmi::kShrx) TENON_BMI("shrx %[v], %[m], %[d]");
  if constexpr (op == Bmi::kSarx) TENON_BMI("sarx %[v], %[m], %[d]");
#undef TENON_BMI
  return result;
}

template <Bmi op, typename T>
void bmi_three(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T rm;
  if (!load_rm<T>(cpu, step, rm)) return cpu.fault(step);
  cpu.set_reg<T>(insn.reg, bmi<op, T>(rm, cpu.reg<T>(insn.vvvv), cpu.arithmetic_flags));
  return next(cpu, step);
}

template <Bmi op>
Handler bmi_by_size(const Insn& insn) {
  return insn.operand_size == 8 ? bmi_three<op, uint64_t> : bmi_three<op, uint32_t>;
}

enum class Lowest : uint8_t { kBlsi, kBlsmsk, kBlsr };

template <Lowest op, typename T>
void lowest_bit(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  T result;
  uint16_t flags = cpu.arithmetic_flags;
#define TENON_LOWEST(mnemonic)                                  \
  asm(TENON_FLAGS_IN mnemonic " %[m], %[d]\n\t" TENON_FLAGS_OUT \
      : [d] "=&r"(result), "+a"(flags)                          \
      : [m] "r"(source)                                         \
      : "cc")
  if constexpr (op == Lowest::kBlsi) TENON_LOWEST("blsi");
  if constexpr (op == Lowest::kBlsmsk) TENON_LOWEST("blsmsk");
  if constexpr (op == Lowest::kBlsr) TENON_LOWEST("blsr");
#undef TENON_LOWEST
  cpu.arithmetic_flags = flags;
  cpu.set_reg<T>(insn.vvvv, result);
  return next(cpu, step);
}

template <Lowest op>
Handler lowest_by_size(const Insn& insn) {
  return insn.operand_size == 8 ? lowest_bit<op, uint64_t> : lowest_bit<op, uint32_t>;
}

/// RORX: rotation by an immediate, no flags.
template <typename T>
void rotate_without_flags(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  constexpr unsigned kMask = 8 * sizeof(T) - 1;
  const unsigned count = static_cast<unsigned>(insn.immediate) & kMask;
  cpu.set_reg<T>(insn.reg, static_cast<T>(source >> count | source << ((8 * sizeof(T) - count) & kMask)));
  return next(cpu, step);
}

/// ADCX uses and changes CF alone, ADOX OF alone.
template <typename T, bool overflow_chain>
void add_chain(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  T sum = cpu.reg<T>(insn.reg);
  uint16_t flags = cpu.arithmetic_flags;
  if constexpr (overflow_chain) {
    asm(TENON_FLAGS_IN "adox %[s], %[d]\n\t" TENON_FLAGS_OUT : [d] "+r"(sum), "+a"(flags) : [s] "r"(source) : "cc");
  } else {
    asm(TENON_FLAGS_IN "adcx %[s], %[d]\n\t" TENON_FLAGS_OUT : [d] "+r"(sum), "+a"(flags) : [s] "r"(source) : "cc");
  }
  cpu.arithmetic_flags = flags;
  cpu.set_reg<T>(insn.reg, sum);
  return next(cpu, step);
}

}  // namespace

Handler bit_scan_handler(const Insn& insn, x86::CodeSize) {
  return insn.row->op == x86::Op::kLzcnt ? scan_by_size<Scan::kBsr>(insn) : scan_by_size<Scan::kBsf>(insn);
}

Handler bit_handler(const Insn& insn, x86::CodeSize) {
  const bool wide = insn.operand_size == 8;
  switch (insn.row->op) {
    case x86::Op::kBt: return bit_test<BitOp::kTest>(insn);
    case x86::Op::kBts: return bit_test<BitOp::kSet>(insn);
    case x86::Op::kBtr: return bit_test<BitOp::kReset>(insn);
    case x86::Op::kBtc: return bit_test<BitOp::kComplement>(insn);
    case x86::Op::kBsf: return scan_by_size<Scan::kBsf>(insn);
    case x86::Op::kBsr: return scan_by_size<Scan::kBsr>(insn);
    case x86::Op::kTzcnt: return scan_by_size<Scan::kTzcnt>(insn);
    case x86::Op::kLzcnt: return scan_by_size<Scan::kLzcnt>(insn);
    case x86::Op::kPopcnt: return scan_by_size<Scan::kPopcnt>(insn);
    case x86::Op::kCrc32:
      return by_size(operand_bytes(insn, insn.row->operands[1]), []<typename T>() -> Handler { return crc32<T>; });
    case x86::Op::kAndn: return bmi_by_size<Bmi::kAndn>(insn);
    case x86::Op::kBextr: return bmi_by_size<Bmi::kBextr>(insn);
    case x86::Op::kBzhi: return bmi_by_size<Bmi::kBzhi>(insn);
    case x86::Op::kPdep: return bmi_by_size<Bmi::kPdep>(insn);
    case x86::Op::kPext: return bmi_by_size<Bmi::kPext>(insn);
    case x86::Op::kShlx: return bmi_by_size<Bmi::kShlx>(insn);
    case x86::Op::kShrx: return bmi_by_size<Bmi::kShrx>(insn);
    case x86::Op::kSarx: return bmi_by_size<Bmi::kSarx>(insn);
    case x86::Op::kBlsi: return lowest_by_size<Lowest::kBlsi>(insn);
    case x86::Op::kBlsmsk: return lowest_by_size<Lowest::kBlsmsk>(insn);
    case x86::Op::kBlsr: return lowest_by_size<Lowest::kBlsr>(insn);
    case x86::Op::kRorx: return wide ? rotate_without_flags<uint64_t> : rotate_without_flags<uint32_t>;
    case x86::Op::kAdcx: return wide ? add_chain<uint64_t, false> : add_chain<uint32_t, false>;
    case x86::Op::kAdox: return wide ? add_chain<uint64_t, true> : add_chain<uint32_t, true>;
    default: return nullptr;
  }
}

}  // namespace tenon::interp
