// Random instructions and states for the differential test: biased so that most cases execute, memory operands mostly hit
// the data window and its edges, and values sit on the boundaries that matter.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "engine/x86/insn.hh"
#include "tests/differential/machine_state.hh"

namespace tenon::differential {

/// xoshiro256** (Blackman and Vigna, public domain): fast, seeded, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();
  uint64_t below(uint64_t bound) { return next() % bound; }
  bool one_in(uint64_t n) { return below(n) == 0; }

 private:
  std::array<uint64_t, 4> state_;
};

struct Case {
  std::array<uint8_t, x86::kInsnLengthMax> bytes{};
  x86::Insn insn;
  uint64_t address = 0;  // of the first byte, in the code page
  MachineState before;

  std::span<const uint8_t> code() const { return {bytes.data(), insn.length}; }
};

/// Why an instruction is not compared with the host in user mode, or nullptr where it is. Every such Op has unit tests of its own.
const char* exclusion(x86::Op op);

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  /// Fills `out` with a valid, comparable instruction and a state for it. `window` is the data window as it is now; a
  /// few bytes of it may be changed on purpose (stack values of POPF).
  void next(Case& out, std::span<std::byte> window);
  /// New contents for a random piece of the window, typed: integers, floats, strings.
  void refresh(std::span<std::byte> window);
  uint64_t rejected() const { return rejected_; }

 private:
  bool draw_instruction(Case& out);
  void aim_memory_operand(Case& out);
  void draw_registers(MachineState& state);
  void draw_vectors(MachineState& state);
  void draw_x87(MachineState& state);
  void special_rules(Case& out, std::span<std::byte> window);
  uint64_t interesting_integer();
  void fill_typed(std::span<std::byte> bytes);
  uint64_t window_target(unsigned size_bytes);

  Random random_;
  uint64_t rejected_ = 0;
};

}  // namespace tenon::differential
