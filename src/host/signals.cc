#include "host/signals.hh"

#include <cstdio>
#include <cstring>

namespace tenon::signals {

const char* name_of(int number) {
  static thread_local char text[32];
  const char* name = ::sigabbrev_np(number);
  std::strcpy(text, name != nullptr ? "SIG" : "signal ");
  if (name != nullptr) return std::strncat(text, name, sizeof text - 4);
  std::snprintf(text + 7, sizeof text - 7, "%d", number);
  return text;
}

}  // namespace tenon::signals
