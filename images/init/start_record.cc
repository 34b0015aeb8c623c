#include "init/start_record.hh"

#include <cstring>

namespace tenon::guest {

using namespace console_protocol;

bool StartRecord::append(std::span<const uint8_t> piece) {
  if (piece.size() > sizeof bytes_ - size_) return false;
  std::memcpy(bytes_ + size_, piece.data(), piece.size());
  size_ += piece.size();
  return true;
}

bool StartRecord::parse() {
  if (size_ < sizeof header) return false;
  header = load_wire<StartHeader>(bytes_);
  if (size_ > sizeof header && bytes_[size_ - 1] != '\0') return false;
  for (size_t at = sizeof header; at < size_; at += std::strlen(bytes_ + at) + 1)
    if (!take_string(bytes_ + at)) return false;
  const bool shell = header.mode == static_cast<uint8_t>(StartMode::kConsoleShell);
  return shell || argument_count_ > 0;
}

bool StartRecord::take_string(char* text) {
  switch (text[0]) {
    case kTagHostname: hostname = text + 1; return true;
    case kTagDirectory: directory = text + 1; return true;
    case kTagEnvironment:
      if (environment_count_ == kStringsMax) return false;
      environment_[environment_count_++] = text + 1;
      return true;
    case kTagArgument:
      if (argument_count_ == kStringsMax) return false;
      arguments_[argument_count_++] = text + 1;
      return true;
    default: return true;  // from a newer host; it does without the answer
  }
}

}  // namespace tenon::guest
