// Debug exit: a guest writes a value to a port and the machine ends with a status made from it.
//
// Compatible with the "isa-debug-exit" device that kernel test suites drive at port 0xf4: writing `value` ends the
// process with status (value << 1) | 1, so that success (0) needs another way out and any write is told from a clean
// shutdown.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "vm/bus.hh"
#include "vm/device.hh"

namespace tenon {

class DebugExit final : public Device, public BusHandler {
 public:
  static constexpr uint16_t kPort = 0xf4;
  static constexpr uint16_t kPortCount = 4;

  /// The process exit status that the value asks for; the host keeps its low 8 bits.
  static constexpr int exit_status(uint32_t value) { return static_cast<int>((value << 1 | 1) & 0xff); }

  /// `on_exit` gets the value as written; runs on the vCPU thread that wrote it, possibly on several at once.
  explicit DebugExit(std::function<void(uint32_t value)> on_exit) : on_exit_(std::move(on_exit)) {}

  Result<void> map(Bus& ports) {
    mapping_ = TRY(ports.map(kPort, kPortCount, *this, "debug exit"));
    return {};
  }

  uint64_t bus_read(uint64_t /*offset*/, unsigned /*size_bytes*/) override { return 0; }
  void bus_write(uint64_t /*offset*/, unsigned /*size_bytes*/, uint64_t value) override {
    if (on_exit_) on_exit_(static_cast<uint32_t>(value));
  }

  std::string_view name() const override { return "debug_exit"; }
  void reset() override {}
  SavedState save() const override { return {.schema = "debug_exit", .version = 1, .bytes = {}}; }
  Result<void> restore(const SavedState& state) override {
    if (state.schema != "debug_exit" || state.version != 1 || !state.bytes.empty())
      return fail(ErrorCode::kCorrupt, "saved state of debug_exit: found " + state.schema);
    return {};
  }

 private:
  const std::function<void(uint32_t value)> on_exit_;
  BusMapping mapping_;
};

}  // namespace tenon
