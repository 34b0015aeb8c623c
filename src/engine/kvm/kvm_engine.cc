#include "engine/kvm/kvm_engine.hh"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>
#include <x86intrin.h>

#include <array>
#include <vector>

#include "engine/kvm/kvm_ioctl.hh"
#include "engine/kvm/kvm_vcpu.hh"

namespace tenon {

namespace kvm {

namespace {

struct CapabilityRow {
  int capability;
  const char* name;
};
constexpr std::array kNeeded = {
    CapabilityRow{KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
    CapabilityRow{KVM_CAP_PIT2, "in-kernel timer"},
    CapabilityRow{KVM_CAP_IRQFD, "irqfd"},
    CapabilityRow{KVM_CAP_IOEVENTFD, "ioeventfd"},
    CapabilityRow{KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"},
    CapabilityRow{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    CapabilityRow{KVM_CAP_X86_USER_SPACE_MSR, "MSR exits"},
    CapabilityRow{KVM_CAP_X86_MSR_FILTER, "MSR filter"},
    CapabilityRow{KVM_CAP_XSAVE, "XSAVE"},
    CapabilityRow{KVM_CAP_XCRS, "XCR"},
    CapabilityRow{KVM_CAP_TSC_DEADLINE_TIMER, "TSC-deadline timer"},
};

// Below 4 GiB and above every extent and device window of the board (KVM API 4.30: three pages for real-mode task
// state).
constexpr uint64_t kTssAddress = 0xfffbd000;
constexpr uint64_t kIdentityMapAddress = 0xfffbc000;

// MSRs of the paravirtual families belong to the machine's personality, also where KVM has its own idea of them.
struct MsrRange {
  uint32_t base;
  uint32_t count;
};
constexpr std::array kPersonalityMsrs = {MsrRange{0x4b564d00, 0x100}, MsrRange{0x40000000, 0x200}};

}  // namespace

class KvmEngine final : public Engine, public InterruptSink {
 public:
  static Result<std::unique_ptr<KvmEngine>> create();

  std::string_view name() const override { return "kvm"; }
  Result<std::vector<CpuidEntry>> supported_cpuid() const override;
  InterruptSink* in_kernel_interrupts() override { return this; }
  Result<void> attach(GuestMemory& memory, Clock& clock) override;
  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override;
  Result<void> add_doorbell(const Doorbell& doorbell, const Eventfd& event) override;
  Result<void> add_interrupt_event(Gsi gsi, const Eventfd& event) override;

  void set_gsi(Gsi gsi, bool level) override;
  void send_msi(const MsiMessage& message) override;

 private:
  KvmEngine(Fd kvm, Fd vm, size_t run_size) : kvm_(std::move(kvm)), vm_(std::move(vm)), run_size_bytes_(run_size) {}
  Result<void> create_chips();
  Result<void> filter_msrs();

  Fd kvm_;
  Fd vm_;
  size_t run_size_bytes_;
  uint64_t host_tsc_offset_ = 0;
};

Result<std::unique_ptr<KvmEngine>> KvmEngine::create() {
  Fd kvm = TRY(Fd::open("/dev/kvm", O_RDWR));
  if (const int version = TRY(KVM_IOCTL(kvm, KVM_GET_API_VERSION, 0)); version != KVM_API_VERSION)
    return fail(ErrorCode::kUnsupported, fmt::format("/dev/kvm: API version {}, want {}", version, KVM_API_VERSION));
  for (const CapabilityRow& row : kNeeded)
    if (TRY(KVM_IOCTL(kvm, KVM_CHECK_EXTENSION, row.capability)) == 0)
      return fail(ErrorCode::kUnsupported,
                  fmt::format("/dev/kvm: this kernel has no {}; use --engine interp", row.name));
  const int run_size = TRY(KVM_IOCTL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
  Fd vm(TRY(KVM_IOCTL(kvm, KVM_CREATE_VM, 0)));
  std::unique_ptr<KvmEngine> engine(new KvmEngine(std::move(kvm), std::move(vm), static_cast<size_t>(run_size)));
  TRY(engine->create_chips());
  TRY(engine->filter_msrs());
  return engine;
}

Result<void> KvmEngine::create_chips() {
  TRY(KVM_IOCTL(vm_, KVM_SET_IDENTITY_MAP_ADDR, &kIdentityMapAddress));
  TRY(KVM_IOCTL(vm_, KVM_SET_TSS_ADDR, kTssAddress));
  // KVM API 7.5 KVM_CAP_X2APIC_API: 32-bit destinations, so that APIC IDs above 254 work.
  kvm_enable_cap x2apic{};
  x2apic.cap = KVM_CAP_X2APIC_API;
  x2apic.args[0] = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
  TRY(KVM_IOCTL(vm_, KVM_ENABLE_CAP, &x2apic));
  TRY(KVM_IOCTL(vm_, KVM_CREATE_IRQCHIP, 0));
  kvm_pit_config pit{};
  pit.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 too
  TRY(KVM_IOCTL(vm_, KVM_CREATE_PIT2, &pit));
  return {};
}

Result<void> KvmEngine::filter_msrs() {
  kvm_enable_cap exits{};
  exits.cap = KVM_CAP_X86_USER_SPACE_MSR;
  exits.args[0] = KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL;
  TRY(KVM_IOCTL(vm_, KVM_ENABLE_CAP, &exits));
  // A clear bit denies, and denial exits with reason "filter" (KVM API 4.97).
  std::array<uint8_t, 0x200 / 8> all_denied{};
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  for (size_t i = 0; i < kPersonalityMsrs.size(); ++i) {
    CHECK(kPersonalityMsrs[i].count <= all_denied.size() * 8);
    filter.ranges[i].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    filter.ranges[i].base = kPersonalityMsrs[i].base;
    filter.ranges[i].nmsrs = kPersonalityMsrs[i].count;
    filter.ranges[i].bitmap = all_denied.data();
  }
  TRY(KVM_IOCTL(vm_, KVM_X86_SET_MSR_FILTER, &filter));
  return {};
}

Result<std::vector<CpuidEntry>> KvmEngine::supported_cpuid() const {
  constexpr unsigned kEntriesMax = 256;
  CpuidList cpuid(kEntriesMax);
  TRY(KVM_IOCTL(kvm_, kGetSupportedCpuid, cpuid.data()));
  std::vector<CpuidEntry> entries;
  for (uint32_t i = 0; i < cpuid.count_word(); ++i) {
    const kvm_cpuid_entry2& in = cpuid[i];
    if ((in.function & 0xffff0000u) == 0x40000000u) continue;  // the personality's
    CpuidEntry entry{.leaf = in.function,
                     .subleaf = in.index,
                     .subleaf_matters = (in.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                     .result = {in.eax, in.ebx, in.ecx, in.edx}};
    // KVM_GET_SUPPORTED_CPUID leaves the TSC-deadline timer out although the in-kernel APIC has it (KVM API 4.46).
    if (in.function == 1) entry.result.ecx |= 1u << 24;
    entries.push_back(entry);
  }
  return entries;
}

Result<void> KvmEngine::attach(GuestMemory& memory, Clock& clock) {
  uint32_t slot = 0;
  for (const Extent& extent : memory.extents()) {
    kvm_userspace_memory_region region{};
    region.slot = slot++;
    region.flags = extent.kind == ExtentKind::kRom ? KVM_MEM_READONLY : 0;
    region.guest_phys_addr = extent.range.base.value();
    region.memory_size = extent.range.size_bytes;
    region.userspace_addr = reinterpret_cast<uintptr_t>(extent.host);
    TRY(KVM_IOCTL(vm_, KVM_SET_USER_MEMORY_REGION, &region));
  }
  host_tsc_offset_ = clock.now_tsc() - __rdtsc();
  return {};
}

Result<std::unique_ptr<Vcpu>> KvmEngine::create_vcpu(const VcpuConfig& config) {
  return TRY(KvmVcpu::create(vm_, config, {.run_size_bytes = run_size_bytes_, .host_tsc_offset = host_tsc_offset_}));
}

Result<void> KvmEngine::add_doorbell(const Doorbell& doorbell, const Eventfd& event) {
  kvm_ioeventfd request{};
  request.addr = doorbell.address;
  request.len = doorbell.size_bytes;
  request.fd = event.get();
  request.datamatch = doorbell.value;
  request.flags =
      (doorbell.is_port ? KVM_IOEVENTFD_FLAG_PIO : 0) | (doorbell.match_value ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0);
  TRY(KVM_IOCTL(vm_, KVM_IOEVENTFD, &request));
  return {};
}

Result<void> KvmEngine::add_interrupt_event(Gsi gsi, const Eventfd& event) {
  kvm_irqfd request{};
  request.fd = static_cast<uint32_t>(event.get());
  request.gsi = number(gsi);
  TRY(KVM_IOCTL(vm_, KVM_IRQFD, &request));
  return {};
}

void KvmEngine::set_gsi(Gsi gsi, bool level) {
  kvm_irq_level request{};
  request.irq = number(gsi);
  request.level = level;
  // A GSI beyond the routing table is a device that nobody listens to: dropped, as on a board without that wire.
  (void)KVM_IOCTL(vm_, KVM_IRQ_LINE, &request);
}

void KvmEngine::send_msi(const MsiMessage& message) {
  kvm_msi request{};
  request.address_lo = static_cast<uint32_t>(message.address);
  request.address_hi = static_cast<uint32_t>(message.address >> 32);
  request.data = message.data;
  // The guest chose address and data; KVM refuses those that no APIC can take, and the message is lost as on hardware.
  (void)KVM_IOCTL(vm_, KVM_SIGNAL_MSI, &request);
}

}  // namespace kvm

Result<std::unique_ptr<Engine>> make_kvm_engine() { return TRY(kvm::KvmEngine::create()); }

}  // namespace tenon
