#include "machine/personality_kvm.hh"

#include <cstring>

#include "base/byte_order.hh"

namespace tenon {

namespace {

constexpr uint32_t kSavedVersion = 1;
constexpr uint64_t kWallClockAlignment = 4;

struct SavedHeader {
  le32 vcpus;
  le64 wall_clock_msr;
};
struct SavedVcpu {
  le64 system_time_msr;
  le64 tsc_offset;
  le32 version;
};
static_assert(sizeof(SavedHeader) == 12 && sizeof(SavedVcpu) == 20);

struct Scale {
  uint32_t multiplier = 0;
  int8_t shift = 0;
};

/// The pvclock form of "nanoseconds a tick": multiplier in [2^31, 2^32), so that all 32 bits count.
Scale scale_of(uint64_t tsc_hz) {
  __extension__ using Wide = unsigned __int128;
  Scale scale;
  Wide fraction = (Wide{kNanosecondsPerSecond} << 32) / tsc_hz;  // ns a tick, times 2^32
  while (fraction >= Wide{1} << 32) {
    fraction >>= 1;
    ++scale.shift;
  }
  while (fraction < Wide{1} << 31) {
    // Recomputed rather than doubled, to keep the low bits.
    --scale.shift;
    fraction = (Wide{kNanosecondsPerSecond} << (32 - scale.shift)) / tsc_hz;
  }
  scale.multiplier = static_cast<uint32_t>(fraction);
  return scale;
}

}  // namespace

KvmPersonality::KvmPersonality(const PersonalityConfig& config) : config_(config), vcpus_(config.vcpus) {
  const Scale scale = scale_of(config.clock->tsc_hz());
  tsc_to_system_mul_ = scale.multiplier;
  tsc_shift_ = scale.shift;
}

std::vector<CpuidEntry> KvmPersonality::cpuid() const {
  CpuidResult signature{.eax = kvm_pv::kFrequencyLeaf};
  std::memcpy(&signature.ebx, kvm_pv::kSignature, 4);
  std::memcpy(&signature.ecx, kvm_pv::kSignature + 4, 4);
  std::memcpy(&signature.edx, kvm_pv::kSignature + 8, 4);
  uint32_t features = kvm_pv::kNoIoDelay | kvm_pv::kClockSource2 | kvm_pv::kClockStable;
  // With in-kernel interrupt controllers PV EOI and wide destinations are the kernel's, and it is not asked for them.
  if (config_.has_own_local_apics) features |= kvm_pv::kPvEoi | kvm_pv::kMsiExtDestId;
  const CpuidResult frequency{.eax = static_cast<uint32_t>(config_.clock->tsc_hz() / 1000),
                              .ebx = static_cast<uint32_t>(config_.apic_timer_hz / 1000)};
  return {
      {.leaf = kvm_pv::kSignatureLeaf, .result = signature},
      {.leaf = kvm_pv::kFeaturesLeaf, .result = {.eax = features}},
      {.leaf = kvm_pv::kFrequencyLeaf, .result = frequency},
  };
}

bool KvmPersonality::read_msr(VcpuId vcpu, uint32_t index, uint64_t& value) {
  switch (index) {
    case kvm_pv::kMsrWallClock: value = wall_clock_msr_.load(std::memory_order_relaxed); return true;
    case kvm_pv::kMsrSystemTime: value = vcpus_[number(vcpu)].system_time_msr; return true;
    default: return false;
  }
}

bool KvmPersonality::write_msr(VcpuId vcpu, uint32_t index, uint64_t value) {
  switch (index) {
    case kvm_pv::kMsrWallClock:
      wall_clock_msr_.store(value, std::memory_order_relaxed);
      write_wall_clock(Gpa(value));
      return true;
    case kvm_pv::kMsrSystemTime:
      vcpus_[number(vcpu)].system_time_msr = value;
      write_vcpu_time(vcpus_[number(vcpu)]);
      return true;
    default: return false;
  }
}

/// hypercalls.rst: the number is in RAX, the result too; only CPL 0 may call. We implement none of them.
bool KvmPersonality::hypercall(std::span<uint64_t, 16> gpr, unsigned cpl) {
  const int64_t result = cpl != 0 ? kvm_pv::kErrorNotPermitted : kvm_pv::kErrorNoSuchCall;
  gpr[x86::kRax] = static_cast<uint64_t>(result);
  return true;
}

void KvmPersonality::tsc_offset_changed(VcpuId vcpu, uint64_t offset) {
  VcpuClock& clock = vcpus_[number(vcpu)];
  clock.tsc_offset = offset;
  write_vcpu_time(clock);
}

// A page outside RAM is ignored: the guest hurts only itself (msr.rst asks for an address in guest RAM).

void KvmPersonality::write_wall_clock(Gpa page) {
  if (page.value() == 0 || page.value() % kWallClockAlignment != 0) return;
  const uint64_t start_ns = config_.clock->wall_time_ns() - config_.clock->now_ns();
  GuestMemory& memory = *config_.memory;
  // The guest's own memory holds the version: keep it growing across registrations (fetched once).
  le32 old_version;
  if (!memory.read_object(page, old_version)) return;
  const uint32_t version = (old_version | 1u) + 1u;
  kvm_pv::WallClock clock{version - 1, static_cast<uint32_t>(start_ns / kNanosecondsPerSecond),
                          static_cast<uint32_t>(start_ns % kNanosecondsPerSecond)};
  // Odd version first, the even one last; x86 keeps stores in order, the fences keep the compiler to it.
  memory.write_object(page, clock.version);
  std::atomic_signal_fence(std::memory_order_release);
  memory.write_object(page, clock);
  std::atomic_signal_fence(std::memory_order_release);
  memory.write_object(page, le32(version));
}

void KvmPersonality::write_vcpu_time(VcpuClock& vcpu) {
  if ((vcpu.system_time_msr & kvm_pv::kSystemTimeEnable) == 0) return;
  const Gpa page(vcpu.system_time_msr & ~kvm_pv::kSystemTimeEnable);
  kvm_pv::VcpuTime time{};
  time.version = vcpu.version + 1;
  time.tsc_timestamp = vcpu.tsc_offset;  // the guest's TSC at guest time 0
  time.system_time = 0;
  time.tsc_to_system_mul = tsc_to_system_mul_;
  time.tsc_shift = static_cast<uint8_t>(tsc_shift_);
  time.flags = kvm_pv::kTimeTscStable;
  vcpu.version += 2;
  GuestMemory& memory = *config_.memory;
  memory.write_object(page, time.version);
  std::atomic_signal_fence(std::memory_order_release);
  memory.write_object(page, time);
  std::atomic_signal_fence(std::memory_order_release);
  memory.write_object(page, le32(vcpu.version));
}

void KvmPersonality::reset() {
  for (VcpuClock& vcpu : vcpus_) vcpu = {};
  wall_clock_msr_.store(0, std::memory_order_relaxed);
}

SavedState KvmPersonality::save() const {
  SavedState state{.schema = "personality_kvm", .version = kSavedVersion, .bytes = {}};
  state.bytes.resize(sizeof(SavedHeader) + vcpus_.size() * sizeof(SavedVcpu));
  const SavedHeader header{static_cast<uint32_t>(vcpus_.size()), wall_clock_msr_.load(std::memory_order_relaxed)};
  std::memcpy(state.bytes.data(), &header, sizeof header);
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    const SavedVcpu vcpu{vcpus_[i].system_time_msr, vcpus_[i].tsc_offset, vcpus_[i].version};
    std::memcpy(state.bytes.data() + sizeof header + i * sizeof vcpu, &vcpu, sizeof vcpu);
  }
  return state;
}

Result<void> KvmPersonality::restore(const SavedState& state) {
  const size_t size = sizeof(SavedHeader) + vcpus_.size() * sizeof(SavedVcpu);
  if (state.schema != "personality_kvm" || state.version != kSavedVersion || state.bytes.size() != size)
    return fail(ErrorCode::kCorrupt, "saved state of personality kvm: found " + state.schema + " of " +
                                         std::to_string(state.bytes.size()) + " bytes, wanted " + std::to_string(size));
  const auto header = load_wire<SavedHeader>(state.bytes.data());
  if (header.vcpus != vcpus_.size())
    return fail(ErrorCode::kCorrupt, "saved state of personality kvm: vCPU count differs");
  wall_clock_msr_.store(header.wall_clock_msr, std::memory_order_relaxed);
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    const auto vcpu = load_wire<SavedVcpu>(state.bytes.data() + sizeof header + i * sizeof(SavedVcpu));
    vcpus_[i] = {vcpu.system_time_msr, vcpu.tsc_offset, vcpu.version & ~1u};
    write_vcpu_time(vcpus_[i]);
  }
  return {};
}

}  // namespace tenon
