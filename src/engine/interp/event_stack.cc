#include "engine/interp/event_stack.hh"

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/memory.hh"

namespace tenon::interp {

uint64_t StackCursor::cut(uint64_t offset) const {
  switch (address_size()) {
    case 8: return offset;
    case 4: return static_cast<uint32_t>(offset);
    default: return static_cast<uint16_t>(offset);
  }
}

uint64_t StackCursor::rsp() const {
  if (address_size() == 2) return (rsp_ & ~uint64_t{0xffff}) | static_cast<uint16_t>(offset_);
  return cut(offset_);
}

bool StackCursor::linear_of(uint64_t offset, unsigned size_bytes, uint64_t& linear) {
  if (flat64_) {
    linear = offset;
    if (x86::is_canonical(offset) && x86::is_canonical(offset + size_bytes - 1)) return true;
    return cpu_.raise(x86::kStackFault, error_);
  }
  if (stack_.unusable() || !segment_limit_allows(stack_, offset, size_bytes)) {
    return cpu_.raise(x86::kStackFault, error_);
  }
  linear = (stack_.base + offset) & 0xffffffff;
  return true;
}

bool StackCursor::push(uint64_t value, unsigned size_bytes) {
  const uint64_t offset = cut(offset_ - size_bytes);
  uint64_t linear = 0;
  if (!linear_of(offset, size_bytes, linear)) return false;
  if (!cpu_.store_linear_slow(linear, &value, size_bytes, privilege_)) return false;
  offset_ = offset;
  return true;
}

bool StackCursor::pop(unsigned size_bytes, uint64_t& value) {
  const uint64_t offset = cut(offset_);
  uint64_t linear = 0;
  value = 0;
  if (!linear_of(offset, size_bytes, linear)) return false;
  if (!cpu_.load_linear_slow(linear, &value, size_bytes, privilege_)) return false;
  offset_ = offset + size_bytes;
  return true;
}

}  // namespace tenon::interp
