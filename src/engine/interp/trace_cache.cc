#include "engine/interp/trace_cache.hh"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <span>

#include "base/check.hh"
#include "engine/interp/cpu_inline.hh"
#include "engine/interp/safepoint.hh"
#include "engine/interp/trace_builder.hh"

namespace tenon::interp {
namespace {

constexpr unsigned kTraceBytesMax = kTraceStepsMax * x86::kInsnLengthMax;

/// Stands in for every step of a trace whose bytes have changed under it: the instruction is fetched anew.
void leave_stale(Cpu& cpu, const Step* step) { return cpu.leave_at(step); }

/// First step of a trace whose one instruction lies in two pages: the run loop has checked only the first.
void check_second_page(Cpu& cpu, const Step* step) {
  Trace* trace = cpu.traces->running;
  if (trace->second_page->version.load(std::memory_order_acquire) == trace->second_version) return next(cpu, step);
  trace->version = ~uint64_t{0};  // the next look-up compares the bytes again
  return cpu.leave_at(step);
}

}  // namespace

void end_of_trace(Cpu& cpu, const Step* step) { cpu.rip = cpu.this_rip(step); }

/// Guest code bytes from `gpa` on. `second_*`: where the first instruction goes on in the next page, if it does.
struct TraceCache::Source {
  uint64_t linear = 0;
  uint64_t gpa = 0;
  x86::CodeSize code_size = x86::CodeSize::k16;
  CodeWatch::Page* page = nullptr;
  uint64_t version = 0;
  bool crosses = false;
  uint64_t second_gpa = 0;
  CodeWatch::Page* second_page = nullptr;
  uint64_t second_version = 0;
  unsigned in_first = 0;  // bytes that lie in the first page
  unsigned available = 0;
  std::array<uint8_t, kTraceBytesMax + 16> bytes;
};

struct TraceCache::Decoded {
  std::array<Insn, kTraceStepsMax> insns;
  unsigned count = 0;
  unsigned size_bytes = 0;  // of all instructions, or of the bytes that decide that the only one is invalid
  x86::DecodeStatus status = x86::DecodeStatus::kOk;  // of the instruction after the last good one
};

TraceCache::TraceCache(size_t arena_bytes_max)
    : front_(kFrontEntries), buckets_(kBuckets), chunks_max_(std::max<size_t>(1, arena_bytes_max / kChunkBytes)) {
  start_over(contexts_[0]);
  start_over(upper_);
}

// --- Look-up.

Trace* TraceCache::find(Cpu& cpu) { return find_kind(cpu, TraceKind::kNormal); }

Trace* TraceCache::find_single(Cpu& cpu) { return find_kind(cpu, TraceKind::kSingle); }

Trace* TraceCache::find_kind(Cpu& cpu, TraceKind kind) {
  const uint64_t limit = cpu.in_long_mode ? ~uint64_t{0} : cpu.state.segments[x86::kCs].limit;
  if (cpu.rip > limit) {
    cpu.raise(x86::kGeneralProtection, 0);
    return nullptr;
  }
  Source source;
  source.linear = (cpu.rip + cpu.code_base) & cpu.linear_mask;
  source.code_size = cpu.code_size;
  if (!translate(cpu, source.linear, source.gpa)) return nullptr;
  bool faulted = false;
  Trace* trace = find_kept(cpu, source, kind, faulted);
  if (faulted) return nullptr;
  if (trace == nullptr) trace = build(cpu, source, kind);
  if (trace == nullptr) return nullptr;
  if (trace->size_bytes - uint64_t{1} > limit - cpu.rip) {
    // The run passes the CS limit: go one by one, up to the instruction that does.
    if (kind == TraceKind::kNormal) return find_kind(cpu, TraceKind::kSingle);
    cpu.raise(x86::kGeneralProtection, 0);
    return nullptr;
  }
  const bool may_cache = (stamp_low_ & 8) == 0 && kind == TraceKind::kNormal;
  if (may_cache) {
    front_[front_index(source.linear)] = {source.linear, stamps_[source.linear >> 63], trace, 0};
  }
  return trace;
}

bool TraceCache::translate(Cpu& cpu, uint64_t linear, uint64_t& gpa) {
  const uint64_t page = linear / kPageSize;
  Half& half = *halves_[linear >> 63];
  const uint64_t stamp = half.generation << 8 | (stamp_low_ & 4);
  FetchEntry& entry = fetch_[page % kFetchEntries];
  if (entry.page != page || entry.stamp != stamp) {
    Translation translation;
    if (!cpu.translate_fetch(linear, translation)) return false;
    entry = {page, stamp, translation.gpa.value() & ~(kPageSize - 1)};
    half.pages_seen.set(page % kPageFilterBits);
    (translation.global ? half.has_global : half.has_local) = true;
  }
  gpa = entry.gpa | (linear % kPageSize);
  return true;
}

Trace* TraceCache::find_kept(Cpu& cpu, const Source& source, TraceKind kind, bool& faulted) {
  Trace** link = &buckets_[bucket_index(source.gpa)];
  while (Trace* trace = *link) {
    if (trace->poisoned) {  // code that is rewritten again and again must not make its bucket long
      *link = trace->next_in_bucket;
      continue;
    }
    link = &trace->next_in_bucket;
    if (trace->gpa != source.gpa || trace->code_size != source.code_size || trace->kind != kind) continue;
    if (trace->second_page != nullptr) {
      uint64_t second_gpa = 0;
      const uint64_t second_linear = ((source.linear & ~(kPageSize - 1)) + kPageSize) & cpu.linear_mask;
      faulted = !translate(cpu, second_linear, second_gpa);
      if (faulted) return nullptr;
      if (second_gpa != trace->second_gpa) continue;
    }
    if (revalidate(cpu, *trace)) return trace;
  }
  return nullptr;
}

/// Whether the bytes are still those the trace was made from.
bool TraceCache::revalidate(Cpu& cpu, Trace& trace) {
  const bool current = trace.page->version.load(std::memory_order_acquire) == trace.version &&
                       (trace.second_page == nullptr ||
                        trace.second_page->version.load(std::memory_order_acquire) == trace.second_version);
  if (current) return true;
  Source source;
  source.gpa = trace.gpa;
  source.page = trace.page;
  source.crosses = trace.second_page != nullptr;
  source.second_gpa = trace.second_gpa;
  source.second_page = trace.second_page;
  const bool same = watch_source(cpu, source, trace.size_bytes) &&
                    std::memcmp(source.bytes.data(), trace.bytes(), trace.size_bytes) == 0;
  if (!same) {
    trace.poisoned = true;
    return false;
  }
  trace.version = source.version;
  trace.second_version = source.second_version;
  return true;
}

// --- Reading guest code.

CodeWatch::Page* TraceCache::page_of(const Cpu& cpu, uint64_t gpa) {
  CodeWatch::Page* page = cpu.memory->code_watch().page(Gpa(gpa));
  return page == nullptr ? &no_page_ : page;
}

/// Copies from the first page and, where `source.crosses`, the second one. Nothing answers outside RAM: all ones.
bool TraceCache::read_source(Cpu& cpu, Source& source) {
  const auto copy = [&](uint64_t gpa, unsigned at, unsigned size_bytes) {
    std::span<uint8_t> out(source.bytes.data() + at, size_bytes);
    if (!cpu.memory->read(Gpa(gpa), std::as_writable_bytes(out))) std::ranges::fill(out, uint8_t{0xff});
  };
  const auto left_in_page = static_cast<unsigned>(kPageSize - source.gpa % kPageSize);
  const auto size = static_cast<unsigned>(source.bytes.size());
  source.in_first = std::min(left_in_page, size);
  copy(source.gpa, 0, source.in_first);
  source.available = source.in_first;
  if (!source.crosses) return true;
  copy(source.second_gpa, source.in_first, x86::kInsnLengthMax);
  source.available += x86::kInsnLengthMax;
  return true;
}

/// Sets granules for the first `size_bytes` and reads them again, so that every later write to them is noticed.
bool TraceCache::watch_source(Cpu& cpu, Source& source, unsigned size_bytes) {
  const auto left_in_page = static_cast<unsigned>(kPageSize - source.gpa % kPageSize);
  source.version = watch(cpu, *source.page, source.gpa, std::min(size_bytes, left_in_page));
  if (source.crosses) {
    // At least one byte of the second page: an instruction cut off by its end was read from there too.
    const unsigned in_second = std::max(size_bytes, left_in_page + 1) - left_in_page;
    source.second_version = watch(cpu, *source.second_page, source.second_gpa, in_second);
  }
  return read_source(cpu, source);
}

/// Sets the granules of [gpa, gpa + size) and returns the version from which on all writes are seen.
uint64_t TraceCache::watch(Cpu& cpu, CodeWatch::Page& page, uint64_t gpa, uint64_t size_bytes) {
  if (&page == &no_page_) return 0;
  const uint64_t first = gpa % kPageSize / CodeWatch::kGranuleSize;
  const uint64_t last = (gpa % kPageSize + size_bytes - 1) / CodeWatch::kGranuleSize;
  const uint64_t mask = (~uint64_t{0} << first) & (~uint64_t{0} >> (63 - last));
  for (;;) {
    cpu.safepoint->set_code_granules(cpu, page, mask);
    const uint64_t version = page.version.load(std::memory_order_seq_cst);
    // give_up_code() of another vCPU clears first and then grows the version: seen together they are no good.
    if ((page.granules.load(std::memory_order_seq_cst) & mask) == mask) return version;
  }
}

// --- Building.

namespace {

/// Instructions after which a trace goes on where they do not branch.
bool falls_through(x86::Op op) {
  switch (op) {
    case x86::Op::kJcc:
    case x86::Op::kJcxz:
    case x86::Op::kLoop:
    case x86::Op::kLoope:
    case x86::Op::kLoopne:
    case x86::Op::kInto: return true;
    default: return false;
  }
}

bool ends_trace(const x86::OpcodeRow& row) {
  return (row.flags & (x86::kBranch | x86::kSerializing)) != 0 && !falls_through(row.op);
}

}  // namespace

Trace* TraceCache::build(Cpu& cpu, Source& source, TraceKind kind) {
  ++cpu.counters.traces_decoded;
  source.page = page_of(cpu, source.gpa);
  const unsigned count_max = kind == TraceKind::kSingle ? 1 : kTraceStepsMax;
  for (;;) {
    read_source(cpu, source);
    Decoded decoded;
    while (decoded.count < count_max) {
      Insn& insn = decoded.insns[decoded.count];
      const std::span<const uint8_t> rest(source.bytes.data() + decoded.size_bytes,
                                          source.available - decoded.size_bytes);
      decoded.status = rest.empty() ? x86::DecodeStatus::kTruncated : x86::decode(rest, source.code_size, insn);
      const bool in_first_page = decoded.size_bytes + insn.length <= source.in_first || decoded.count == 0;
      if (decoded.status != x86::DecodeStatus::kOk || !in_first_page) break;
      decoded.size_bytes += insn.length;
      ++decoded.count;
      if (ends_trace(*insn.row)) break;
    }
    if (decoded.count == 0 && decoded.status == x86::DecodeStatus::kTruncated && !source.crosses) {
      const uint64_t second_linear = ((source.linear & ~(kPageSize - 1)) + kPageSize) & cpu.linear_mask;
      const uint64_t last_byte = kPageSize - source.linear % kPageSize;  // the fetch passes the page: CS limit first
      if (!cpu.in_long_mode && last_byte > cpu.state.segments[x86::kCs].limit - cpu.rip) {
        cpu.raise(x86::kGeneralProtection, 0);
        return nullptr;
      }
      if (!translate(cpu, second_linear, source.second_gpa)) return nullptr;
      source.second_page = page_of(cpu, source.second_gpa);
      source.crosses = true;
      continue;
    }
    if (decoded.count == 0) decoded.size_bytes = std::min(source.available, x86::kInsnLengthMax);
    const auto before = source.bytes;
    watch_source(cpu, source, decoded.size_bytes);
    if (std::memcmp(before.data(), source.bytes.data(), decoded.size_bytes) == 0)
      return assemble(cpu, source, decoded, kind);
  }
}

Trace* TraceCache::assemble(Cpu& cpu, const Source& source, const Decoded& decoded, TraceKind kind) {
  const bool second = source.crosses && decoded.size_bytes > source.in_first;
  TraceBuilder builder(cpu, source.code_size);
  if (second) builder.add_helper(check_second_page);
  for (unsigned i = 0; i < decoded.count; ++i) builder.add(decoded.insns[i]);
  if (decoded.count == 0) builder.add_undecodable(decoded.status);
  builder.finish(end_of_trace);

  const std::span<const Step> steps = builder.steps();
  void* memory = allocate(sizeof(Trace) + steps.size_bytes() + decoded.size_bytes);
  Trace* trace = new (memory) Trace;
  trace->page = source.page;
  trace->version = source.version;
  trace->gpa = source.gpa;
  trace->second_page = second ? source.second_page : nullptr;
  trace->second_version = source.second_version;
  trace->second_gpa = source.second_gpa;
  trace->size_bytes = static_cast<uint16_t>(decoded.size_bytes);
  trace->instructions = static_cast<uint8_t>(std::max(decoded.count, 1u));
  trace->step_count = static_cast<uint8_t>(steps.size());
  trace->code_size = source.code_size;
  trace->kind = kind;
  std::ranges::copy(steps, trace->steps());
  std::memcpy(trace->bytes(), source.bytes.data(), decoded.size_bytes);
  Trace*& bucket = buckets_[bucket_index(trace->gpa)];
  trace->next_in_bucket = bucket;
  bucket = trace;
  return trace;
}

/// Called between traces only, so nothing points into the arena but the caches emptied here.
void* TraceCache::allocate(size_t size_bytes) {
  size_bytes = (size_bytes + alignof(Trace) - 1) & ~(alignof(Trace) - 1);
  CHECK(size_bytes <= kChunkBytes - alignof(Trace));
  if (chunk_used_ + size_bytes > kChunkBytes) {
    if (chunks_.size() == chunks_max_) {
      std::ranges::fill(front_, FrontEntry{});
      std::ranges::fill(buckets_, nullptr);
      chunks_.clear();
      running = nullptr;
    }
    chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(kChunkBytes));
    const auto start = reinterpret_cast<uintptr_t>(chunks_.back().get());
    chunk_used_ = (alignof(Trace) - start % alignof(Trace)) % alignof(Trace);
  }
  void* memory = chunks_.back().get() + chunk_used_;
  chunk_used_ += size_bytes;
  return memory;
}

