// Random instructions and states for the differential test: biased so that most cases execute, memory operands mostly
// hit the data window and its edges, and values sit on the boundaries that matter.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "engine/x86/insn.hh"
#include "tests/differential/machine_state.hh"
#include "tests/differential/random.hh"
#include "tests/differential/row_catalog.hh"

namespace tenon::differential {

struct Case {
  std::array<uint8_t, x86::kInsnLengthMax> bytes{};
  x86::Insn insn;
  size_t form = 0;       // in the RowCatalog
  uint64_t address = 0;  // of the first byte, in the code page
  MachineState before;

  std::span<const uint8_t> code() const { return {bytes.data(), insn.length}; }
};

class Generator {
 public:
  Generator(const RowCatalog& catalog, uint64_t seed) : catalog_(catalog), random_(seed) {}
  /// Fills `out` with a valid, comparable instruction and a state for it. `window` is the data window as it is now; a
  /// few bytes of it may be changed on purpose (stack values of POPF, branch targets). Give the same `out` each time:
  /// vector and x87 registers change little by little.
  void next(Case& out, std::span<std::byte> window);
  /// New contents for a random piece of the window, typed: integers, floats, strings.
  void refresh(std::span<std::byte> window);
  uint64_t rejected() const { return rejected_; }

 private:
  bool draw_instruction(Case& out);
  void draw_bytes(std::array<uint8_t, x86::kInsnLengthMax>& bytes);
  void aim_memory_operand(Case& out);
  void aim_gather(Case& out);
  void aim_offset(Case& out, uint64_t target);
  void aim_strings(Case& out);
  void aim_branch(Case& out);
  void prepare_operand(Case& out, std::span<std::byte> window);
  uint64_t branch_target(const Case& test);
  uint64_t operand_target(const x86::Insn& insn);
  static void place(std::span<std::byte> window, uint64_t address, uint64_t value);
  void draw_registers(MachineState& state);
  void draw_vectors(MachineState& state);
  void draw_x87(MachineState& state);
  void special_rules(Case& out, std::span<std::byte> window);
  uint64_t interesting_integer();
  void fill_typed(std::span<std::byte> bytes);
  uint64_t window_target(unsigned size_bytes);

  const RowCatalog& catalog_;
  Random random_;
  uint64_t rejected_ = 0;
};

}  // namespace tenon::differential
