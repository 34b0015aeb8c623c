// Emitter: host code of one region. Private to the translator.
//
// Instructions are emitted in order; what happens rarely (soft-TLB misses, unlinked exits, register loads) goes to cold
// code behind the hot code, collected in lists while the hot code is made. Registers are as runtime.hh says. One commit
// point an instruction: everything that can leave (checks of memory) comes before the first change of guest state.
//
// Each memory check exists in two forms: the short one changes flags and is used where they are dead, the other keeps
// them (PEXT, LEA, JRCXZ), with the guest's RCX on the shadow stack for a moment.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "engine/jit/assembler.hh"
#include "engine/jit/code_cache.hh"
#include "engine/jit/emit_kind.hh"
#include "engine/jit/gpr_operands.hh"
#include "engine/jit/host_register.hh"
#include "engine/jit/mode.hh"
#include "engine/jit/region.hh"
#include "engine/jit/runtime.hh"
#include "engine/jit/translator.hh"

namespace tenon::jit {

class Emitter {
 public:
  /// `region` is where find_region() leaves what is to be emitted, each time.
  Emitter(interp::Cpu& cpu, const TranslatorStubs& stubs, const TranslatorOptions& options, const Region& region)
      : cpu_(cpu), stubs_(stubs), options_(options), region_(region) {}

  /// Emits the region at the assembler's start for `fragment`, whose pages and mode are set, and fills in its entries,
  /// slots, side table and sites. `second_mapping`: the number that the second page of a crossing instruction must
  /// have, 0 for others. False: the buffer was too small.
  bool run(const Assembler& assembler, Fragment& fragment, uint32_t second_mapping);

 private:
  /// What an instruction does with the stack; offsets from RSP before it.
  struct StackUse {
    bool ends_group = false;  // RSP is not known after it, or C++ may run in it
    uint8_t count = 0;
    int32_t change = 0;
    struct {
      int32_t offset;
      int32_t size_bytes;
    } accesses[2] = {};

    void access(int32_t offset, unsigned size_bytes) { accesses[count++] = {offset, static_cast<int32_t>(size_bytes)}; }
  };
  /// What is asked of an instruction more than once.
  struct InsnPlan {
    EmitKind kind = EmitKind::kInterpret;
    bool registers_only = false;  // its code touches neither memory nor R10 and R11, and cannot fault
    GprOperands gprs;
    StackUse stack;
  };

  // --- What the cold lists hold.
  struct ColdFill {
    Fixup from;
    uint64_t retry = 0;  // executable address
    uint64_t stub = 0;
    uint16_t guest_offset = 0;
    int32_t entry_offset = -1;  // of the soft-TLB entry in its table, where R11 does not hold it
    bool pops_rcx = false;      // the guest's RCX is on the shadow stack
  };
  struct ColdGroup {  // a stack or base group whose check failed
    Fixup from;
    uint64_t retry = 0;
    uint64_t stub = 0;
    int32_t span = 0;
    uint16_t guest_offset = 0;
    bool pops_rcx = false;
  };
  struct ColdLoad {  // of vector or x87 registers
    Fixup from;
    uint64_t back = 0;
    uint64_t stub = 0;
  };
  struct ColdExit {
    Fixup from;  // becomes the slot's rel32
    uint64_t target_rip = 0;
    bool is_poll = false;
    bool is_guard = false;
    bool pops_rcx = false;
  };
  struct ColdPollExit {  // a conditional branch backward out of the region: polls, then leaves
    Fixup from;
    uint64_t target_rip = 0;
  };
  struct ColdWord {  // a constant in memory
    Fixup from;
    uint64_t value = 0;
  };
  struct ColdInterpret {  // something rare: the interpreter executes the instruction after all
    Fixup from;
    const InterpretSite* site = nullptr;
  };
  struct BlockFixup {
    Fixup from;
    uint8_t block = 0;
  };

