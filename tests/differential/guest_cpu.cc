#include "tests/differential/guest_cpu.hh"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "engine/empty_cpu_io.hh"
#include "machine/flat_guest.hh"

namespace tenon::differential {

namespace {

using x86::CpuState;

// Guest physical layout.
constexpr uint64_t kMemorySize = 2 << 20;
constexpr uint64_t kTables = 0x10000;      // PML4, low PDPT, low PD, window PT, code PT, high PDPT, high PD, high PT
constexpr uint64_t kSupervisor = 0x20000;  // GDT, IDT, TSS, stack, stubs: 16 pages seen at kHigh
constexpr uint64_t kWindowPhysical = 0x40000;
constexpr uint64_t kCodePhysical = 0x50000;
// Linear address of the supervisor pages: no user access on the host's side either.
constexpr uint64_t kHigh = 0xffff800000000000;
constexpr uint64_t kGdt = 0x0, kIdt = 0x1000, kTss = 0x2000, kStubs = 0x3000, kStackTop = 0x8000;
constexpr unsigned kVectors = 32;
constexpr uint8_t kInt3 = 0xcc;
constexpr uint8_t kCompareEaxEax[] = {0x39, 0xc0};

// Page-table entry bits (SDM Vol. 3 4.5.4).
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kNoExecute = uint64_t{1} << 63;

template <typename T>
void put(GuestMemory& memory, uint64_t gpa, T value) {
  CHECK(memory.write_object(Gpa(gpa), value));
}

bool pushes_error_code(unsigned vector) {  // SDM Vol. 3 Table 6-1
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

}  // namespace

/// Ends the run at the stub's OUT; its port is the vector.
class GuestCpu::StubIo final : public EmptyCpuIo {
 public:
  explicit StubIo(Vcpu& vcpu) : vcpu_(vcpu) {}
  int vector = -1;

  void write_port(IoPort port, unsigned, uint32_t) override {
    vector = number(port);
    vcpu_.request_stop();
  }

