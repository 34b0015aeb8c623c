// FdWriter: a sink that writes to a descriptor (stdout, stderr, a file) on a thread of its own.
//
// The descriptor is shared with other processes (a terminal, a pipe), so it is not made non-blocking; a reader that
// stops holds up this thread only.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.hh"
#include "vm/byte_channel.hh"

namespace tenon {

class FdWriter final : public ByteSink {
 public:
  struct Callbacks {
    /// Bytes have been written (or dropped, because of an error). On the writer's thread; must not call the writer
    /// back.
    std::function<void(size_t size_bytes)> written;
    /// Writing has failed with this errno; everything from now on is dropped. Likewise, once.
    std::function<void(int error_number)> failed;
  };

  /// Writes to a duplicate of `fd`, which stays the caller's. `thread_name` shows in `top -H`.
  static Result<std::unique_ptr<FdWriter>> create(int fd, const std::string& thread_name, Callbacks callbacks = {});
  /// Waits for what is queued, but not longer than two seconds in all; no callback runs any more.
  ~FdWriter() override;
  FdWriter(const FdWriter&) = delete;
  FdWriter& operator=(const FdWriter&) = delete;

  void write(std::span<const uint8_t> bytes) override;
  void write(std::string_view text) { write(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size())); }
  /// Waits until everything queued before is written; false where that takes longer than `timeout_ms`.
  bool drain(unsigned timeout_ms);

 private:
  struct State;
  explicit FdWriter(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with the thread, which may outlive this object where the reader never reads
};

}  // namespace tenon
