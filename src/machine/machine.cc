#include "machine/machine.hh"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/thread.hh"
#include "machine/guest_files.hh"

namespace tenon {

namespace {

constexpr size_t kRngSeedSize = 64;

Result<PersonalityKind> parse_personality(const std::string& name) {
  if (name == "kvm") return PersonalityKind::kKvm;
  if (name == "none") return PersonalityKind::kNone;
  return fail(ErrorCode::kInvalidArgument, fmt::format("personality \"{}\": choose kvm or none", name));
}

/// Memory types as firmware leaves them on every CPU: write-back, but uncached in the hole below 4 GiB (SDM Vol.
/// 3 12.11). Linux gives up the PAT where MTRRs are off.
void set_firmware_mtrrs(x86::CpuState& state, unsigned physical_address_bits) {
  constexpr uint64_t kEnabled = 1u << 11;
  constexpr uint64_t kWriteBack = 6;
  constexpr uint64_t kUncached = 0;
  constexpr uint64_t kValid = 1u << 11;
  const uint64_t address_mask = (uint64_t{1} << physical_address_bits) - 1;
  state.mtrr_default_type = kEnabled | kWriteBack;
  state.mtrr_variable[0] = kPciHoleStart | kUncached;
  state.mtrr_variable[1] = (~(kPciHoleEnd - kPciHoleStart - 1) & address_mask) | kValid;
}

std::vector<std::byte> random_bytes(size_t count) {
  std::random_device device;
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(device());
  return bytes;
}

/// A random UUID, version 4 (RFC 4122 4.4).
std::array<uint8_t, 16> random_uuid() {
  std::array<uint8_t, 16> uuid{};
  std::ranges::transform(random_bytes(uuid.size()), uuid.begin(), [](std::byte b) { return static_cast<uint8_t>(b); });
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x40);
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

}  // namespace

Machine::Machine(MachineConfig config) : config_(std::move(config)) {}

Result<std::unique_ptr<Machine>> Machine::create(MachineConfig config) {
  std::unique_ptr<Machine> machine(new Machine(std::move(config)));
  TRY(machine->build());
  TRY(machine->load_guest());
  return machine;
}

Machine::~Machine() { stop(); }

Result<void> Machine::build() {
  if (config_.engine_instance) {
    engine_ = std::move(config_.engine_instance);
  } else {
    EngineChoice choice = TRY(choose_engine(config_.engine));
    engine_ = std::move(choice.engine);
    engine_reason_ = std::move(choice.reason);
  }
  BoardConfig board;
  board.engine = engine_.get();
  board.clock = &clock_;
  board.vcpus = config_.cpus;
  board.memory_bytes = config_.memory_bytes;
  board.host_pages = config_.host_pages;
  board.personality = TRY(parse_personality(config_.personality));
  board.uuid = config_.uuid == decltype(config_.uuid){} ? random_uuid() : config_.uuid;
  board.serial = config_.serial;
  board.on_reset = [this] { post_reset(); };
  board.on_power_off = [this] { post_end({MachineEnd::Kind::kPowerOff, 0, "the guest switched off"}); };
  board.on_debug_exit = [this](uint32_t value) {
    post_end({MachineEnd::Kind::kDebugExit, value, fmt::format("the guest ended the machine with value {}", value)});
  };
  board_ = TRY(Board::create(board));
  for (uint32_t id = 0; id < config_.cpus; ++id) ios_.emplace_back(*board_, VcpuId{id});
  return {};
}

Result<void> Machine::load_guest() {
  BootRequest request;
  request.command_line = config_.command_line;
  request.memory = board_->memory_map();
  request.rsdp = TRY(board_->load_firmware_tables());
  request.protocol = config_.protocol;
  request.raw_address = config_.raw_address;
  request.rng_seed = random_bytes(kRngSeedSize);
  std::vector<GuestFiles::Module> modules;
  if (!config_.initrd.empty()) modules.push_back({config_.initrd, ""});
  for (const auto& [path, command_line] : config_.modules) modules.push_back({path, command_line});
  const GuestFiles files = TRY(GuestFiles::load(config_.kernel, modules, std::move(request)));
  files.copy_to(board_->memory(), memory_is_fresh_ ? GuestFiles::Zeroing::kMemoryIsZero : GuestFiles::Zeroing::kNeeded);
  memory_is_fresh_ = false;
  boot_state_ = files.image().cpu;
  kernel_description_ = files.image().description;
  return {};
}

Result<void> Machine::set_states() {
  for (uint32_t id = 0; id < config_.cpus; ++id) {
    x86::CpuState state = boot_state_;
    if (id != 0) state.reset(false);  // waits for SIPI
    set_firmware_mtrrs(state, board_->physical_address_bits());
    TRY(threads_->set_state(VcpuId{id}, state));
  }
  return {};
}

Result<void> Machine::start() {
  const MutexLock lock(lifecycle_mutex_);
  CHECK(state_ == State::kCreated);
  threads_ = std::make_unique<VcpuThreads>(*engine_, [this](VcpuId id, const Halt& halt) { vcpu_halted(id, halt); });
  std::vector<VcpuThreads::Vcpu> vcpus;
  for (uint32_t id = 0; id < config_.cpus; ++id) {
    const VcpuConfig config{
        .id = VcpuId{id}, .cpuid = board_->cpuid(VcpuId{id}), .signal = &board_->signal(VcpuId{id})};
    vcpus.push_back({config, &ios_[id]});
  }
  TRY(threads_->create(std::move(vcpus)));
  TRY(set_states());
  for (Device* device : board_->devices()) device->start();
  machine_thread_ = std::thread([this] { serve_requests(); });
  state_ = State::kRunning;
  threads_->release();
  return {};
}

void Machine::pause() {
  const MutexLock lock(lifecycle_mutex_);
  if (state_ != State::kRunning) return;
  threads_->stop();
  for (Device* device : board_->devices()) device->pause();
  clock_.pause();
  state_ = State::kPaused;
}

void Machine::resume() {
  const MutexLock lock(lifecycle_mutex_);
  if (state_ != State::kPaused) return;
  clock_.resume();
  for (Device* device : board_->devices()) device->resume();
  state_ = State::kRunning;
  threads_->release();
}

void Machine::stop() {
  if (machine_thread_.joinable()) {
    post_end({MachineEnd::Kind::kStopped, 0, "the machine was stopped"});
    machine_thread_.join();
  }
  const MutexLock lock(lifecycle_mutex_);
  if (threads_) threads_->end();
  state_ = State::kEnded;
}

MachineStats Machine::stats() const {
  const MutexLock lock(lifecycle_mutex_);
  MachineStats stats{.unclaimed_port_accesses = board_->ports().unclaimed_count(),
                     .unclaimed_mmio_accesses = board_->mmio().unclaimed_count(),
                     .resets = resets_,
                     .vcpus = {}};
  const bool has_vcpus = threads_ != nullptr && machine_thread_.joinable();
  for (uint32_t id = 0; has_vcpus && id < config_.cpus; ++id) stats.vcpus.push_back(threads_->stats(VcpuId{id}));
  return stats;
}

Result<x86::CpuState> Machine::vcpu_state(VcpuId id) {
  const MutexLock lock(lifecycle_mutex_);
  if (state_ != State::kPaused) return fail(ErrorCode::kBusy, "registers of a vCPU: pause the machine first");
  return threads_->get_state(id);
}

// --- Requests: posted by vCPU threads, performed by the machine's.

void Machine::post_reset() {
  const MutexLock lock(request_mutex_);
  if (request_ == Request::kNone) request_ = Request::kReset;
  request_posted_.notify_all();
}

void Machine::post_end(MachineEnd end) {
  const MutexLock lock(request_mutex_);
  if (request_ == Request::kEnd) return;  // the first reason counts
  request_ = Request::kEnd;
  end_ = std::move(end);
  request_posted_.notify_all();
}

void Machine::vcpu_halted(VcpuId id, const Halt& halt) {
  // SDM Vol. 3 6.15, interrupt 8: after a shutdown the board resets the processor, as a PC does.
  if (halt.reason == Halt::Reason::kTripleFault) return post_reset();
  post_end({MachineEnd::Kind::kError, 0, fmt::format("vCPU {}: {}", number(id), halt.detail)});
}

void Machine::serve_requests() {
  name_this_thread("machine");
  for (;;) {
    request_mutex_.lock();
    while (request_ == Request::kNone) request_posted_.wait(request_mutex_);
    const Request request = request_;
    const MachineEnd end = end_;
    if (request == Request::kReset) request_ = Request::kNone;
    request_mutex_.unlock();
    if (request == Request::kEnd) return finish(end);
    perform_reset();
  }
}

void Machine::perform_reset() {
  if (config_.ends_on_reset) return post_end({MachineEnd::Kind::kReset, 0, "the guest reset the machine"});
  const MutexLock lock(lifecycle_mutex_);
  threads_->stop();
  if (auto done = reset_guest(); !done)
    return post_end({MachineEnd::Kind::kError, 0, "the machine cannot start again: " + done.error().message()});
  ++resets_;
  {
    // What the stopped vCPUs asked for belongs to the machine before the reset.
    const MutexLock request_lock(request_mutex_);
    if (request_ == Request::kReset) request_ = Request::kNone;
  }
  if (state_ == State::kRunning) threads_->release();
}

Result<void> Machine::reset_guest() {
  board_->reset();
  for (uint32_t id = 0; id < config_.cpus; ++id) {
    VcpuSignal& signal = board_->signal(VcpuId{id});
    signal.take(~uint32_t{0});
    signal.set_deadline_ns(kNoDeadline);
  }
  TRY(load_guest());
  return set_states();
}

void Machine::finish(MachineEnd end) {
  {
    const MutexLock lock(lifecycle_mutex_);
    threads_->stop();
    for (Device* device : board_->devices()) device->halt();
    state_ = State::kEnded;
  }
  if (config_.on_end) config_.on_end(std::move(end));
}

}  // namespace tenon