 private:
  Vcpu& vcpu_;
};

GuestCpu::GuestCpu() = default;
GuestCpu::~GuestCpu() = default;

Result<std::unique_ptr<GuestCpu>> GuestCpu::create(std::unique_ptr<Engine> engine) {
  std::unique_ptr<GuestCpu> guest(new GuestCpu);
  guest->engine_ = std::move(engine);
  TRY(guest->build());
  return guest;
}

void GuestCpu::write_tables() {
  const auto page = [](uint64_t n) { return kTables + n * kPage; };
  const auto link = [&](uint64_t table, uint64_t index, uint64_t next) {
    put(memory_, table + index * 8, next | kPresent | kWritable | kUser);
  };
  for (uint64_t i = 0; i <= kFarMax; ++i) link(page(0), i * kFar >> 39, page(1));  // PML4 -> low PDPT
  link(page(1), 0, page(2));                                                       // -> PD of the first GiB
  link(page(2), kWindow >> 21, page(3));
  link(page(2), kCodePage >> 21, page(4));
  link(page(0), 256, page(5));  // PML4 -> high PDPT
  link(page(5), 0, page(6));
  link(page(6), 0, page(7));
  for (uint64_t i = 0; i < kWindowReadable / kPage; ++i) {
    const uint64_t writable = i * kPage < kWindowWritable ? kWritable : 0;
    put(memory_, page(3) + i * 8, (kWindowPhysical + i * kPage) | kPresent | kUser | kNoExecute | writable);
  }
  put(memory_, page(4), kCodePhysical | kPresent | kUser);
  for (uint64_t i = 0; i < 16; ++i) put(memory_, page(7) + i * 8, (kSupervisor + i * kPage) | kPresent | kWritable);

  constexpr uint64_t kCode = 0x00af9b000000ffff, kData = 0x00cf93000000ffff, kDpl3 = uint64_t{3} << 45;
  const uint64_t gdt[] = {0, kCode, kData, kData | kDpl3, kCode | kDpl3};
  for (uint64_t i = 0; i < std::size(gdt); ++i) put(memory_, kSupervisor + kGdt + i * 8, gdt[i]);
  put(memory_, kSupervisor + kTss + 4, kHigh + kStackTop);    // RSP0
  put(memory_, kSupervisor + kTss + 0x66, uint16_t{0xffff});  // no I/O permission bitmap
  for (uint64_t vector = 0; vector < kVectors; ++vector) {
    const uint64_t stub = kHigh + kStubs + vector * 16;
    const uint64_t low =
        (stub & 0xffff) | uint64_t{FlatGuest::kKernelCode} << 16 | uint64_t{0xee00} << 32 | (stub >> 16 & 0xffff) << 48;
    put(memory_, kSupervisor + kIdt + vector * 16, low);
    put(memory_, kSupervisor + kIdt + vector * 16 + 8, stub >> 32);
    const std::array<uint8_t, 4> code = {0xe6, static_cast<uint8_t>(vector), 0xf4, 0xcc};  // out vector, al; hlt
    put(memory_, kSupervisor + kStubs + vector * 16, code);
  }
}

Result<void> GuestCpu::build() {
  TRY(memory_.add({Gpa(0), kMemorySize}, ExtentKind::kPrivate, "differential"));
  write_tables();
  const std::vector<std::byte> int3(kPage, std::byte{kInt3});
  CHECK(memory_.write(Gpa(kCodePhysical), int3));
  clock_ = std::make_unique<HostClock>();
  TRY(engine_->attach(memory_, *clock_));
  cpuid_ = TRY(engine_->supported_cpuid());
  vcpu_ = TRY(engine_->create_vcpu({.id = VcpuId{0}, .cpuid = cpuid_, .signal = &signal_}));
  io_ = std::make_unique<StubIo>(*vcpu_);
  window_ = {memory_.host_address(Gpa(kWindowPhysical), kWindowReadable), kWindowReadable};

  using namespace x86;
  const auto segment = [](uint16_t selector, uint32_t attributes) {
    return Segment{.base = 0, .limit = 0xffffffff, .attributes = attributes, .selector = selector};
  };
  CpuState& state = base_state_;
  state.reset(true);
  state.segments.fill(segment(FlatGuest::kUserData, 0xc0f3));
  state.segments[kCs] = segment(FlatGuest::kUserCode, 0xa0fb);
  state.tr = {.base = kHigh + kTss, .limit = 0x67, .attributes = 0x8b, .selector = FlatGuest::kTssSelector};
  state.gdtr = {.base = kHigh + kGdt, .limit = 5 * 8 - 1};
  state.idtr = {.base = kHigh + kIdt, .limit = kVectors * 16 - 1};
  state.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Wp | kCr0Am | kCr0Pg;  // as Linux runs user programs
  state.cr3 = kTables;
  state.cr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave | kCr4Fsgsbase | kCr4Umip;
  state.efer = kEferSce | kEferLme | kEferLma | kEferNxe;
  state.xcr0 = 7;
  return {};
}

void GuestCpu::write_code(std::span<const uint8_t> code, uint64_t address, Ending ending) {
  std::array<uint8_t, 32> bytes;
  bytes.fill(kInt3);
  CHECK(memory_.write(Gpa(kCodePhysical + last_code_), std::as_bytes(std::span(bytes))));
  last_code_ = address % kPage;
  std::memcpy(bytes.data(), code.data(), code.size());
  if (ending == Ending::kCompare) std::memcpy(bytes.data() + code.size(), kCompareEaxEax, sizeof kCompareEaxEax);
  CHECK(memory_.write(Gpa(kCodePhysical + last_code_), std::as_bytes(std::span(bytes))));
}

Outcome GuestCpu::run(std::span<const uint8_t> code, uint64_t address, Ending ending, const MachineState& before,
                      MachineState& after) {
  write_code(code, address, ending);
  CpuState state = base_state_;
  state.gpr = before.gpr;
  state.rip = address;
  state.rflags = before.rflags;
  state.segments[x86::kFs].base = before.fs_base;
  state.segments[x86::kGs].base = before.gs_base;
  std::memcpy(state.xsave.bytes.data(), before.xsave.data(), before.xsave.size());
  failure_.clear();
  if (const Result<void> set = vcpu_->set_state(state); !set) {
    failure_ = set.error().message();
    return {};
  }
  io_->vector = -1;
  const Halt halt = vcpu_->run(*io_);
  if (halt.reason != Halt::Reason::kStopped || io_->vector < 0) {
    const CpuState at = vcpu_->get_state();
    failure_ = fmt::format("no exception reached the guest's handlers: halt {} {}, RIP {:#x}, CS {:#x}, CR2 {:#x}",
                           static_cast<int>(halt.reason), halt.detail, at.rip, at.segments[x86::kCs].selector, at.cr2);
    return {};
  }
  state = vcpu_->get_state();

  // The frame that delivery pushed (SDM Vol. 3 6.14.2): [error code], RIP, CS, RFLAGS, RSP, SS.
  const auto vector = static_cast<unsigned>(io_->vector);
  const unsigned words = pushes_error_code(vector) ? 6 : 5;
  std::array<uint64_t, 6> frame{};
  CHECK(memory_.read(Gpa(kSupervisor + kStackTop - words * 8), std::as_writable_bytes(std::span(frame).first(words))));
  const uint64_t* registers = frame.data() + (words - 5);
  after.gpr = state.gpr;
  after.gpr[x86::kRsp] = registers[3];
  after.rip = registers[0];
  after.rflags = registers[2];
  after.fs_base = state.segments[x86::kFs].base;
  after.gs_base = state.segments[x86::kGs].base;
  std::memcpy(after.xsave.data(), state.xsave.bytes.data(), after.xsave.size());
  const uint64_t end = address + code.size() + (ending == Ending::kCompare ? sizeof kCompareEaxEax : 0);
  if (vector == x86::kBreakpoint && after.rip == end + 1) {  // ran to its end
    after.rip = address + code.size();
    return {};
  }
  return {.faulted = true,
          .vector = static_cast<uint8_t>(vector),
          .error_code = words == 6 ? static_cast<uint32_t>(frame[0]) : 0,
          .fault_address = vector == x86::kPageFault ? state.cr2 : 0};
}

}  // namespace tenon::differential
