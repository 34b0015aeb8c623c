// TraceBuilder: from decoded instructions to steps with handlers.
#pragma once

#include <array>
#include <span>

#include "engine/interp/trace_cache.hh"

namespace tenon::interp {

class TraceBuilder {
 public:
  TraceBuilder(Cpu& cpu, x86::CodeSize code_size) : cpu_(cpu), code_size_(code_size) {}

  /// A step that is no instruction of its own and runs before the next one.
  void add_helper(Handler handler);
  /// Prepares `insn` for the handlers (see Step) and chooses its handler; #UD for what this vCPU does not have.
  void add(const Insn& insn);
  /// The step of bytes that are no instruction: #UD, or #GP(0) where they are too long.
  void add_undecodable(x86::DecodeStatus status);
  /// The end step; fills in Step::remaining. Call once, last.
  void finish(Handler end);

  std::span<const Step> steps() const { return {steps_.data(), count_}; }

 private:
  // A helper before each instruction at most, and the end step.
  static constexpr unsigned kStepsMax = 2 * kTraceStepsMax + 2;

  bool prepare_address(Insn& insn);
  Handler choose(Insn& insn, uint64_t& scratch) const;
  bool is_exposed(const Insn& insn) const;

  Cpu& cpu_;
  x86::CodeSize code_size_;
  std::array<Step, kStepsMax> steps_;
  unsigned count_ = 0;
  uint16_t offset_ = 0;
};

}  // namespace tenon::interp