  // --- emitter.cc: the region as a whole.
  void plan();
  void plan_stretches();
  void begin_stretch(unsigned index);
  void plan_insn(const x86::Insn& insn, BlockEnd end, InsnPlan& plan) const;
  const InsnPlan& plan_of(const RegionInsn& insn) const {
    return plans_[static_cast<size_t>(&insn - region_.insns.data())];
  }
  void emit_block(unsigned index);
  void emit_insn(const RegionInsn& insn);
  void emit_cold();
  void emit_cold_fills();
  void emit_cold_groups();
  void emit_cold_exits();
  void emit_plain_exits();
  void guard_second_page();
  void count_block(const RegionBlock& block);
  bool can_resume() const;
  void side_entry(uint16_t guest_offset, bool resumable);
  void need_vector(const RegionInsn& insn);
  void need_x87(const RegionInsn& insn);
  void need_live(const RegionInsn& insn, size_t flag_offset, uint64_t stub);
  void interpret(const RegionInsn& insn, bool stops);
  InterpretSite& make_site(const RegionInsn& insn);
  void leave_to(const InterpretSite& site, Fixup from) { cold_interprets_.push_back({.from = from, .site = &site}); }
  void end_template(InterpretSite& site);
  void emit_cold_interprets();
  bool is_allowed(const x86::Insn& insn, EmitKind kind) const;
  uint64_t rip_of(unsigned guest_offset) const { return fragment_.linear_page + guest_offset; }
  /// Whether its operand lies at EIP + displacement, which a nominal RIP does not tell.
  bool cuts_rip(const x86::Insn& insn) const {
    return shifted_ && insn.is_memory && insn.base == x86::kRipBase && insn.address_size == 4;
  }
  uint64_t next_rip(const RegionInsn& insn) const { return rip_of(insn.offset) + insn.insn.length; }

  // --- emit_memory.cc: checked access to guest memory. All leave a host operand made of R10 and R11.
  enum class Access : uint8_t { kRead, kWrite };
  /// Where an access goes, in guest registers.
  struct Address {
    uint8_t base = x86::kNoRegister;
    uint8_t index = x86::kNoRegister;
    uint8_t scale = 0;
    int32_t displacement = 0;
    bool narrow = false;      // cut to 32 bits
    size_t segment_base = 0;  // offset in Cpu of a base to add; 0: none
    bool constant = false;    // `linear` is the address (before the segment base)
    uint64_t linear = 0;
    bool shifted = false;                  // `linear` is nominal
    uint8_t bit_index = x86::kNoRegister;  // of a bit string: its unit of `bit_unit_bytes` (4 or 8) is meant
    uint8_t bit_unit_bytes = 0;
  };
  Address address_of(const RegionInsn& insn) const;
  static Address stack_address(int32_t displacement) { return {.base = x86::kRsp, .displacement = displacement}; }
  /// The soft-TLB check of [address, address + size).
  HostOperand check(const RegionInsn& insn, const Address& address, unsigned size_bytes, Access access,
                    bool flags_live);
  HostOperand check_short(const RegionInsn& insn, const Address& address, unsigned size_bytes, Access access);
  HostOperand check_keeping_flags(const RegionInsn& insn, const Address& address, unsigned size_bytes, Access access);
  Fixup emit_crossing_test(const HostOperand& negative_page, int32_t size_bytes);
  void check_early(const RegionBlock& block, unsigned index);
  void emit_linear(const Address& address, bool flags_live);
  void add_state(size_t offset, bool flags_live);
  void emit_sum(HostRegister to, const Address& address);
  void emit_bit_unit(const Address& address);

  // --- emit_stack.cc: accesses near RSP, checked once for a group of them.
  struct StackGroup {
    uint8_t check_before = 0;  // instructions of the region
    uint8_t last = 0;
    int32_t low = 0;  // bytes it accesses, from RSP there
    int32_t high = 0;
  };
  StackUse stack_use(const x86::Insn& insn, const InsnPlan& plan, BlockEnd end) const;
  void plan_stack();
  unsigned plan_group(unsigned start);
  void place_check(unsigned start, unsigned first_access, StackGroup group);
  void emit_stack_check(const RegionInsn& insn, const StackGroup& group);
  std::optional<HostOperand> stack_operand(const Address& address, unsigned size_bytes);
  void follow_stack(unsigned index);

  // --- emit_base.cc: accesses off one register, checked once for a group of them.
  static constexpr unsigned kBaseGroupsMax = std::extent_v<decltype(interp::TranslatedState::group_address)>;
  struct BaseGroup {
    uint8_t base = 0;
    uint8_t check_before = 0;  // instructions of the region
    uint8_t last = 0;
    bool writes = false;
    bool active = false;  // checked, and not over
    int32_t low = 0;      // bytes it accesses, from the base
    int32_t high = 0;
  };
  bool ends_bases(const RegionInsn& insn) const;
  void plan_bases();
  std::optional<BaseGroup> find_base_group(unsigned first) const;
  bool may_stand_before(unsigned index, const BaseGroup& group) const;
  void emit_base_checks(unsigned index);
  void emit_base_check(const RegionInsn& insn, const BaseGroup& group);
  std::optional<HostOperand> base_operand(const Address& address, unsigned size_bytes, Access access);
  void follow_bases(unsigned index);
  bool has_active_base() const;

