// What one instruction sees and leaves: the user-visible CPU state of both sides of the differential test.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tenon::differential {

/// Linear addresses that are the same on the host and in the guest, so that registers mean the same on both sides.
constexpr uint64_t kCodePage = 0x2d000000;  // one page of code, then nothing; at no sum of addresses in the window
constexpr uint64_t kWindow = 0x10000000;    // data: two writable pages, one read-only page, then nothing
/// Both are there again at 1 and at 2 times so far up: the JIT translates code above 4 GiB in another way. RIP-relative
/// operands reach the window that is as far up as the code.
constexpr uint64_t kFar = uint64_t{1} << 39;
constexpr unsigned kFarMax = 2;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kWindowWritable = 2 * kPage;
constexpr uint64_t kWindowReadable = 3 * kPage;

/// Registers before or after the instruction. Layout is shared with host_cpu.S.
struct alignas(64) MachineState {
  std::array<uint64_t, 16> gpr{};      // 0: in GprIndex order
  uint64_t rip = 0;                    // 128
  uint64_t rflags = 0;                 // 136
  uint64_t fs_base = 0;                // 144
  uint64_t gs_base = 0;                // 152
  uint64_t padding[4] = {};            // 160
  std::array<std::byte, 832> xsave{};  // 192: standard form, x87 + SSE + AVX (SDM Vol. 1 13.4)
};
static_assert(offsetof(MachineState, rip) == 128 && offsetof(MachineState, xsave) == 192);

/// How the instruction ended.
struct Outcome {
  bool faulted = false;
  uint8_t vector = 0;
  uint32_t error_code = 0;
  uint64_t fault_address = 0;  // CR2 for #PF

  bool operator==(const Outcome&) const = default;
};

}  // namespace tenon::differential
