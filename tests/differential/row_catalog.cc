#include "tests/differential/row_catalog.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace tenon::differential {

namespace key = x86::key;
using x86::MapEntry;
using x86::Op;
using x86::OpcodeMap;

// clang-format off
const char* exclusion(Op op) {
  switch (op) {
    case Op::kSyscall: case Op::kSysenter: case Op::kInt: case Op::kInt1: return "enters the host's kernel";
    case Op::kRdtsc: case Op::kRdtscp: case Op::kRdrand: case Op::kRdseed: case Op::kRdpmc: case Op::kCpuid: case Op::kRdpid:
    case Op::kXgetbv: return "gives a different value each time or on each machine";
    case Op::kSgdt: case Op::kSidt: case Op::kSldt: case Op::kStr: case Op::kSmsw: return "emulated by the host's kernel (UMIP)";
    case Op::kMovFromSeg: case Op::kMovToSeg: case Op::kPushSeg: case Op::kPopSeg: case Op::kLfs: case Op::kLgs: case Op::kLss:
    case Op::kLar: case Op::kLsl: case Op::kVerr: case Op::kVerw: case Op::kCallFar: case Op::kJmpFar: case Op::kRetFar:
    case Op::kIret: return "depends on the host kernel's descriptor tables";
    case Op::kXsave: case Op::kXrstor: case Op::kXsaveopt: case Op::kXsavec: case Op::kXsaves: case Op::kXrstors:
      return "depends on the host's XCR0";
    case Op::kRdpkru: case Op::kWrpkru: case Op::kUmonitor: case Op::kUmwait: case Op::kTpause: case Op::kSerialize:
    case Op::kMovdiri: case Op::kMovdir64b: return "not exposed to guests";
    case Op::kMonitor: case Op::kMwait: case Op::kVmcall: case Op::kVmmcall: case Op::kVmfunc: case Op::kInvept: case Op::kInvvpid:
    case Op::kVmclear: case Op::kVmlaunch: case Op::kVmptrld: case Op::kVmptrst: case Op::kVmread: case Op::kVmresume:
    case Op::kVmwrite: case Op::kVmxoff: case Op::kVmxon: case Op::kClgi: case Op::kStgi: case Op::kInvlpga: case Op::kSkinit:
    case Op::kVmload: case Op::kVmrun: case Op::kVmsave: return "virtualisation and monitor instructions depend on the host";
    case Op::kWbinvd: case Op::kInvd: case Op::kRsm: return "privileged on purpose or not, never run on the host";
    default: return nullptr;
  }
}
// clang-format on

namespace {

struct Table {
  const x86::MapTable* table;
  OpcodeMap map;
};
const Table kTables[] = {
    {&x86::kTableLegacy, OpcodeMap::kLegacy},   {&x86::kTableX87, OpcodeMap::kLegacy},
    {&x86::kTable0F, OpcodeMap::k0F},           {&x86::kTable0FSimd, OpcodeMap::k0F},
    {&x86::kTable0F38, OpcodeMap::k0F38},       {&x86::kTable0F3A, OpcodeMap::k0F3A},
    {&x86::kTableVex0F, OpcodeMap::kVex0F},     {&x86::kTableVex0F38, OpcodeMap::kVex0F38},
    {&x86::kTableVex0F3A, OpcodeMap::kVex0F3A},
};

constexpr const char* kMapNames[] = {"", "0F ", "0F 38 ", "0F 3A ", "VEX 0F ", "VEX 0F 38 ", "VEX 0F 3A "};

bool is_vex(OpcodeMap map) { return map >= OpcodeMap::kVex0F; }

/// Writes bytes one behind the other.
class Writer {
 public:
  explicit Writer(std::array<uint8_t, x86::kInsnLengthMax>& bytes) : bytes_(bytes) {}
  void put(unsigned byte) { bytes_[at_++] = static_cast<uint8_t>(byte); }

