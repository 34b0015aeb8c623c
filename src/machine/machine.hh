// Machine: one virtual machine from its files to its end. Board, vCPU threads, boot, reset, pause and power-off.
//
// Threads: the `machine` thread does what guests and vCPUs ask for (reset, power off, errors): they only post a
// request, so no handler ever waits for a vCPU. start(), pause(), resume() and stop() come from one other thread, the
// owner's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.hh"
#include "base/result.hh"
#include "engine/engine.hh"
#include "host/host_clock.hh"
#include "machine/board.hh"
#include "machine/engine_choice.hh"
#include "machine/loader/boot_image.hh"
#include "machine/vcpu_io.hh"
#include "machine/vcpu_threads.hh"

namespace tenon {

/// Why a machine ended.
struct MachineEnd {
  enum class Kind : uint8_t {
    kPowerOff,   // the guest switched off (ACPI S5)
    kReset,      // the guest reset and the machine was told to end then
    kDebugExit,  // the guest wrote `value` to the debug-exit port
    kError,      // the engine could not go on, or the guest could not be loaded again
    kStopped,    // stop()
  };
  Kind kind = Kind::kStopped;
  uint32_t value = 0;
  std::string description;  // one sentence for a person
};

struct MachineConfig {
  std::string name = "tenon";
  std::array<uint8_t, 16> uuid{};  // in SMBIOS; all zero: a random one
  EngineRequest engine;
  std::unique_ptr<Engine> engine_instance;  // instead of `engine`; for tests
  uint32_t cpus = 1;
  uint64_t memory_bytes = 512 * kMiB;
  HostPages host_pages = HostPages::kBase;
  std::string kernel;                                        // paths
  std::string initrd;                                        // empty: none
  std::vector<std::pair<std::string, std::string>> modules;  // after the initrd: path and command line (PVH, multiboot)
  std::string command_line;
  BootProtocol protocol = BootProtocol::kAuto;
  Gpa raw_address;                               // BootProtocol::kRaw
  std::string personality = "kvm";               // "kvm" or "none"
  std::array<ByteSink*, kSerialPorts> serial{};  // each outlives the machine; nullptr: not connected
  bool ends_on_reset = false;                    // instead of starting again
  /// Called once, on the machine's own thread, with all vCPUs stopped; must not call stop().
  std::function<void(MachineEnd)> on_end;
};

struct MachineStats {
  uint64_t unclaimed_port_accesses = 0;
  uint64_t unclaimed_mmio_accesses = 0;
  uint64_t resets = 0;
  std::vector<VcpuStats> vcpus;
};

class Machine {
 public:
  /// Chooses the engine, builds the board, reads and checks kernel and initrd. Nothing runs yet.
  static Result<std::unique_ptr<Machine>> create(MachineConfig config);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// Creates the vCPUs and lets them run.
  Result<void> start();
  /// Guest time stands still from here to resume(). No effect once the machine has ended.
  void pause();
  void resume();
  /// Ends the machine from outside; returns when no thread of it runs any more. Idempotent.
  void stop();
  /// The ACPI power button: a polite request to the guest.
  void press_power_button() { board_->power().press_power_button(); }

  Uart16550& serial(unsigned n) { return board_->serial(n); }
  Board& board() { return *board_; }
  std::string_view engine_name() const { return engine_->name(); }
  const std::string& engine_reason() const { return engine_reason_; }
  /// "bzImage 6.1.0-9 (lz4), 64-bit boot protocol".
  const std::string& kernel_description() const { return kernel_description_; }
  MachineStats stats() const;
  /// Registers of a vCPU, between pause() and resume(); kBusy otherwise, also where the guest ended before the pause.
  Result<x86::CpuState> vcpu_state(VcpuId id);

 private:
  enum class State : uint8_t { kCreated, kRunning, kPaused, kEnded };
  /// What vCPU threads ask the machine thread for; the most severe pending one wins.
  enum class Request : uint8_t { kNone, kReset, kEnd };

  explicit Machine(MachineConfig config);
  Result<void> build();
  /// Reads the files, loads memory and sets the state of every vCPU's registers to be.
  Result<void> load_guest();
  Result<void> set_states();
  Result<void> reset_guest();

  void post_reset();
  void post_end(MachineEnd end);
  void vcpu_halted(VcpuId id, const Halt& halt);
  void serve_requests();
  void perform_reset();
  void finish(MachineEnd end);

  MachineConfig config_;
  std::unique_ptr<Engine> engine_;
  std::string engine_reason_;
  std::string kernel_description_;
  HostClock clock_;
  std::unique_ptr<Board> board_;
  std::vector<VcpuIo> ios_;
  x86::CpuState boot_state_;
  bool memory_is_fresh_ = true;  // nothing has run yet: memory the loader does not write is zero

  // Taken for every change of lifecycle; never by a vCPU thread. Before request_mutex_.
  mutable Mutex lifecycle_mutex_;
  State state_ TENON_GUARDED_BY(lifecycle_mutex_) = State::kCreated;
  uint64_t resets_ TENON_GUARDED_BY(lifecycle_mutex_) = 0;

  Mutex request_mutex_;
  Condition request_posted_;
  Request request_ TENON_GUARDED_BY(request_mutex_) = Request::kNone;  // vCPU threads post, the machine thread takes
  MachineEnd end_ TENON_GUARDED_BY(request_mutex_);

  std::unique_ptr<VcpuThreads> threads_;
  std::thread machine_thread_;
};

}  // namespace tenon
