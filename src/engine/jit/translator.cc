#include "engine/jit/translator.hh"

#include <algorithm>
#include <array>

#include "base/check.hh"
#include "engine/jit/emitter.hh"

namespace tenon::jit {

namespace {

/// Room that no region of the largest size needs more than; 64 instructions of at most 400 bytes, hot and cold.
constexpr size_t kRoomBytes = 32 << 10;
constexpr size_t kIndirectEntryRoomBytes = 192;

uint16_t guest_bytes(const Region& region) {
  unsigned bytes = 0;
  for (unsigned i = 0; i < region.insn_count; ++i) bytes += region.insns[i].insn.length;
  return static_cast<uint16_t>(bytes);
}

bool uses_vector(const Region& region) {
  constexpr uint32_t kRows = x86::kSse | x86::kAvxState | x86::kX87 | x86::kMmx;
  return std::any_of(region.insns.begin(), region.insns.begin() + region.insn_count,
                     [](const RegionInsn& insn) { return (insn.insn.row->flags & kRows) != 0; });
}

/// Its branches leave the region, also those to its own start.
void keep_first_block(Region& region) {
  RegionBlock& block = region.blocks[0];
  block.next = RegionBlock::kOutside;
  block.taken = RegionBlock::kOutside;
  block.loop_head = false;
  region.block_count = 1;
  region.insn_count = block.count;
}

}  // namespace

Translator::Translator(interp::Cpu& cpu, CodeCache& cache, const TranslatorStubs& stubs,
                       const TranslatorOptions& options)
    : stubs_(stubs),
      cache_(cache),
      state_(reinterpret_cast<uint64_t>(&cpu)),
      options_(options),
      emitter_(std::make_unique<Emitter>(cpu, stubs, options_, region_)) {}

Translator::~Translator() = default;

void Translator::find(PageCopy& page, unsigned offset, Elsewhere& elsewhere) {
  const RegionOptions options{
      .strict_flags = options_.strict_flags, .insns_max = options_.insns_max, .elsewhere = &elsewhere, .copy = &page};
  find_region(page.bytes(), offset, options, region_);
  if (options_.lockstep) keep_first_block(region_);
}

bool Translator::find_crossing(std::span<const uint8_t> tail, std::span<const uint8_t> head, unsigned offset) {
  std::array<uint8_t, 2 * x86::kInsnLengthMax> bytes{};
  std::ranges::copy(tail, bytes.begin());
  std::ranges::copy(head, bytes.begin() + tail.size());
  x86::Insn insn;
  const auto both = std::span(bytes).first(tail.size() + head.size());
  if (x86::decode(both, x86::CodeSize::k64, insn) != x86::DecodeStatus::kOk || insn.length <= tail.size()) return false;
  make_single_region(insn, offset, region_);
  return true;
}

Fragment* Translator::translate(uint64_t linear_page, uint64_t gpa_page, bool global, Mode mode,
                                uint64_t second_gpa_page) {
  if (region_.blocks[0].count == 0) return nullptr;
  const CodeCache::Room room = cache_.reserve(kRoomBytes);
  auto fragment = cache_.make_fragment();
  fragment->linear_page = linear_page;
  fragment->gpa_page = gpa_page;
  fragment->second_gpa_page = second_gpa_page;
  fragment->mode = mode;
  fragment->global = global;
  fragment->granules = region_.granules;
  fragment->host = room.executable;
  fragment->guest_instructions = region_.insn_count;
  fragment->guest_bytes = guest_bytes(region_);
  if (options_.lockstep) fragment->uses_vector = uses_vector(region_);
  const bool crossing = second_gpa_page != kNoSecondPage;
  const uint32_t second = crossing ? cache_.mapping_number(linear_page + kPageSize, second_gpa_page) : 0;
  if (!emitter_->run(Assembler(room.buffer, room.executable, state_), *fragment, second)) return nullptr;
  return cache_.add(std::move(fragment));
}

Fragment* Translator::make_indirect_entry(uint64_t rip, const Fragment& target) {
  auto fragment = std::make_unique<Fragment>();
  fragment->linear_page = target.linear_page;
  fragment->gpa_page = target.gpa_page;
  fragment->mode = target.mode | kModeIndirect;
  fragment->global = target.global;
  fragment->granules = target.granules;
  fragment->entries.push_back({.rip = rip, .host_offset = 0});
  IndirectEntry entry{.rip = rip,
                      .shifted = is_shifted(fragment->mode),
                      .miss = stubs_.look_further[privilege(fragment->mode)],
                      .exit_link = stubs_.runtime.exit_link};
  // From here on `target` may be gone.
  if (entry.shifted) entry.number = cache_.mapping_number(fragment->linear_page, fragment->gpa_page);
  const CodeCache::Room room = cache_.reserve(kIndirectEntryRoomBytes);
  Assembler assembler(room.buffer, room.executable);
  fragment->slots.push_back(emit_indirect_entry(assembler, entry));
  CHECK(!assembler.overflowed());
  fragment->size_bytes = static_cast<uint32_t>(assembler.offset());
  return cache_.add(std::move(fragment));
}

}  // namespace tenon::jit