  /// R11 gets something else than an addend.
  void r11_taken() {
    r11_is_stack_ = false;
    r11_group_ = -1;
  }
  /// R10 holds what the home of `guest` does.
  void r10_is_home(uint8_t guest) { r10_home_ = {guest, asm_.offset()}; }
  /// Whether that is so here; then nothing may be resumed here.
  bool take_r10_home(const GprOperands& gprs);
  /// A checked operand into [R10], so that R11 is free.
  HostOperand collapse(const HostOperand& operand);
  /// R10 or R11, which the checked operand does not use afterwards.
  HostRegister free_beside(HostOperand& operand);

  // --- emit_integer.cc
  void emit_same(const RegionInsn& insn, EmitKind kind);
  void emit_same_memory(const RegionInsn& insn, HostInsn& host);
  void emit_same_registers(const RegionInsn& insn, HostInsn& host);
  void emit_high_byte(const RegionInsn& insn, HostInsn host, const HostOperand& memory);
  void emit_lea(const RegionInsn& insn);
  void emit_rip(HostRegister to, const Address& address);
  void emit_push(const RegionInsn& insn);
  void emit_pop(const RegionInsn& insn);
  void emit_leave(const RegionInsn& insn);

  // --- emit_string.cc
  void emit_string(const RegionInsn& insn);
  void emit_repeat(const RegionInsn& insn);
  void emit_two_strings(const RegionInsn& insn, unsigned size_bytes);
  Address string_source(const RegionInsn& insn) const;
  void emit_bit_string(const RegionInsn& insn);

  // --- emit_system.cc
  /// Leaves to the interpreter where the bits of `mask` (one bit) in the state word are `set`. R10 and R11 are lost.
  void leave_if(const InterpretSite& site, size_t word, uint32_t mask, bool set, bool flags_live);
  void leave_if_interruptible(const InterpretSite& site, bool flags_live);
  void change_system_flag(uint32_t mask, bool set, bool flags_live);
  void emit_flag_bit(const RegionInsn& insn);
  void emit_push_flags(const RegionInsn& insn);
  void emit_pop_flags(const RegionInsn& insn);
  void emit_time(const RegionInsn& insn);
  void emit_base(const RegionInsn& insn);
  void emit_swapgs(const RegionInsn& insn);
  void emit_read_control(const RegionInsn& insn);
  void emit_read_segment(const RegionInsn& insn);
  void emit_serialize(const RegionInsn& insn);
  void leave_if_not_canonical(const InterpretSite& site, bool flags_live);
  /// Writes R10 to a general register of `size_bytes` (4 or 8).
  void write_gpr(unsigned guest, unsigned size_bytes);

  // --- emit_privilege.cc
  /// The last instruction of a block, behind which control does not simply go on.
  void emit_transfer(const RegionInsn& insn);
  void emit_syscall(const RegionInsn& insn);
  void emit_sysret(const RegionInsn& insn);

  // --- emit_branch.cc: the ends of blocks.
  void emit_end(const RegionBlock& block, unsigned index);
  void emit_conditional(const RegionBlock& block, const RegionInsn& insn);
  void emit_counter_branch(const RegionBlock& block, const RegionInsn& insn);
  void emit_call(const RegionBlock& block, const RegionInsn& insn, unsigned index);
  void emit_indirect_jump(const RegionInsn& insn);
  void emit_indirect_call(const RegionBlock& block, const RegionInsn& insn, unsigned index);
  void emit_return(const RegionInsn& insn);
  void push_return_address(const RegionInsn& insn);
  void load_target(const RegionInsn& insn);
  uint32_t name_branch(const RegionInsn& insn, int32_t stack_bytes);
  void name_indirect(const RegionInsn& insn, int32_t stack_bytes);
  void emit_return_site(uint64_t rip);
  void emit_shifted_return_site(uint64_t rip);
  void save_shift();
  void poll(uint64_t rip, bool flags_live);
  void go_to(uint8_t block, uint64_t rip, uint64_t from_rip, unsigned next_block);
  void branch_to(Fixup from, uint8_t block, uint64_t target_rip, uint64_t from_rip);
  void exit_to(uint64_t rip, uint64_t from_rip);

  interp::Cpu& cpu_;
  const TranslatorStubs& stubs_;
  const TranslatorOptions& options_;
  const Region& region_;