// --- Forgetting.

void TraceCache::update_stamps() {
  for (unsigned half = 0; half < 2; ++half) stamps_[half] = halves_[half]->generation << 8 | stamp_low_;
}

void TraceCache::start_over(Half& half) {
  half.generation = ++generation_last_;
  half.has_local = half.has_global = false;
  half.pages_seen.reset();
  update_stamps();
}

/// From now on the lower half means what it meant when `context` was left, or nothing yet.
void TraceCache::enter_context(uint64_t context) {
  if (halves_[0]->context == context) return;
  // An INVLPG elsewhere would have to find global translations here.
  if (halves_[0]->has_global) halves_[0]->context = 0;
  const auto kept = std::ranges::find(contexts_, context, &Half::context);
  if (kept != contexts_.end()) {
    halves_[0] = &*kept;
    return update_stamps();
  }
  halves_[0] = &contexts_[next_context_++ % kContexts];
  halves_[0]->context = context;
  start_over(*halves_[0]);
}

void TraceCache::forget_translations(bool keep_global, uint64_t context) {
  if (!keep_global) {
    for (Half& half : contexts_) half.context = 0;
  }
  enter_context(context);
  if (!keep_global || upper_.has_local) start_over(upper_);
}

void TraceCache::forget_translation(uint64_t linear, uint64_t size_bytes) {
  Half& half = *halves_[linear >> 63];
  bool seen = size_bytes >= kPageFilterBits * kPageSize;
  for (uint64_t at = 0; at < size_bytes && !seen; at += kPageSize)
    seen = half.pages_seen.test((linear + at) / kPageSize % kPageFilterBits);
  if (seen) start_over(half);
}

