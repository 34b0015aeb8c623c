// Any bytes: the decoder never reads or writes out of bounds, the length is 1 to 15, and the answer depends on the
// bytes of the instruction alone: shorter inputs are kTruncated, longer ones give the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "base/check.hh"
#include "engine/x86/insn.hh"

namespace {

using namespace tenon;
using namespace tenon::x86;

/// Decodes from an allocation of exactly that size, so that a sanitizer sees one byte too many.
DecodeStatus decode_exactly(std::span<const uint8_t> bytes, CodeSize code_size, Insn& insn) {
  const auto copy = std::make_unique<uint8_t[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  return decode({copy.get(), bytes.size()}, code_size, insn);
}

bool is_register(uint8_t number) { return number < 16 || number == kNoRegister; }

void check_fields(const Insn& insn, size_t size) {
  CHECK(insn.length >= 1 && insn.length <= kInsnLengthMax && insn.length <= size);
  CHECK(insn.row != nullptr && insn.row->op > Op::kInvalid && insn.row->op < Op::kCount);
  CHECK(insn.reg < 16 && insn.rm < 16 && insn.vvvv < 16 && insn.scale < 4 && insn.segment < 6);
  CHECK(is_register(insn.index) && (is_register(insn.base) || insn.base == kRipBase));
  CHECK(insn.operand_size == 2 || insn.operand_size == 4 || insn.operand_size == 8);
  CHECK(insn.address_size == 2 || insn.address_size == 4 || insn.address_size == 8);
  CHECK(memory_operand_size(insn) <= 512);
  CHECK(!disassemble_brief(insn).empty());
}

/// `length` bytes decided the answer: with fewer it is kTruncated, with exactly these the same.
void check_prefixes(std::span<const uint8_t> bytes, CodeSize code_size, const Insn& insn) {
  Insn again;
  for (size_t size = 0; size < insn.length; ++size) {
    CHECK(decode_exactly(bytes.first(size), code_size, again) == DecodeStatus::kTruncated);
  }
  CHECK(decode_exactly(bytes.first(insn.length), code_size, again) == DecodeStatus::kOk);
  CHECK(again.row == insn.row && again.length == insn.length && again.immediate == insn.immediate &&
        again.displacement == insn.displacement && again.base == insn.base && again.index == insn.index &&
        again.reg == insn.reg && again.rm == insn.rm && again.prefixes == insn.prefixes);
}

/// Once invalid, more bytes do not help, unless they make it too long.
void check_invalid(std::span<const uint8_t> bytes, CodeSize code_size) {
  Insn again;
  bool was_invalid = false;
  for (size_t size = 0; size <= bytes.size() && size <= kInsnLengthMax; ++size) {
    const DecodeStatus status = decode_exactly(bytes.first(size), code_size, again);
    CHECK(status == (was_invalid ? DecodeStatus::kInvalid : DecodeStatus::kTruncated) ||
          status == DecodeStatus::kInvalid);
    was_invalid = status == DecodeStatus::kInvalid;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const auto code_size = static_cast<CodeSize>(data[0] % 3);
  std::span<const uint8_t> bytes(data + 1, size - 1);
  while (!bytes.empty()) {
    Insn insn;
    // With as many bytes as this it reads them in place, with fewer from a padded copy.
    const DecodeStatus status = decode_exactly(bytes.first(std::min<size_t>(bytes.size(), 64)), code_size, insn);
    size_t consumed = 1;
    if (status == DecodeStatus::kOk) {
      check_fields(insn, bytes.size());
      check_prefixes(bytes, code_size, insn);
      consumed = insn.length;
    } else if (status == DecodeStatus::kInvalid) {
      check_invalid(bytes, code_size);
    } else {
      CHECK((status == DecodeStatus::kTruncated) == (bytes.size() < kInsnLengthMax));
    }
    bytes = bytes.subspan(consumed);
  }
  return 0;
}
