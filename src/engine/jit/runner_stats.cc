// What Runner tells of itself.
#include <algorithm>
#include <bit>

#include "engine/jit/runner.hh"

namespace tenon::jit {

/// One instruction in the middle of a block, which counts all of its instructions when it is entered.
void Runner::count_interpreted(x86::Op operation) {
  if (!options_.translator.count_instructions) {
    ++cpu_.instructions;
    return;
  }
  std::atomic<uint64_t>& count = interpreted_[static_cast<size_t>(operation)];
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void Runner::publish_counters() {
  const CodeCacheStats cache = cache_->stats();
  TranslationStats stats = stats_;
  stats.fragments_made = cache.fragments_made;
  stats.instructions_translated = cache.guest_instructions_translated;
  stats.guest_bytes_translated = cache.guest_bytes_translated;
  stats.code_bytes_made = cache.code_bytes_made;
  stats.fragments_evicted = cache.fragments_evicted;
  stats.fragments_invalidated = cache.fragments_invalidated;
  stats.fragments = cache.fragments;
  stats.code_bytes = cache.code_bytes_now;
  stats.links = cache.links;
  stats.guarded_links = cache.guarded_links;
  const auto words = std::bit_cast<std::array<uint64_t, kCounters>>(stats);
  for (size_t i = 0; i < kCounters; ++i) published_[i].store(words[i], std::memory_order_relaxed);
}

void Runner::add_to(VcpuStats& stats) const {
  std::array<uint64_t, kCounters> words;
  for (size_t i = 0; i < kCounters; ++i) words[i] = published_[i].load(std::memory_order_relaxed);
  stats.translation = std::bit_cast<TranslationStats>(words);
  if (!options_.translator.count_instructions) {
    stats.instructions = 0;  // those of translated code are unknown
    return;
  }
  std::array<OperationCount, kOperations> counts;
  for (size_t i = 0; i < kOperations; ++i)
    counts[i] = {x86::op_name(static_cast<x86::Op>(i)), interpreted_[i].load(std::memory_order_relaxed)};
  const auto end = counts.begin() + static_cast<ptrdiff_t>(stats.interpreted.size());
  std::partial_sort(counts.begin(), end, counts.end(),
                    [](const OperationCount& a, const OperationCount& b) { return a.count > b.count; });
  for (size_t i = 0; i < stats.interpreted.size() && counts[i].count != 0; ++i) stats.interpreted[i] = counts[i];
}

}  // namespace tenon::jit
