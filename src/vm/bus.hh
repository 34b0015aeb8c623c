// Bus: port and MMIO ranges to handlers.
//
// Threads: lookup is lock-free and may happen on every vCPU at once; map and unmap take a mutex and publish a new
// immutable snapshot. No lock is held while a handler runs, so a handler may map, unmap, or raise an interrupt.
// A lookup holds its snapshot by a hazard pointer (base/hazard.hh) and copies handler and offset out of it, so replaced
// snapshots are freed at the latest by the next map or unmap after the lookup: a guest that moves its BARs for ever
// costs no memory. The handler call itself needs no snapshot, as handlers are not owned by it. Lifetime: unmapping does
// not wait for handlers that are running; destroy a handler only while no vCPU runs. Scaling: lookup is a binary search
// over a sorted array that is only read; its cost is the same for 1 and 500 vCPUs.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.hh"
#include "base/result.hh"
#include "vm/address.hh"

namespace tenon {

/// What a device implements to be reached by the guest. `offset` counts from the start of the mapped range,
/// `size_bytes` is 1, 2, 4 or 8 (ports: 1, 2, 4), and offset + size_bytes lies inside the range. Every value is
/// guest-controlled; any vCPU thread calls, also several at once.
class BusHandler {
 public:
  virtual ~BusHandler() = default;
  virtual uint64_t bus_read(uint64_t offset, unsigned size_bytes) = 0;
  virtual void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) = 0;
};

class Bus;

/// Keeps a range mapped for as long as it lives. Move-only.
class BusMapping {
 public:
  BusMapping() = default;
  BusMapping(BusMapping&& other) noexcept;
  BusMapping& operator=(BusMapping&& other) noexcept;
  ~BusMapping() { reset(); }
  void reset();

 private:
  friend class Bus;
  BusMapping(Bus* bus, uint64_t id) : bus_(bus), id_(id) {}
  Bus* bus_ = nullptr;
  uint64_t id_ = 0;
};

/// One address space: use one Bus for I/O ports (addresses 0-0xFFFF) and one for MMIO.
class Bus {
 public:
  explicit Bus(std::string name);
  ~Bus();
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  /// Maps [base, base + size_bytes) to `handler`. An overlap with an existing range is kInvalidArgument and names both.
  Result<BusMapping> map(uint64_t base, uint64_t size_bytes, BusHandler& handler, std::string name);

  /// A read nobody claims, or one that crosses the end of a range, answers all-ones (PCI Local Bus 3.0 3.3.3.1) and is
  /// counted in unclaimed_count().
  uint64_t read(uint64_t address, unsigned size_bytes);
  void write(uint64_t address, unsigned size_bytes, uint64_t value);

  uint64_t unclaimed_count() const { return unclaimed_count_.load(std::memory_order_relaxed); }

  /// Replaced snapshots not yet freed: at most one a lookup in progress.
  size_t retired_count() const;

  /// The mapped ranges in order, for `--stats` and tests: "0x3f8-0x3ff uart0".
  std::vector<std::string> describe() const;

 private:
  friend class BusMapping;
  struct Range;
  struct Snapshot;
  struct Hit {
    BusHandler* handler = nullptr;
    uint64_t offset = 0;
  };
  Hit find(uint64_t address, unsigned size_bytes) const;
  void unmap(uint64_t id);
  /// Makes `next` current, retires the old snapshot and frees the retired ones that no lookup holds.
  void publish(std::unique_ptr<const Snapshot> next) TENON_REQUIRES(mutex_);

  const std::string name_;

  // Writers only: map() and unmap(), from any thread.
  mutable Mutex mutex_;
  std::vector<std::unique_ptr<const Snapshot>> retired_ TENON_GUARDED_BY(mutex_);  // replaced, perhaps still looked up
  uint64_t next_id_ TENON_GUARDED_BY(mutex_) = 1;

  // Read at every access of every vCPU, so on a line that only a remap writes.
  alignas(64) std::atomic<const Snapshot*> snapshot_;  // owned; replaced under mutex_
  alignas(64) std::atomic<uint64_t> unclaimed_count_{0};
};

}  // namespace tenon
