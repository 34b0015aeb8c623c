#include "engine/jit/runner.hh"

#include <time.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.hh"
#include "engine/interp/cpu_inline.hh"
#include "engine/interp/event.hh"
#include "engine/interp/trace_cache.hh"
#include "engine/jit/emitter.hh"
#include "engine/jit/fault_injection.hh"
#include "engine/jit/lockstep.hh"

namespace tenon::jit {

namespace {

using interp::Cpu;
using interp::TranslatedState;

constexpr size_t kStubBytes = 32 << 10;
constexpr uint64_t kPageMask = ~(kPageSize - 1);
constexpr unsigned kIndirectShift = 3;

uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

Runner::Runner(Cpu& cpu, const RunnerOptions& options, std::unique_ptr<CodeCache> cache)
    : cpu_(cpu), state_(cpu_.translated), options_(options), cache_(std::move(cache)), remembered_(state_) {}

Runner::~Runner() = default;

Result<std::unique_ptr<Runner>> Runner::create(Cpu& cpu, const RunnerOptions& options) {
  TRY(check_host_cpu());
  auto cache = TRY(CodeCache::create(options.cache_bytes, kStubBytes, offsetof(Cpu, translated)));
  std::unique_ptr<Runner> runner(new Runner(cpu, options, std::move(cache)));
  runner->make_stubs();
  return runner;
}

void Runner::make_stubs() {
  Assembler assembler(cache_->stub_buffer(), cache_->stub_address(), reinterpret_cast<uint64_t>(&cpu_));
  const Stubs runtime = jit::make_stubs(assembler, cpu_);
  stubs_ = make_translator_stubs(assembler, runtime, cpu_, remembered_);
  CHECK(!assembler.overflowed());
  translator_ = std::make_unique<Translator>(cpu_, *cache_, stubs_, options_.translator);
  state_.index_mask = uint64_t{interp::SoftTlb::kEntries - 1} * kPageSize;
  state_.page_number_mask = kPageMask;
  state_.indirect_mask = uint64_t{TranslatedState::kIndirectEntries - 1} << kIndirectShift;
  state_.page_offset_mask = ~kPageMask;
  state_.code_page_mask = uint64_t{TranslatedState::kCodePages - 1} * kPageSize;
  remembered_.start({stubs_.look_further[0], stubs_.look_further[1]});
  generation_ = cache_->generation();
}

Result<void> Runner::prepare_thread() {
  if (thread_ != nullptr) return {};
  thread_ = TRY(HostThread::create(cpu_, cache_->stub_address(), options_.cache_bytes, stubs_.runtime));
  if (mode_ != kModeInvalid) thread_->use_return_stack(privilege(mode_));
  return {};
}

// --- What translated code remembers.

/// Return stacks name code by addresses that calls found to be right then.
void Runner::lost(RememberedCode::Loss loss, RememberedCode::Sides local) {
  if (loss == RememberedCode::Loss::kNothing) return;
  ++changes_;
  ++look_stamp_;
  if (loss == RememberedCode::Loss::kAll) cache_->unlink_global();
  if (thread_ == nullptr) return;
  for (unsigned side = 0; side < local.size(); ++side) {
    if (loss == RememberedCode::Loss::kAll || local[side]) thread_->reset_return_stack(side);
  }
}

void Runner::forget_code_translations(bool keep_global) {
  const RememberedCode::Sides local = remembered_.local_sides();
  if (!keep_global) {
    remembered_.forget_all();
    lost(RememberedCode::Loss::kAll, local);
  }
  // Of a PCID that keeps its number, what is known holds again when it is entered again.
  const bool keep = keep_global && cpu_.tlb.context_of(pcid_) == context_;
  context_ = cpu_.tlb.context();
  pcid_ = cpu_.tlb.pcid();
  if (remembered_.enter_context(context_, keep)) lost(RememberedCode::Loss::kLocal, local);
}

void Runner::forget_code_translation(uint64_t linear, uint64_t size_bytes) {
  ++look_stamp_;
  const RememberedCode::Sides local = remembered_.local_sides();
  lost(remembered_.forget_range(linear, size_bytes), local);
}

void Runner::forget_code_translations_of(uint64_t context) { remembered_.forget_context(context); }

void Runner::code_context_changed(Cpu&) { mode_is_stale_ = true; }

/// Addresses of removed code must not be used again.
void Runner::drop_after_removal() {
  if (generation_ == cache_->generation()) return;
  generation_ = cache_->generation();
  ++changes_;
  ++look_stamp_;
  if (cache_->stats().fragments == 0) {
    remembered_.forget_all();  // the numbers of mappings may have started anew
  } else {
    remembered_.forget_addresses();
  }
  if (thread_ != nullptr) thread_->reset_return_stack();
}

void Runner::code_changed(Gpa gpa, uint64_t size_bytes) {
  const uint64_t last = gpa.value() + std::max<uint64_t>(size_bytes, 1) - 1;
  for (uint64_t page = gpa.value() & kPageMask; page <= last; page += kPageSize) {
    const uint64_t first_byte = std::max(gpa.value(), page) % kPageSize;
    const uint64_t last_byte = std::min(last, page + kPageSize - 1) % kPageSize;
    const uint64_t first_granule = first_byte / CodeWatch::kGranuleSize;
    const uint64_t last_granule = last_byte / CodeWatch::kGranuleSize;
    cache_->invalidate(page, (~uint64_t{0} << first_granule) & (~uint64_t{0} >> (63 - last_granule)));
    if (first_granule == 0) invalidate_crossing(page);
    invalidate_dependents(page, (~uint64_t{0} << first_granule) & (~uint64_t{0} >> (63 - last_granule)));
  }
  drop_after_removal();
}

void Runner::any_code_changed() {
  const auto changed = [&](uint64_t page) {
    const CodeWatch::Page* watched = cpu_.memory->code_watch().page(Gpa(page));
    const auto version = versions_.find(page);
    return watched == nullptr || version == versions_.end() ||
           watched->version.load(std::memory_order_acquire) != version->second;
  };
  for (const uint64_t page : cache_->pages()) {
    if (changed(page)) cache_->invalidate(page, ~uint64_t{0});
  }
  std::vector<uint64_t> seconds;
  for (const auto& [second, firsts] : crossing_) {
    if (changed(second)) seconds.push_back(second);
  }
  for (const uint64_t second : seconds) invalidate_crossing(second);
  std::vector<uint64_t> looked;
  for (const auto& [page, dependents] : dependents_) {
    if (changed(page)) looked.push_back(page);
  }
  for (const uint64_t page : looked) invalidate_dependents(page, ~uint64_t{0});
  // What is left is as it was; versions of pages without code any more are forgotten.
  std::unordered_map<uint64_t, uint64_t> kept;
  for (const uint64_t page : cache_->pages()) kept.insert(*versions_.find(page));
  for (const auto& [second, firsts] : crossing_) kept.insert(*versions_.find(second));
  for (const auto& [page, dependents] : dependents_) kept.insert(*versions_.find(page));
  versions_ = std::move(kept);
  drop_after_removal();
}

/// Takes the mode as it is now.
void Runner::refresh_mode() {
  mode_is_stale_ = false;
  const Mode now = current_mode(cpu_);
  if (now != mode_) enter_mode(now);
  const bool fits = last_mode_[0] == mode_at_level(now, 0) && last_mode_[1] == mode_at_level(now, 3);
  const bool allowed = (cpu_.state.efer & x86::kEferSce) != 0 && (cpu_.system_flags & x86::kAc) == 0 &&
                       !cpu_.paging.smap && x86::is_canonical(cpu_.state.lstar);
  state_.level_switch_blocked = now != kModeInvalid && fits && allowed ? 0 : 1;
}

void Runner::enter_mode(Mode now) {
  ++changes_;
  mode_ = now;
  if (now == kModeInvalid) return;
  const unsigned side = privilege(now);
  if (thread_ != nullptr) thread_->use_return_stack(side);
  state_.return_miss = stubs_.return_miss[side];
  Mode& last = last_mode_[side];
  if (last == now) return;
  last = now;
  remembered_.forget_addresses(side);
  if (thread_ != nullptr) thread_->reset_return_stack(side);
  drop_stack_pages();
}

/// Translated code has gone to the other privilege by itself (emit_privilege.cc).
void Runner::follow_level() {
  mode_ = last_mode_[cpu_.cpl == 3 ? 1 : 0];
  cpu_.traces->context_changed(cpu_);
}

/// No address is within reach of these, and with such an addend none is the host's.
void Runner::drop_stack_pages() {
  constexpr uint64_t kNowhere = uint64_t{1} << 63;
  for (unsigned i = 0; i < 2; ++i) {
    state_.stack_negative_page[i] = kNowhere;
    state_.stack_addend[i] = kNowhere;
  }
}

/// The next indirect branch to `rip` finds `host`. Returns where `rip` is then: making room may have removed it.
uint64_t Runner::remember_indirect(uint64_t rip, uint64_t host) {
  const unsigned side = privilege(mode_);
  const RememberedCode::Line* line = fetch(rip);
  if (line == nullptr) return 0;
  const uint64_t own_rip = rip - line->shift;  // of the code there
  const auto mode = static_cast<Mode>(mode_of(*line, mode_) | kModeIndirect);
  const uint64_t known = cache_->find(own_rip, line->gpa_page | (rip % kPageSize), mode);
  Fragment* entry =
      known != 0 ? cache_->fragment_at(known) : translator_->make_indirect_entry(own_rip, *cache_->fragment_at(host));
  if (generation_ != cache_->generation()) {
    drop_after_removal();
    return look_up(rip);
  }
  cache_->link(*entry, entry->slots[0], host, side);
  remembered_.add_indirect(side, *line, rip, entry->host);
  return host;
}

// --- Finding code.

/// The page that code of `gpa_page` is translated for, where user code runs at the page of `rip`: shifted there
/// (mode.hh). Neighbours get neighbouring ones, so that links between them hold wherever an object lies.
uint64_t Runner::nominal_page(uint64_t rip, uint64_t gpa_page) {
  constexpr uint64_t kFirst = uint64_t{1} << 30;
  constexpr uint64_t kSpread = (uint64_t{1} << 29) - kPageSize;
  const uint32_t known = nominal_pages_.find(gpa_page, 0);
  if (known != 0 && cache_->has_code(gpa_page)) return known * kPageSize;
  const uint64_t page = rip & kPageMask;
  const uint64_t shift = likely_shift_ != 0 ? likely_shift_ : remembered_.shift_near(privilege(mode_), rip);
  const uint64_t beside = page - shift;
  const bool usable = shift != 0 && beside >= kFirst / 2 && beside < kFirst * 2 - kFirst / 4;
  const uint64_t nominal = usable ? beside : kFirst + (page & kSpread);
  nominal_pages_.set(gpa_page, 0, static_cast<uint32_t>(nominal / kPageSize));
  return nominal;
}

/// Where `rip` lies for a fetch now; the tables of mappings say so, too. nullptr: its fault is pending.
const RememberedCode::Line* Runner::fetch(uint64_t rip) {
  const unsigned side = privilege(mode_);
  const RememberedCode::Line* line = remembered_.find_line(side, rip);
  if (line == nullptr) {
    interp::Translation translation;
    if (!cpu_.translate_fetch(rip, translation)) return nullptr;
    const uint64_t gpa_page = translation.gpa.value() & kPageMask;
    const bool shifted = side == 1 && rip >= kShiftedFrom;
    const uint64_t shift = shifted ? (rip & kPageMask) - nominal_page(rip, gpa_page) : 0;
    line = &remembered_.add_line(side, rip, translation, shift);
  }
  // Another page of the same index may have taken its place.
  remembered_.set_mapping(side, *line, cache_->mapping_number((rip & kPageMask) - line->shift, line->gpa_page));
  return line;
}

/// Executable address for `rip`; 0 where its fetch faults (then that is pending) or nothing there can be translated.
/// This and the next two say where the code is shifted to, for the case that it is entered.
uint64_t Runner::look_up(uint64_t rip) {
  if (mode_is_stale_) refresh_mode();
  if (mode_ == kModeInvalid) return 0;
  const RememberedCode::Found* found = remembered_.find(privilege(mode_), rip);
  if (found == nullptr || faults_ != nullptr) return look_up_slowly(rip, mode_);
  state_.code_shift = found->shift;
  return found->host;
}

/// The same in kModePlain, for code that was just executing and found its stack in two pages.
uint64_t Runner::look_up_plain(uint64_t rip) {
  if (mode_is_stale_) refresh_mode();
  return mode_ == kModeInvalid ? 0 : look_up_slowly(rip, static_cast<Mode>(mode_ | kModePlain));
}

/// In `mode`, which is the current one or that and kModePlain.
uint64_t Runner::look_up_slowly(uint64_t rip, Mode mode) {
  ++stats_.look_ups;
  if (faults_ != nullptr) [[unlikely]]
    inject_faults(rip);
  const RememberedCode::Line* line = fetch(rip);
  if (line == nullptr) return 0;
  const uint64_t gpa_page = line->gpa_page;
  const uint64_t shift = line->shift;
  uint64_t host = cache_->find(rip - shift, gpa_page | (rip % kPageSize), mode_of(*line, mode));
  if (host == 0) host = translate(rip, *line, mode_of(*line, mode));
  state_.code_shift = shift;
  if (host == 0 || mode != mode_) return host;
  line = remembered_.find_line(privilege(mode_), rip);  // what was forgotten meanwhile may include this page
  const bool same = line != nullptr && line->gpa_page == gpa_page && line->shift == shift;
  if (same) remembered_.add(privilege(mode_), *line, rip, host);
  return host;
}

/// Sets the granules, so that later writes are noticed, and says whether they still hold what is to be translated from
/// (`expected`: the page's bytes, as far as the granules go).
bool Runner::watch(uint64_t gpa_page, uint64_t granules, const uint8_t* expected) {
  CodeWatch::Page* page = cpu_.memory->code_watch().page(Gpa(gpa_page));
  if (page == nullptr) return false;
  uint64_t version = 0;
  do {
    cpu_.safepoint->set_code_granules(cpu_, *page, granules);
    version = page->version.load(std::memory_order_seq_cst);
    // Another vCPU may be giving the page up as data just now: it clears the granules first.
  } while ((page->granules.load(std::memory_order_seq_cst) & granules) != granules);
  versions_.try_emplace(gpa_page, version);
  const std::byte* now = cpu_.memory->host_address(Gpa(gpa_page), kPageSize);
  if (now == nullptr) return false;
  for (; granules != 0; granules &= granules - 1) {
    const size_t at = static_cast<size_t>(std::countr_zero(granules)) * CodeWatch::kGranuleSize;
    std::array<uint8_t, CodeWatch::kGranuleSize> granule;
    interp::copy_host(granule.data(), now + at, granule.size());
    if (std::memcmp(granule.data(), expected + at, granule.size()) != 0) return false;
  }
  return true;
}

uint64_t Runner::translate(uint64_t rip, const RememberedCode::Line& found, Mode mode) {
  const RememberedCode::Line line = found;
  const uint64_t start_ns = now_ns();
  constexpr unsigned kTries = 8;  // another vCPU may be writing the page all the time
  Fragment* fragment = nullptr;
  for (unsigned i = 0; i < kTries; ++i) {
    if (!page_copy_.open(*cpu_.memory, line.gpa_page)) break;
    begin_looking(rip & kPageMask, line, mode);
    translator_->find(page_copy_, static_cast<unsigned>(rip % kPageSize), *this);
    if (!watch(line.gpa_page, translator_->region().granules, page_copy_.bytes().data())) {
      page_copy_.close();
      continue;
    }
    const bool empty = translator_->region().blocks[0].count == 0;
    fragment =
        empty ? translate_crossing(rip, line, mode)
              : translator_->translate((rip & kPageMask) - line.shift, line.gpa_page, line.global, mode, kNoSecondPage);
    break;
  }
  drop_after_removal();
  stats_.translation_ns += now_ns() - start_ns;
  if (fragment == nullptr) {
    ++stats_.untranslatable;
    return 0;
  }
  ++cpu_.counters.traces_decoded;
  note_looks(line.gpa_page, fragment->granules);
  if (lockstep_ == nullptr) link_ready(*fragment);
  return cache_->find(rip - line.shift, line.gpa_page | (rip % kPageSize), mode);
}

/// Links the exits of new code to what exists already in its page, which spares leaving through each once.
void Runner::link_ready(Fragment& fragment) {
  const auto mode = static_cast<Mode>(fragment.mode & static_cast<Mode>(~kModePlain));
  for (const LinkSlot& slot : fragment.slots) {
    if (slot.is_poll || slot.is_guard || slot.plain || (slot.target_rip & kPageMask) != fragment.linear_page) continue;
    const uint64_t host = cache_->find(slot.target_rip, fragment.gpa_page | slot.target_rip % kPageSize, mode);
    if (host != 0) cache_->link(fragment, slot, host, privilege(mode));
  }
}

// --- Running it.

bool Runner::must_leave() const { return cpu_.attention != 0 || state_.poke.load(std::memory_order_relaxed) != 0; }

bool Runner::run(Cpu&) {
  if (lockstep_ != nullptr) [[unlikely]]
    return run_in_lockstep();
  uint64_t host = go_on();
  if (host == 0) return ran_ || cpu_.has_fault;
  while (host != 0) {
    enter(host);
    host = after_exit();
  }
  return true;
}

/// Executable address of cpu.rip, or 0 to return to the run loop.
uint64_t Runner::go_on() {
  ran_ = false;
  if (must_leave() && !deliver_here()) return 0;
  return look_up(cpu_.rip);
}

/// What the run loop would do with a fault, where that is all that is pending: straight to its handler.
bool Runner::deliver_here() {
  const bool alone = cpu_.attention == Cpu::kAttentionFault && cpu_.debug_hits == 0 && lockstep_ == nullptr;
  if (!alone || state_.poke.load(std::memory_order_relaxed) != 0) return false;
  interp::deliver_fault(cpu_);
  ran_ = true;
  return !must_leave();
}

void Runner::enter(uint64_t host) {
  if (tlb_drops_ != cpu_.tlb.drops()) {
    tlb_drops_ = cpu_.tlb.drops();
    drop_stack_pages();
  }
  thread_->arm_deadline();
  stubs_.runtime.enter(host);
}

/// Where to go on in the middle of a block: through a stub that loads the registers that were live at the exit.
uint64_t Runner::resume_target(uint64_t host) {
  const bool vector = state_.vector_was_live != 0;
  const bool x87 = state_.x87_was_live != 0;
  if (!vector && !x87) return host;
  state_.scratch[kScratchResume] = host;
  if (vector && x87) return stubs_.resume_both;
  return vector ? stubs_.resume_vector : stubs_.resume_x87;
}

/// How far the guest RIPs of code that has just been left are from `fragment`'s.
uint64_t Runner::shift_of(const Fragment& fragment) const { return is_shifted(fragment.mode) ? state_.code_shift : 0; }

/// Executable address to go on at, or 0 to return to the run loop at cpu.rip.
uint64_t Runner::after_exit() {
  if (privilege(mode_) != (cpu_.cpl == 3 ? 1u : 0u)) follow_level();
  const uint64_t argument = state_.exit_argument;
  switch (static_cast<ExitCode>(state_.exit_code)) {
    case ExitCode::kLink: return after_link(argument);
    case ExitCode::kIndirect: return after_indirect(argument);
    case ExitCode::kInterpret: return after_interpret(*reinterpret_cast<InterpretSite*>(argument));
    case ExitCode::kSlowAccess: ++stats_.exits_slow_access; return after_fault(argument);
    case ExitCode::kHostFault: ++stats_.exits_host_fault; return after_fault(argument);
  }
  CHECK(false);
}

uint64_t Runner::after_link(uint64_t argument) {
  Fragment* from = cache_->fragment_at(argument - 1);
  CHECK(from != nullptr);
  const LinkSlot* slot = from->slot_at(argument);
  CHECK(slot != nullptr);
  const uint64_t shift = shift_of(*from);
  cpu_.rip = slot->target_rip + shift;
  if (slot->is_guard) return after_guard(cpu_.rip, from->host + from->entries[0].host_offset, from->second_gpa_page);
  if (slot->is_poll) {
    ++stats_.exits_poll;
    return 0;
  }
  ++stats_.exits_link;
  const uint64_t generation = cache_->generation();
  if (mode_is_stale_) refresh_mode();
  if (mode_ == kModeInvalid) return 0;
  likely_shift_ = shift;
  const uint64_t host = slot->plain ? look_up_plain(cpu_.rip) : look_up_slowly(cpu_.rip, mode_);
  likely_shift_ = 0;
  if (host == 0) return go_on();
  if (generation == cache_->generation() && state_.code_shift == shift)
    cache_->link(*from, *slot, host, privilege(mode_));
  return must_leave() ? 0 : host;
}

uint64_t Runner::after_indirect(uint64_t target) {
  ++stats_.exits_indirect;
  if (!x86::is_canonical(target)) {
    raise_at_branch();
    return 0;
  }
  cpu_.rip = target;
  uint64_t host = go_on();
  if (host != 0 && cpu_.rip == target) host = remember_indirect(target, host);
  return must_leave() ? 0 : host;
}

/// #GP belongs to the branch (SDM Vol. 2, JMP, CALL, RET), which is undone but for what CALL has pushed: processors
/// leave that behind, too. Not executed again: the push may have changed its operand.
void Runner::raise_at_branch() {
  const uint64_t base = cache_->stub_address();
  const uint64_t address = base + static_cast<uint32_t>(state_.scratch[kScratchBranch] - base);
  const Fragment* from = cache_->fragment_at(address);
  CHECK(from != nullptr);
  const auto branch = std::ranges::find(from->branches, address - from->host, &BranchSite::host_offset);
  CHECK(branch != from->branches.end());
  cpu_.rip = from->linear_page + shift_of(*from) + branch->guest_offset;
  cpu_.gpr[x86::kRsp] -= static_cast<uint64_t>(int64_t{branch->stack_bytes});
  cpu_.raise(x86::kGeneralProtection, 0);
}

uint64_t Runner::after_interpret(InterpretSite& site) {
  ++stats_.exits_interpret;
  const uint64_t changes = changes_;
  const uint64_t shift = site.shifted ? state_.code_shift : 0;
  const uint64_t next_rip = site.next_rip + shift;
  const uint64_t resume = site.resume;
  cpu_.gpr[Cpu::kTraceRip] = site.rip + shift;
  count_interpreted(site.operation);
  cpu_.traces->running = nullptr;
  site.steps[0].handler(cpu_, site.steps);
  const bool same = resume != 0 && cpu_.rip == next_rip && changes == changes_ && !mode_is_stale_ && !must_leave();
  return same ? resume_target(resume) : go_on();
}

/// The instruction at host `address` could not be executed as it is: the interpreter does it, or raises its exception.
uint64_t Runner::after_fault(uint64_t address) {
  const Fragment* fragment = cache_->fragment_at(address);
  CHECK(fragment != nullptr);
  const SideEntry* side = fragment->side_at(address);
  CHECK(side != nullptr);
  const uint64_t linear_page = fragment->linear_page + shift_of(*fragment);
  const uint64_t changes = changes_;
  cpu_.rip = linear_page + side->guest_offset;
  cpu_.interpret_one();
  cpu_.traces->running = nullptr;
  if (options_.translator.count_instructions) --cpu_.instructions;  // counted with its block
  const bool same = changes == changes_ && !mode_is_stale_ && !must_leave() && (cpu_.rip & kPageMask) == linear_page;
  if (same) {
    for (const SideEntry& entry : fragment->side) {
      if (entry.resumable && entry.guest_offset == cpu_.rip % kPageSize)
        return resume_target(fragment->host + entry.host_offset);
    }
  }
  return go_on();
}

}  // namespace tenon::jit