void TraceCache::forget_context(uint64_t context) {
  const auto kept = std::ranges::find(contexts_, context, &Half::context);
  if (kept != contexts_.end()) kept->context = 0;
}

/// Code segments with a base or a limit do not use the front cache, which knows neither.
void TraceCache::context_changed(const Cpu& cpu) {
  const bool flat = cpu.in_long_mode || (cpu.code_base == 0 && cpu.state.segments[x86::kCs].limit == 0xffffffff);
  stamp_low_ = static_cast<uint64_t>(cpu.code_size) | (cpu.cpl == 3 ? 4 : 0) | (flat ? 0 : 8);
  update_stamps();
}

void TraceCache::code_written(Cpu& cpu, Gpa gpa, uint64_t size_bytes) {
  const CodeWatch& watch_table = cpu.memory->code_watch();
  const bool hit = watch_table.note_write(gpa, size_bytes, &cpu.change_listener);
  if (hit && cpu.accelerator != nullptr) cpu.accelerator->code_changed(gpa, size_bytes);
  CodeWatch::Page* page = watch_table.page(gpa);
  if (page != nullptr && page->granules.load(std::memory_order_relaxed) != 0 && counts_as_data(*page))
    give_up_code(cpu, *page, Gpa(gpa.value() - gpa.page_offset()));
  if (running == nullptr || running->poisoned) return;
  const bool stale = running->page->version.load(std::memory_order_relaxed) != running->version ||
                     (running->second_page != nullptr &&
                      running->second_page->version.load(std::memory_order_relaxed) != running->second_version);
  if (!stale) return;
  running->poisoned = true;
  for (Step& step : std::span(running->steps(), running->step_count - 1u)) step.handler = leave_stale;
}