 private:
  std::array<uint8_t, x86::kInsnLengthMax>& bytes_;
  size_t at_ = 0;
};

/// The bit of the row's key: as the row demands it, else random.
bool key_bit(const MapEntry& entry, uint16_t bit, Random& random, uint64_t one_in) {
  return (entry.mask & bit) != 0 ? (entry.value & bit) != 0 : random.one_in(one_in);
}

/// 66, F3, F2: what the row is selected by, and where it is by nothing, sometimes one anyway.
void put_mandatory_prefix(const MapEntry& entry, Random& random, Writer& out) {
  constexpr uint8_t kPrefixOf[] = {0, 0x66, 0xf3, 0xf2};
  const unsigned demanded = entry.value & 3u;
  const unsigned mask = entry.mask & 3u;
  if (mask == 3) {
    if (demanded != 0) out.put(kPrefixOf[demanded]);
    return;
  }
  if (random.one_in(4)) out.put(0x66);
  const bool repeats = (entry.row.flags & x86::kRep) != 0;
  if (mask == 0 && random.one_in(repeats ? 2 : 16)) out.put(random.one_in(2) ? 0xf3 : 0xf2);
}

void put_legacy(const RowForm& form, Random& random, Writer& out) {
  const MapEntry& entry = *form.entry;
  if (random.one_in(12)) out.put(0x67);
  if (random.one_in(8)) out.put(random.one_in(2) ? 0x64 : 0x65);
  if ((entry.row.flags & x86::kLockable) != 0 && form.is_memory && random.one_in(4)) out.put(0xf0);
  put_mandatory_prefix(entry, random, out);
  const bool wide = key_bit(entry, key::kW, random, 4);
  const unsigned extension = static_cast<unsigned>(random.below(8)) & (random.one_in(2) ? 7u : 0u);
  const unsigned rex = (wide ? 8u : 0u) | (extension & 6) | (key_bit(entry, key::kRexB, random, 4) ? 1u : 0u);
  if (rex != 0 || random.one_in(8)) out.put(0x40 | rex);
  if (form.map != OpcodeMap::kLegacy) out.put(0x0f);
  if (form.map == OpcodeMap::k0F38) out.put(0x38);
  if (form.map == OpcodeMap::k0F3A) out.put(0x3a);
  out.put(entry.opcode);
}

void put_vex(const RowForm& form, Random& random, Writer& out) {
  const MapEntry& entry = *form.entry;
  if (random.one_in(12)) out.put(0x67);
  if (random.one_in(8)) out.put(random.one_in(2) ? 0x64 : 0x65);
  const auto inverted_rxb = static_cast<unsigned>(random.next() & 0xe0);
  const unsigned vvvv = entry.uses_vvvv ? static_cast<unsigned>(random.below(16)) << 3 : 0x78u;
  const unsigned last = vvvv | (key_bit(entry, key::kL, random, 2) ? 4u : 0u) | (entry.value & entry.mask & 3u);
  const bool wide = key_bit(entry, key::kW, random, 2);
  if (form.map == OpcodeMap::kVex0F && !wide && random.one_in(2)) {
    out.put(0xc5);
    out.put((inverted_rxb & 0x80) | last);
  } else {
    out.put(0xc4);
    out.put(inverted_rxb | (1 + static_cast<unsigned>(form.map) - static_cast<unsigned>(OpcodeMap::kVex0F)));
    out.put((wide ? 0x80u : 0u) | last);
  }
  out.put(entry.opcode);
}

unsigned modrm_of(const RowForm& form, Random& random) {
  const MapEntry& entry = *form.entry;
  const auto pick = [&](unsigned shift) {
    const bool fixed = (entry.mask >> shift & 7) != 0;
    if (fixed) return entry.value >> shift & 7u;
    // With REX: R9 to R12. Engines may keep R9 to R11 and RSP elsewhere than the others.
    return static_cast<unsigned>(random.one_in(3) ? 1 + random.below(4) : random.below(8));
  };
  const unsigned mod = form.is_memory ? static_cast<unsigned>(random.below(3)) : 3;
  const unsigned rm = entry.vsib ? 4 : pick(key::kRmShift);
  return mod << 6 | pick(key::kRegShift) << 3 | rm;
}

}  // namespace

std::string RowForm::name() const {
  return fmt::format("{}/{} {}{:02X} operand {} /{}", x86::op_name(entry->row.op), is_memory ? "memory" : "register",
                     kMapNames[static_cast<size_t>(map)], entry->opcode, static_cast<unsigned>(entry->row.operands[0]),
                     entry->value >> key::kRegShift & 7);
}

RowCatalog::RowCatalog() {
  for (const Table& table : kTables)
    for (const x86::MapSlot& slot : table.table->slots)
      for (unsigned i = slot.first; i < slot.end; ++i) add(table.table->entries[i], table.map);
  std::ranges::sort(first_forms_);
}

void RowCatalog::add(const MapEntry& entry, OpcodeMap map) {
  const uint32_t flags = entry.row.flags;
  if ((flags & x86::kInvalid64) != 0) return;
  ++rows_of_64_bit_mode_;
  if (const char* reason = exclusion(entry.row.op)) {
    excluded_[reason].insert(x86::op_name(entry.row.op));
    return;
  }
  first_forms_.emplace_back(&entry.row, forms_.size());
  const bool selects_mod = (entry.mask & key::kRegister) != 0;
  const bool is_offset = entry.immediate == x86::ImmediateForm::kOffset;  // MOV with a memory offset
  const bool can_be_memory =
      entry.has_modrm && (flags & x86::kModIgnored) == 0 && !(selects_mod && (entry.value & key::kRegister) != 0);
  const bool can_be_register = !is_offset && !(entry.has_modrm && selects_mod && (entry.value & key::kRegister) == 0);
  if (can_be_register) forms_.push_back({&entry, map, false});
  if (can_be_memory || is_offset) forms_.push_back({&entry, map, true});
}

std::string RowCatalog::describe_exclusions() const {
  std::string text;
  for (const auto& [reason, operations] : excluded_) {
    text += reason + ":";
    for (const std::string& operation : operations) text += " " + operation;
    text += "\n";
  }
  return text;
}

size_t RowCatalog::find(const x86::Insn& insn) const {
  const auto found = std::ranges::lower_bound(first_forms_, insn.row, {}, [](const auto& pair) { return pair.first; });
  if (found == first_forms_.end() || found->first != insn.row) return size();
  for (size_t i = found->second; i < size() && &forms_[i].entry->row == insn.row; ++i)
    if (forms_[i].is_memory == insn.is_memory) return i;
  return size();
}

void encode(const RowForm& form, Random& random, std::array<uint8_t, x86::kInsnLengthMax>& bytes) {
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = random.next();
    std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, bytes.size() - i));
  }
  Writer out(bytes);
  if (is_vex(form.map)) {
    put_vex(form, random, out);
  } else {
    put_legacy(form, random, out);
  }
  if (form.entry->has_modrm) out.put(modrm_of(form, random));
}

}  // namespace tenon::differential
