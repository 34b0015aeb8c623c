#include "base/float_trap.hh"

#include <signal.h>

namespace tenon {

namespace {

bool continue_at_resume(void* resume, HostFault& fault) {
  if (fault.signal != SIGFPE) return false;
  fault.instruction = reinterpret_cast<uintptr_t>(resume);
  return true;
}

}  // namespace

Result<FloatTrapRange> FloatTrapRange::add(std::span<const std::byte> code, const std::byte* resume) {
  return FloatTrapRange(TRY(HostFaultRange::add(code, continue_at_resume, const_cast<std::byte*>(resume))));
}

}  // namespace tenon
