#include "engine/x86/op.hh"

#include <cstddef>
#include <iterator>

namespace tenon::x86 {
namespace {

constexpr const char* kNames[] = {"Invalid",
#define TENON_X86_NAME(name) #name,
                                  TENON_X86_OPS(TENON_X86_NAME)
#undef TENON_X86_NAME
};
static_assert(std::size(kNames) == static_cast<size_t>(Op::kCount));

}  // namespace

const char* op_name(Op op) {
  const auto index = static_cast<size_t>(op);
  return index < std::size(kNames) ? kNames[index] : kNames[0];
}

}  // namespace tenon::x86
