// Lockstep in the runner: what runs a block twice. See lockstep.hh.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.hh"
#include "engine/interp/cpu_inline.hh"
#include "engine/jit/emitter.hh"
#include "engine/jit/lockstep.hh"
#include "engine/jit/runner.hh"

namespace tenon::jit {

namespace {

using interp::Cpu;

bool has_site(const Fragment& fragment, uint64_t nominal_rip) {
  return std::ranges::any_of(fragment.sites, [=](const auto& site) { return site->rip == nominal_rip; });
}

}  // namespace

/// A block that is run ends at its indirect branch: none of those finds anything.
void Runner::start_lockstep() {
  lockstep_ = std::make_unique<Lockstep>();
  remembered_.start({stubs_.runtime.exit_indirect, stubs_.runtime.exit_indirect});
}

const std::string* Runner::failure() const {
  return lockstep_ == nullptr || lockstep_->failure.empty() ? nullptr : &lockstep_->failure;
}

bool Runner::run_in_lockstep() {
  if (!lockstep_->failure.empty()) return true;  // about to stop
  const uint64_t host = look_up(cpu_.rip);
  if (host == 0) return cpu_.has_fault;
  const std::string difference = run_block_twice(host);
  if (!difference.empty()) report_difference(difference);
  return true;
}

/// The interpreter's run of the block at cpu.rip. False: what it did stays, there is nothing to compare.
bool Runner::interpret_block(const Fragment& fragment, BlockRun& run) {
  Lockstep& lockstep = *lockstep_;
  const uint64_t generation = cache_->generation();
  const uint64_t shift = shift_of(fragment);
  lockstep.log.clear();
  cpu_.flush_write_tlb();
  lockstep.before.take(cpu_, fragment.uses_vector);
  lockstep.context.take(cpu_);
  cpu_.write_log = &lockstep.log;
  for (; run.count < fragment.guest_instructions && !has_site(fragment, cpu_.rip - shift); ++run.count) {
    const uint64_t rip = cpu_.rip;
    cpu_.interpret_one();
    if (cpu_.attention != 0 || generation != cache_->generation()) break;
    run.last_rip = rip;
  }
  cpu_.write_log = nullptr;
  if (generation != cache_->generation()) return false;
  // A fault behind the first instruction: the ones before it are compared, and it comes again.
  if (cpu_.attention == Cpu::kAttentionFault && run.count != 0 && lockstep.context.is_same(cpu_)) {
    cpu_.attention = 0;
    cpu_.has_fault = false;
    run.faulted = true;
  }
  if (run.count == 0 && cpu_.attention == 0) cpu_.interpret_one();
  return run.count != 0 && cpu_.attention == 0 && lockstep.context.is_same(cpu_);
}

/// What is different, as lines; all is then as before the block. Empty: nothing, and the block is done.
std::string Runner::run_block_twice(uint64_t host) {
  Lockstep& lockstep = *lockstep_;
  const Fragment* fragment = cache_->fragment_at(host);
  CHECK(fragment != nullptr);
  BlockRun run;
  if (!interpret_block(*fragment, run)) {
    ++stats_.blocks_not_compared;
    return {};
  }
  lockstep.expected.take(cpu_, fragment->uses_vector);
  lockstep.log.undo();
  lockstep.before.put_back(cpu_);
  const bool done = run_translation(*fragment, host, run);
  cpu_.flush_write_tlb();
  if (!done) {
    ++stats_.blocks_not_compared;
    return {};
  }
  uint64_t flags = x86::kArithmeticFlags;
  if (lockstep.overflow_differs(cpu_) && rotates_by_immediate(lockstep.before.rip)) flags &= ~uint64_t{x86::kOf};
  std::string text = lockstep.differences(cpu_, flags);
  if (cpu_.has_fault) text += "  translated code faults\n";
  if (text.empty()) {
    ++stats_.blocks_compared;
    stats_.instructions_compared += run.count;
    return {};
  }
  lockstep.log.restore();
  lockstep.before.put_back(cpu_);
  cpu_.has_fault = false;
  cpu_.attention = 0;
  return text;
}

/// Runs the block's translation to its end. False: something came between, and what it did stays.
bool Runner::run_translation(const Fragment& block, uint64_t host, const BlockRun& run) {
  // Mostly the block's own code, which need not be looked for.
  const auto code_at = [&](uint64_t address) {
    const Fragment* at = address - block.host < block.size_bytes ? &block : cache_->fragment_at(address);
    CHECK(at != nullptr);
    return at;
  };
  const uint64_t shift = shift_of(block);
  for (;;) {
    thread_->reset_return_stack();
    enter(host);
    const uint64_t argument = state_.exit_argument;
    switch (static_cast<ExitCode>(state_.exit_code)) {
      case ExitCode::kIndirect: return cpu_.rip = argument, true;
      case ExitCode::kInterpret: return cpu_.rip = reinterpret_cast<InterpretSite*>(argument)->rip + shift, true;
      case ExitCode::kLink: {
        const Fragment* from = code_at(argument - 1);
        const LinkSlot* slot = from->slot_at(argument);
        CHECK(slot != nullptr);
        cpu_.rip = slot->target_rip + shift;
        if (!slot->is_guard && !slot->plain) return true;
        const uint64_t start = from->host + from->entries[0].host_offset;
        host = slot->plain ? look_up_plain(cpu_.rip) : after_guard(cpu_.rip, start, from->second_gpa_page);
        if (host == 0) return false;
        continue;
      }
      case ExitCode::kSlowAccess:
      case ExitCode::kHostFault: break;
    }
    const Fragment* fragment = code_at(argument);
    const SideEntry* side = fragment->side_at(argument);
    CHECK(side != nullptr);
    cpu_.rip = fragment->linear_page + shift + side->guest_offset;
    if (run.faulted && cpu_.rip == lockstep_->expected.rip) return true;
    const bool last = cpu_.rip == run.last_rip;
    const uint64_t generation = cache_->generation();
    cpu_.interpret_one();
    if (last || cpu_.has_fault) return true;
    if (cpu_.attention != 0 || generation != cache_->generation() || mode_is_stale_) return false;
    host = resume_in(*fragment);
    if (host == 0) return false;
  }
}

/// Where `fragment` goes on at cpu.rip; 0: nowhere.
uint64_t Runner::resume_in(const Fragment& fragment) {
  if ((cpu_.rip & ~(kPageSize - 1)) != fragment.linear_page + shift_of(fragment)) return 0;
  for (const SideEntry& entry : fragment.side) {
    if (entry.resumable && entry.guest_offset == cpu_.rip % kPageSize)
      return resume_target(fragment.host + entry.host_offset);
  }
  return 0;
}

void Runner::report_difference(const std::string& difference) {
  Lockstep& lockstep = *lockstep_;
  const uint64_t start = cpu_.rip;
  lockstep.failure =
      fmt::format("translated code differs from the interpreter in the block at {:#x}:\n{}", start, difference);
  lockstep.failure += describe_block(start);
  // The same again, one instruction a block.
  translator_->set_insns_max(1);
  cache_->invalidate_all();
  drop_after_removal();
  std::string single;
  uint64_t rip = start;
  for (unsigned i = 0; i < kRegionInsnsMax && single.empty(); ++i) {
    rip = cpu_.rip;
    const uint64_t host = look_up(rip);
    if (host == 0) break;
    single = run_block_twice(host);
  }
  lockstep.failure += single.empty() ? "No single instruction differs: it is how they are translated together.\n"
                                     : fmt::format("The first instruction that differs is at {:#x}:\n{}", rip, single);
  cpu_.signal->raise(VcpuSignal::kStop);
}

/// Gives each instruction from `rip` up to the first branch, or to the page's end, to visit(rip, insn, bytes).
template <typename Visit>
void Runner::visit_block(uint64_t rip, Visit&& visit) {
  const RememberedCode::Line* line = fetch(rip);
  if (line == nullptr) return;
  uint64_t gpa = line->gpa_page | rip % kPageSize;
  for (unsigned i = 0; i < kRegionInsnsMax; ++i) {
    std::array<uint8_t, x86::kInsnLengthMax> bytes{};
    const uint64_t in_page = kPageSize - gpa % kPageSize;
    const auto code = std::span(bytes).first(std::min<uint64_t>(bytes.size(), in_page));
    x86::Insn insn;
    if (!cpu_.memory->read(Gpa(gpa), std::as_writable_bytes(code))) return;
    if (x86::decode(code, x86::CodeSize::k64, insn) != x86::DecodeStatus::kOk) return;
    visit(rip, insn, code.first(insn.length));
    if ((insn.row->flags & (x86::kBranch | x86::kSerializing)) != 0 || insn.length == in_page) return;
    rip += insn.length;
    gpa += insn.length;
  }
}

std::string Runner::describe_block(uint64_t start) {
  std::string text;
  visit_block(start, [&](uint64_t rip, const x86::Insn& insn, std::span<const uint8_t> bytes) {
    text += fmt::format("  {:#x}: {:02x}  {}\n", rip, fmt::join(bytes, " "), disassemble_brief(insn));
  });
  return text;
}

/// ROL and ROR by an immediate: OF is undefined (SDM Vol. 2, RCL/RCR/ROL/ROR).
bool Runner::rotates_by_immediate(uint64_t start) {
  bool found = false;
  visit_block(start, [&](uint64_t, const x86::Insn& insn, std::span<const uint8_t>) {
    const bool rotates = insn.row->op == x86::Op::kRol || insn.row->op == x86::Op::kRor;
    found = found || (rotates && (insn.opcode & 0xfe) == 0xc0);
  });
  return found;
}

}  // namespace tenon::jit