/// Counts a store. A page that is stored to again and again holds data now (or code is being written there).
bool TraceCache::counts_as_data(CodeWatch::Page& page) {
  auto& [counted, stores] = data_stores_[(reinterpret_cast<uintptr_t>(&page) / sizeof page) % data_stores_.size()];
  if (counted != &page) {
    counted = &page;
    stores = 0;
  }
  if (++stores < kStoresToData) return false;
  stores = 0;
  return true;
}

/// Without granules stores to the page get their TLB entries back. Code in it is looked at anew when it next runs.
void TraceCache::give_up_code(Cpu& cpu, CodeWatch::Page& page, Gpa start) {
  const auto tell = [&] {
    page.version.fetch_add(1, std::memory_order_seq_cst);
    cpu.memory->code_watch().changes().note(start, kPageSize, &cpu.change_listener);
  };
  // Before: stores that nobody sees come only after everybody is told. After: for what others decode meanwhile.
  tell();
  page.granules.store(0, std::memory_order_seq_cst);
  tell();
  if (cpu.accelerator != nullptr) cpu.accelerator->code_changed(start, kPageSize);
}

// --- Cpu's side.

void Cpu::forget_code_translations(bool keep_global) {
  traces->forget_translations(keep_global, tlb.context());
  if (accelerator != nullptr) accelerator->forget_code_translations(keep_global);
}
void Cpu::forget_code_translations_of(uint64_t context) {
  traces->forget_context(context);
  if (accelerator != nullptr) accelerator->forget_code_translations_of(context);
}
void Cpu::forget_code_translation(uint64_t linear, uint64_t size_bytes) {
  traces->forget_translation(linear, size_bytes);
  if (accelerator != nullptr) accelerator->forget_code_translation(linear, size_bytes);
}
void Cpu::code_context_changed() {
  traces->context_changed(*this);
  if (accelerator != nullptr) accelerator->code_context_changed(*this);
  if ((state.dr7 & 0xff) != 0) attention |= kAttentionStep;
}
void Cpu::code_written(Gpa gpa, uint64_t size_bytes) { traces->code_written(*this, gpa, size_bytes); }

}  // namespace tenon::interp