  // --- Of the region being emitted. The lists keep their memory from one to the next.
  Assembler asm_{{}, 0};
  Fragment fragment_;
  Mode mode_ = 0;
  bool plain_ = false;           // kModePlain
  bool shifted_ = false;         // kModeShifted: RIPs here are nominal
  uint32_t second_mapping_ = 0;  // number that a crossing instruction's second page must have; 0: it does not cross
  std::array<InsnPlan, kRegionInsnsMax> plans_;
  /// A stretch is a block and those behind it that are come to from nowhere but the one before. Groups reach over all
  /// of it; where one does, the block in its middle cannot be entered from outside.
  std::array<bool, kRegionBlocksMax> starts_stretch_{};
  struct {
    unsigned first = 0;  // instructions of the region
    unsigned end = 0;
    size_t stack_group = 0;  // the next to be checked
  } stretch_;
  const RegionInsn* checked_early_ = nullptr;  // R10 and R11 hold the checked operand of this later instruction

  struct {
    bool active = false;
    uint8_t last = 0;  // instruction of the region that relies on it
    int32_t low = 0;   // what the group's check has proven, from RSP at the check
    int32_t high = 0;
    int32_t rsp = 0;  // RSP now, from there
  } stack_;
  bool r11_is_stack_ = false;  // R11 holds the stack's addend
  struct {
    uint8_t guest = x86::kNoRegister;
    size_t offset = 0;  // where the assembler was then
  } r10_home_;          // R10 holds what the home of `guest` does, if nothing was emitted since
  int r11_group_ = -1;  // R11 holds the address of this base group; -1: of none
  std::vector<BaseGroup> base_groups_;
  std::vector<StackGroup> stack_groups_;
  std::vector<ColdGroup> cold_groups_;
  bool vector_known_ = false;  // the guest's vector registers are live here whatever way led here
  bool x87_known_ = false;
  std::array<uint64_t, kRegionBlocksMax> block_address_{};  // executable; 0: not emitted yet
  std::vector<BlockFixup> block_fixups_;
  std::vector<ColdFill> cold_fills_;
  std::vector<ColdLoad> cold_loads_;
  std::vector<ColdExit> cold_exits_;
  std::vector<ColdPollExit> cold_poll_exits_;
  std::vector<ColdInterpret> cold_interprets_;
  std::vector<ColdWord> cold_words_;
  bool last_in_block_ = false;  // the instruction that is being emitted
};

/// The way in for indirect branches to one RIP.
struct IndirectEntry {
  uint64_t rip = 0;     // nominal where it is shifted: then it serves wherever that page is mapped so far away
  uint32_t number = 0;  // of the page's mapping, where it is shifted
  bool shifted = false;
  uint64_t miss = 0;  // where other RIPs go
  uint64_t exit_link = 0;
};
/// Emits its code; the slot is its way on.
LinkSlot emit_indirect_entry(Assembler& assembler, const IndirectEntry& entry);

/// R10, the guest RIP, replaced by where the indirect-branch cache of a side says. R11 changes, flags do not.
HostOperand cached_target(Assembler& assembler, unsigned privilege_index);

// --- Where things are, for all emitters.

size_t gpr_offset(unsigned guest);
/// Whether `value` can be a displacement, or a sign-extended immediate.
inline bool fits_int32(uint64_t value) { return static_cast<uint64_t>(static_cast<int32_t>(value)) == value; }
/// Flags to R10..R11-free scratch slots and back, around code that changes them. RAX is free in between.
void save_flags(Assembler& assembler);
void restore_flags(Assembler& assembler);
inline HostOperand home(unsigned guest) { return HostOperand::state(gpr_offset(guest)); }

/// Offsets in Cpu of what templates use.
namespace state {
size_t scratch(unsigned slot);
extern const size_t kTranslated, kCodeShift, kPoke, kVectorLive, kX87Live, kIndexMask, kPageNumberMask, kPageOffsetMask,
    kIndirectMask, kInstructions, kReturnStackTop, kSystemFlags, kHostTscOffset;
size_t indirect_table(unsigned privilege);
size_t stack_negative_page(unsigned privilege);
size_t stack_addend(unsigned privilege);
size_t group_address(unsigned slot);
}  // namespace state

/// Uses of TranslatedState::scratch.
enum ScratchSlot : unsigned {
  kScratchValue = 0,   // PUSH of memory, target of an indirect call
  kScratchBranch = 1,  // for ExitCode::kIndirect: low half of the address that names the branch (BranchSite)
  kScratchResume = 2,  // where the vector-loading entry goes
  kScratchSite = 3,    // of repeated string instructions: InterpretSite*
  kScratchCount = 4,   // and RCX afterwards
  kScratchFlags = 5,   // flags in the AX form
  kScratchRax = 6,     // RAX meanwhile
};

}  // namespace tenon::jit
