// Random reads and writes of guest memory, checked against a plain copy of the same layout; the code watch is checked
// against what was written.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.hh"
#include "vm/guest_memory.hh"

namespace tenon {
namespace {

constexpr uint64_t kEnd = 8 * kPageSize;

enum class Kind : uint8_t { kHole, kRam, kRom };

/// RAM, RAM in another extent right behind it, ROM, a hole, RAM, and holes.
constexpr std::array<Kind, 8> kPages = {Kind::kRam, Kind::kRam,  Kind::kRom,  Kind::kHole,
                                        Kind::kRam, Kind::kHole, Kind::kHole, Kind::kHole};

struct Machine {
  GuestMemory memory;
  std::vector<std::byte> model = std::vector<std::byte>(kEnd);

  Machine() {
    for (uint64_t page = 0; page < kPages.size(); ++page) {
      if (kPages[page] == Kind::kHole) continue;
      const ExtentKind kind = kPages[page] == Kind::kRom ? ExtentKind::kRom : ExtentKind::kPrivate;
      CHECK(memory.add({Gpa(page * kPageSize), kPageSize}, kind, "fuzz").has_value());
    }
  }
};

bool allowed(uint64_t gpa, uint64_t size_bytes, bool for_writing) {
  for (uint64_t i = 0; i < size_bytes; ++i) {
    if (gpa + i < gpa || gpa + i >= kEnd) return false;
    const Kind kind = kPages[(gpa + i) / kPageSize];
    if (kind == Kind::kHole || (for_writing && kind == Kind::kRom)) return false;
  }
  return true;
}

void read_one(Machine& machine, uint64_t gpa, uint64_t size_bytes) {
  std::vector<std::byte> seen(size_bytes, std::byte{0x5a});
  const bool done = machine.memory.read(Gpa(gpa), seen);
  CHECK(done == allowed(gpa, size_bytes, false));
  if (!done) {
    CHECK(std::ranges::all_of(seen, [](std::byte byte) { return byte == std::byte{0x5a}; }));
  } else if (size_bytes > 0) {
    CHECK(std::memcmp(seen.data(), machine.model.data() + gpa, size_bytes) == 0);
  }
}

void write_one(Machine& machine, uint64_t gpa, uint64_t size_bytes, uint8_t seed, bool rom_too) {
  std::vector<std::byte> bytes(size_bytes);
  for (uint64_t i = 0; i < size_bytes; ++i) bytes[i] = static_cast<std::byte>(seed + i * 3);
  CodeWatch::Page* page = machine.memory.code_watch().page(Gpa(gpa));
  const uint64_t version = page != nullptr ? page->version.load() : 0;
  const uint64_t granules = page != nullptr ? page->granules.load() : 0;
  const bool done = rom_too ? machine.memory.load(Gpa(gpa), bytes) : machine.memory.write(Gpa(gpa), bytes);
  CHECK(done == allowed(gpa, size_bytes, !rom_too));
  if (!done || size_bytes == 0) return;
  std::memcpy(machine.model.data() + gpa, bytes.data(), size_bytes);
  bool code_hit = false;
  for (uint64_t at = gpa; at < gpa + size_bytes && at / kPageSize == gpa / kPageSize; ++at)
    code_hit = code_hit || ((granules >> (at % kPageSize / CodeWatch::kGranuleSize)) & 1) != 0;
  CHECK(page->version.load() == version + (code_hit ? 1 : 0));
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tenon;
  Machine machine;
  // Six bytes an operation: choice, address (3; the top bit reaches for the end of the address space), size (2).
  for (size_t at = 0; at + 6 <= size; at += 6) {
    const uint8_t* op = data + at;
    uint64_t gpa = (uint64_t{op[1]} << 8 | op[2]) % (kEnd + 16);
    if (op[3] >= 0xfc) gpa = ~gpa;
    const uint64_t size_bytes = (uint64_t{op[4]} << 8 | op[5]) % (op[3] % 2 == 0 ? 24 : 3 * kPageSize);
    switch (op[0] % 4) {
      case 0: read_one(machine, gpa, size_bytes); break;
      case 1: write_one(machine, gpa, size_bytes, op[0], false); break;
      case 2: write_one(machine, gpa, size_bytes, op[0], true); break;
      default:
        if (CodeWatch::Page* page = machine.memory.code_watch().page(Gpa(gpa)))
          page->granules ^= uint64_t{1} << (op[4] % 64);
    }
  }
  return 0;
}
