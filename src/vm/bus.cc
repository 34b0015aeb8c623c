#include "vm/bus.hh"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.hh"
#include "base/hazard.hh"

namespace tenon {

struct Bus::Range {
  uint64_t base = 0;
  uint64_t last = 0;  // inclusive, so that a range may end at 2^64 - 1
  BusHandler* handler = nullptr;
  uint64_t id = 0;
  std::shared_ptr<const std::string> name;  // shared by all snapshots, so that a remap copies no text
};

struct Bus::Snapshot {
  std::vector<Range> ranges;  // sorted by base, no overlap
};

namespace {

uint64_t all_ones(unsigned size_bytes) {
  return size_bytes >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size_bytes)) - 1;
}

std::string describe_range(uint64_t base, uint64_t last, const std::string& name) {
  char text[64];
  std::snprintf(text, sizeof text, "0x%llx-0x%llx ", static_cast<unsigned long long>(base),
                static_cast<unsigned long long>(last));
  return text + name;
}

/// The first of `ranges` that starts above `address`.
template <typename Ranges>
auto first_above(Ranges& ranges, uint64_t address) {
  return std::upper_bound(ranges.begin(), ranges.end(), address,
                          [](uint64_t value, const auto& range) { return value < range.base; });
}

}  // namespace

BusMapping::BusMapping(BusMapping&& other) noexcept
    : bus_(std::exchange(other.bus_, nullptr)), id_(std::exchange(other.id_, 0)) {}

BusMapping& BusMapping::operator=(BusMapping&& other) noexcept {
  if (this != &other) {
    reset();
    bus_ = std::exchange(other.bus_, nullptr);
    id_ = std::exchange(other.id_, 0);
  }
  return *this;
}

void BusMapping::reset() {
  if (bus_ != nullptr) bus_->unmap(id_);
  bus_ = nullptr;
  id_ = 0;
}

Bus::Bus(std::string name) : name_(std::move(name)), snapshot_(new Snapshot) {}

Bus::~Bus() {
  const std::unique_ptr<const Snapshot> last(snapshot_.load());
  // A mapping that outlives its bus would unmap into freed memory.
  CHECK(last->ranges.empty());
}

Result<BusMapping> Bus::map(uint64_t base, uint64_t size_bytes, BusHandler& handler, std::string name) {
  uint64_t last = 0;
  if (size_bytes == 0 || __builtin_add_overflow(base, size_bytes - 1, &last))
    return fail(ErrorCode::kInvalidArgument, name_ + ": " + name + " at " + std::to_string(base) + ": " +
                                                 std::to_string(size_bytes) + " bytes do not fit");
  const MutexLock lock(mutex_);
  const Snapshot& current = *snapshot_.load(std::memory_order_relaxed);
  auto next = std::make_unique<Snapshot>(current);
  const auto above = first_above(next->ranges, base);
  const Range* clash = nullptr;
  if (above != next->ranges.end() && above->base <= last) clash = &*above;
  if (above != next->ranges.begin() && std::prev(above)->last >= base) clash = &*std::prev(above);
  if (clash != nullptr)
    return fail(ErrorCode::kInvalidArgument, name_ + ": " + describe_range(base, last, name) + " overlaps " +
                                                 describe_range(clash->base, clash->last, *clash->name));
  const uint64_t id = next_id_++;
  next->ranges.insert(above, Range{.base = base,
                                   .last = last,
                                   .handler = &handler,
                                   .id = id,
                                   .name = std::make_shared<const std::string>(std::move(name))});
  publish(std::move(next));
  return BusMapping(this, id);
}

void Bus::unmap(uint64_t id) {
  const MutexLock lock(mutex_);
  auto next = std::make_unique<Snapshot>(*snapshot_.load(std::memory_order_relaxed));
  const size_t erased = std::erase_if(next->ranges, [id](const Range& range) { return range.id == id; });
  CHECK(erased == 1);
  publish(std::move(next));
}

void Bus::publish(std::unique_ptr<const Snapshot> next) {
  retired_.emplace_back(snapshot_.exchange(next.release(), std::memory_order_seq_cst));
  std::erase_if(retired_, [](const auto& snapshot) { return !held_by_any_thread(snapshot.get()); });
}

Bus::Hit Bus::find(uint64_t address, unsigned size_bytes) const {
  const Hazard<const Snapshot> snapshot(snapshot_);
  const auto above = first_above(snapshot->ranges, address);
  if (above == snapshot->ranges.begin()) return {};
  const Range& range = *std::prev(above);
  if (address > range.last || range.last - address < size_bytes - 1) return {};
  return {.handler = range.handler, .offset = address - range.base};
}

uint64_t Bus::read(uint64_t address, unsigned size_bytes) {
  const Hit hit = find(address, size_bytes);
  if (hit.handler == nullptr) {
    unclaimed_count_.fetch_add(1, std::memory_order_relaxed);
    return all_ones(size_bytes);
  }
  return hit.handler->bus_read(hit.offset, size_bytes) & all_ones(size_bytes);
}

void Bus::write(uint64_t address, unsigned size_bytes, uint64_t value) {
  const Hit hit = find(address, size_bytes);
  if (hit.handler == nullptr) {
    unclaimed_count_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  hit.handler->bus_write(hit.offset, size_bytes, value & all_ones(size_bytes));
}

size_t Bus::retired_count() const {
  const MutexLock lock(mutex_);
  return retired_.size();
}

std::vector<std::string> Bus::describe() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> lines;
  for (const Range& range : snapshot_.load(std::memory_order_relaxed)->ranges)
    lines.push_back(describe_range(range.base, range.last, *range.name));
  return lines;
}

}  // namespace tenon
