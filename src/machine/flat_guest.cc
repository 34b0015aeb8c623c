#include "machine/flat_guest.hh"

#include <array>

#include "base/byte_order.hh"

namespace tenon {

namespace {

// Page-table entry bits (SDM Vol. 3 Table 4-15 ff.).
constexpr uint64_t kPresent = 1u << 0, kWritable = 1u << 1, kUser = 1u << 2, kLargePage = 1u << 7;
constexpr uint64_t kTableSize = 4096;

bool write_page_tables(GuestMemory& memory) {
  constexpr uint64_t kTable = kPresent | kWritable | kUser;
  const uint64_t pml4 = FlatGuest::kPageTables;
  const uint64_t pdpt = pml4 + kTableSize;
  bool ok = memory.write_object(Gpa(pml4), le64(pdpt | kTable));
  for (uint64_t gib = 0; gib < 4; ++gib) {
    const uint64_t directory = pdpt + (1 + gib) * kTableSize;
    ok = ok && memory.write_object(Gpa(pdpt + gib * 8), le64(directory | kTable));
    for (uint64_t i = 0; i < 512; ++i)
      ok = ok && memory.write_object(Gpa(directory + i * 8), le64((gib << 30 | i << 21) | kTable | kLargePage));
  }
  return ok;
}

// Flat 64-bit descriptors (SDM Vol. 3 3.4.5) in selector order.
constexpr uint64_t kCodeDescriptor = 0x00af9b000000ffff;  // P, S, execute/read, accessed, L
constexpr uint64_t kDataDescriptor = 0x00cf93000000ffff;  // P, S, read/write, accessed
constexpr uint64_t kDpl3 = uint64_t{3} << 45;
constexpr uint64_t kTssDescriptor = 0x00008b0000000067 | (FlatGuest::kTss & 0xffffff) << 16;  // P, busy 64-bit TSS

bool write_descriptors(GuestMemory& memory) {
  constexpr std::array<uint64_t, 7> kGdt = {
      0, kCodeDescriptor, kDataDescriptor, kDataDescriptor | kDpl3, kCodeDescriptor | kDpl3, kTssDescriptor, 0};
  bool ok = true;
  for (size_t i = 0; i < kGdt.size(); ++i) ok = ok && memory.write_object(Gpa(FlatGuest::kGdt + i * 8), le64(kGdt[i]));
  // 64-bit TSS: RSP0 at offset 4 (SDM Vol. 3 Figure 7-11).
  return ok && memory.write_object(Gpa(FlatGuest::kTss + 4), le64(FlatGuest::kKernelStackTop));
}

x86::Segment segment(uint16_t selector, uint32_t attributes) {
  return {.base = 0, .limit = 0xffffffff, .attributes = attributes, .selector = selector};
}

x86::CpuState entry_state() {
  using namespace x86;
  CpuState state;
  state.reset(true);
  state.segments.fill(segment(FlatGuest::kKernelData, 0xc093));
  state.segments[kCs] = segment(FlatGuest::kKernelCode, 0xa09b);
  state.tr = {.base = FlatGuest::kTss, .limit = 0x67, .attributes = 0x8b, .selector = FlatGuest::kTssSelector};
  state.gdtr = {.base = FlatGuest::kGdt, .limit = 7 * 8 - 1};
  state.idtr = {.base = FlatGuest::kIdt, .limit = 0xfff};
  state.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Wp | kCr0Pg;
  state.cr3 = FlatGuest::kPageTables;
  state.cr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt;
  state.efer = kEferSce | kEferLme | kEferLma | kEferNxe;
  state.rip = FlatGuest::kCode;
  state.gpr.fill(0);
  state.gpr[kRsp] = FlatGuest::kKernelStackTop;
  state.rflags = kFlagsOne;
  return state;
}

}  // namespace

Result<x86::CpuState> FlatGuest::load(GuestMemory& memory, std::span<const std::byte> code) {
  if (!write_page_tables(memory) || !write_descriptors(memory) || !memory.write(Gpa(kCode), code))
    return fail(ErrorCode::kOutOfRange, "flat guest: no RAM for its tables or code");
  return entry_state();
}

bool FlatGuest::set_gate(GuestMemory& memory, uint8_t vector, uint64_t handler, unsigned dpl) {
  const uint64_t low = (handler & 0xffff) | uint64_t{kKernelCode} << 16 | uint64_t{0x8e00u | dpl << 13} << 32 |
                       (handler >> 16 & 0xffff) << 48;
  const Gpa gate(kIdt + uint64_t{vector} * 16);
  return memory.write_object(gate, le64(low)) && memory.write_object(Gpa(gate.value() + 8), le64(handler >> 32));
}

}  // namespace tenon
