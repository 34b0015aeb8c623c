#include "base/check.hh"

#include <cstdio>
#include <cstdlib>

namespace tenon {

void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "tenon: internal error, please report: %s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace tenon
