// StartRecord: collects the pieces of the host's start record and takes it apart (spec/console_protocol.hh).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "spec/console_protocol.hh"

namespace tenon::guest {

class StartRecord {
 public:
  static constexpr size_t kStringsMax = 4096;  // arguments, and as many environment entries

  /// False where the record grows beyond kStartRecordMax.
  bool append(std::span<const uint8_t> piece);
  /// Fills the members below; false where the record is malformed.
  bool parse();

  console_protocol::StartHeader header{};
  const char* hostname = nullptr;   // nullptr where the host gave none
  const char* directory = nullptr;  // likewise
  char* const* arguments() { return arguments_; }
  char* const* environment() { return environment_; }

 private:
  bool take_string(char* text);

  char bytes_[console_protocol::kStartRecordMax];
  size_t size_ = 0;
  char* arguments_[kStringsMax + 1] = {};  // both end with nullptr
  char* environment_[kStringsMax + 1] = {};
  size_t argument_count_ = 0;
  size_t environment_count_ = 0;
};

}  // namespace tenon::guest
