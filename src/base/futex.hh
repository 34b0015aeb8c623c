// Futex: sleep until a 32-bit word changes. The kernel compares the word with `expected` before it puts the caller to
// sleep, so a change between the caller's own look and the sleep is never missed.
#pragma once

#include <atomic>
#include <cstdint>

namespace tenon {

constexpr uint64_t kNoTimeout = ~uint64_t{0};

/// Sleeps while `word` holds `expected`, for at most `timeout_ns` (kNoTimeout: for ever). Returns also on a signal or
/// for no reason: the caller looks again.
void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, uint64_t timeout_ns = kNoTimeout);

/// Wakes one waiter, or all. The caller has changed the word before.
void futex_wake_one(const std::atomic<uint32_t>& word);
void futex_wake_all(const std::atomic<uint32_t>& word);

}  // namespace tenon
