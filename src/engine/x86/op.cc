#include "engine/x86/op.hh"

#include <array>
#include <cstddef>

namespace tenon::x86 {
namespace {

constexpr std::array kNames = {
    "Invalid",
#define TENON_X86_NAME(name) #name,
    TENON_X86_OPS(TENON_X86_NAME)
#undef TENON_X86_NAME
};
static_assert(kNames.size() == static_cast<size_t>(Op::kCount));

}  // namespace

const char* op_name(Op op) {
  const auto index = static_cast<size_t>(op);
  return index < kNames.size() ? kNames[index] : kNames[0];
}

}  // namespace tenon::x86
