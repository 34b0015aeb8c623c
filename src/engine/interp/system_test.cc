// System instructions: control and debug registers, MSRs, descriptor instructions, port I/O, CPUID.
#include <array>

#include "engine/interp/system_handlers.hh"
#include "engine/interp/system_test_support.hh"

namespace tenon::interp {
namespace {

using Machine = TestMachine;

/// A step with register operands for direct calls of bodies.
Step register_step(unsigned reg, unsigned rm, unsigned operand_size = 8) {
  Step step;
  step.insn.reg = static_cast<uint8_t>(reg);
  step.insn.rm = static_cast<uint8_t>(rm);
  step.insn.operand_size = static_cast<uint8_t>(operand_size);
  return step;
}

class SystemTest : public testing::Test {
 protected:
  Cpu& enter() {
    machine_.enter_64({});
    return prepare(machine_);
  }
  bool write_cr(Cpu& cpu, unsigned number, uint64_t value) {
    cpu.gpr[x86::kRbx] = value;
    const Step step = register_step(number, x86::kRbx);
    return mov_to_cr(cpu, &step);
  }
  uint64_t read_cr(Cpu& cpu, unsigned number) {
    const Step step = register_step(number, x86::kRbx);
    EXPECT_TRUE(mov_from_cr(cpu, &step));
    return cpu.gpr[x86::kRbx];
  }
  bool write_msr(Cpu& cpu, uint32_t index, uint64_t value) {
    cpu.gpr[x86::kRcx] = index;
    cpu.gpr[x86::kRax] = static_cast<uint32_t>(value);
    cpu.gpr[x86::kRdx] = value >> 32;
    return wrmsr(cpu, nullptr);
  }
  uint64_t read_msr(Cpu& cpu, uint32_t index) {
    cpu.gpr[x86::kRcx] = index;
    EXPECT_TRUE(rdmsr(cpu, nullptr)) << std::hex << index;
    return cpu.gpr[x86::kRdx] << 32 | cpu.gpr[x86::kRax];
  }
  Machine machine_;
};

// --- Control registers.

TEST_F(SystemTest, Cr0Rules) {
  Cpu& cpu = enter();
  const uint64_t cr0 = cpu.state.cr0;
  const uint64_t refused[] = {
      cr0 | uint64_t{1} << 32,       // reserved high bits
      cr0 & ~uint64_t{x86::kCr0Pe},  // PG without PE
      cr0 | x86::kCr0Nw,             // NW without CD
      cr0 & ~uint64_t{x86::kCr0Pg},  // out of paging from 64-bit code
  };
  for (const uint64_t value : refused) {
    EXPECT_FALSE(write_cr(cpu, 0, value)) << std::hex << value;
    expect_fault(cpu, x86::kGeneralProtection, 0);
    EXPECT_EQ(cpu.state.cr0, cr0);
  }
  EXPECT_TRUE(write_cr(cpu, 0, (cr0 | 1u << 6 | x86::kCr0Ts) & ~uint64_t{x86::kCr0Et}));
  EXPECT_EQ(read_cr(cpu, 0), cr0 | x86::kCr0Ts);  // reserved bits are ignored, ET stays
}

TEST_F(SystemTest, Cr3Rules) {
  Cpu& cpu = enter();
  EXPECT_FALSE(write_cr(cpu, 3, uint64_t{1} << 46));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_FALSE(write_cr(cpu, 3, uint64_t{1} << 63 | Machine::kPageTables));  // without PCIDE
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_TRUE(write_cr(cpu, 4, cpu.state.cr4 | x86::kCr4Pcide));
  EXPECT_TRUE(write_cr(cpu, 3, uint64_t{1} << 63 | Machine::kPageTables | 5));
  EXPECT_EQ(read_cr(cpu, 3), Machine::kPageTables | 5);
  // PCIDE cannot be set with a PCID in place.
  EXPECT_TRUE(write_cr(cpu, 4, cpu.state.cr4 & ~uint64_t{x86::kCr4Pcide}));
  EXPECT_FALSE(write_cr(cpu, 4, cpu.state.cr4 | x86::kCr4Pcide));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(SystemTest, Cr4ReservedBitsFollowCpuid) {
  Cpu& cpu = enter();
  const uint64_t cr4 = cpu.state.cr4;
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t value = cr4 | uint64_t{1} << bit;
    const bool allowed = (uint64_t{1} << bit & (cpu.limits.cr4_valid | cr4)) != 0;
    EXPECT_EQ(write_cr(cpu, 4, value), allowed) << bit;
    clear_fault(cpu);
    cpu.state.cr4 = cr4;
  }
  EXPECT_FALSE(write_cr(cpu, 4, cr4 & ~uint64_t{x86::kCr4Pae}));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(SystemTest, PcideOutsideIa32eModeIsRefused) {
  machine_.enter_32({});
  Cpu& cpu = prepare(machine_);
  EXPECT_FALSE(write_cr(cpu, 4, x86::kCr4Pae | x86::kCr4Pcide));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(SystemTest, EnteringIa32eMode) {
  machine_.enter_32({});
  Cpu& cpu = prepare(machine_);
  cpu.state.cr3 = Machine::kPageTables;
  EXPECT_TRUE(write_msr(cpu, 0xc0000080, x86::kEferLme));
  EXPECT_FALSE(write_cr(cpu, 0, cpu.state.cr0 | x86::kCr0Pg));  // without PAE
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_TRUE(write_cr(cpu, 4, x86::kCr4Pae));
  cpu.state.tr.attributes = 0x83;
  EXPECT_FALSE(write_cr(cpu, 0, cpu.state.cr0 | x86::kCr0Pg));  // with a 16-bit TSS
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.state.tr.attributes = 0x8b;
  EXPECT_TRUE(write_cr(cpu, 0, cpu.state.cr0 | x86::kCr0Pg));
  EXPECT_EQ(read_msr(cpu, 0xc0000080), uint64_t{x86::kEferLme | x86::kEferLma});
  EXPECT_EQ(cpu.code_size, x86::CodeSize::k32);
  EXPECT_FALSE(write_msr(cpu, 0xc0000080, 0));  // LME is fixed while paging is on
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_TRUE(write_cr(cpu, 0, cpu.state.cr0 & ~uint64_t{x86::kCr0Pg}));  // compatibility mode may leave
  EXPECT_EQ(cpu.state.efer & x86::kEferLma, 0u);
}

TEST_F(SystemTest, PaeLoadsPdptes) {
  machine_.enter_32({});
  Cpu& cpu = prepare(machine_);
  machine_.poke<uint64_t>(0x7000, 0x8001);
  machine_.poke<uint64_t>(0x7008, 0x8003);  // bit 1 is reserved
  cpu.state.cr4 = x86::kCr4Pae;
  EXPECT_TRUE(write_cr(cpu, 3, 0x7000));
  EXPECT_FALSE(write_cr(cpu, 0, cpu.state.cr0 | x86::kCr0Pg));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  machine_.poke<uint64_t>(0x7008, 0x8001);
  EXPECT_TRUE(write_cr(cpu, 0, cpu.state.cr0 | x86::kCr0Pg));
  EXPECT_EQ(cpu.state.pdpte[1], 0x8001u);
  machine_.poke<uint64_t>(0x7020, 0x8101);
  EXPECT_FALSE(write_cr(cpu, 3, 0x7020));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(SystemTest, Cr8AndUnknownControlRegisters) {
  Cpu& cpu = enter();
  EXPECT_TRUE(write_cr(cpu, 8, 15));
  EXPECT_FALSE(write_cr(cpu, 8, 16));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  for (const unsigned number : {1u, 5u, 7u, 9u, 15u}) {
    EXPECT_FALSE(write_cr(cpu, number, 0));
    expect_fault(cpu, x86::kInvalidOpcode);
  }
}

TEST_F(SystemTest, LmswSetsPeAndNeverClearsIt) {
  Cpu& cpu = enter();
  cpu.gpr[x86::kRbx] = x86::kCr0Ts | x86::kCr0Wp;
  const Step step = register_step(0, x86::kRbx);
  const uint64_t cr0 = cpu.state.cr0;
  EXPECT_TRUE(lmsw(cpu, &step));
  EXPECT_EQ(cpu.state.cr0, cr0 | x86::kCr0Ts);
}

// --- Debug registers.

TEST_F(SystemTest, DebugRegisters) {
  Cpu& cpu = enter();
  cpu.gpr[x86::kRbx] = uint64_t{1} << 32;
  for (const unsigned number : {6u, 7u}) {
    std::array<Step, 2> steps{register_step(number, x86::kRbx), Step{}};
    mov_to_dr(cpu, steps.data());
    expect_fault(cpu, x86::kGeneralProtection, 0);
  }
  cpu.gpr[x86::kRbx] = 0xffffffff;
  std::array<Step, 2> dr7{register_step(5, x86::kRbx), Step{}};  // DR5 is DR7 without CR4.DE
  mov_to_dr(cpu, dr7.data());
  EXPECT_EQ(cpu.state.dr7, 0xffff27ffu);  // with GD
  machine_.set_gate_64(1, 0x5000);
  mov_to_dr(cpu, dr7.data());
  EXPECT_EQ(cpu.rip, 0x5000u);
  EXPECT_NE(cpu.state.dr6 & 1u << 13, 0u);
  cpu.state.cr4 |= x86::kCr4De;
  mov_to_dr(cpu, dr7.data());
  expect_fault(cpu, x86::kInvalidOpcode);
}

// --- MSRs.

TEST_F(SystemTest, MsrRules) {
  Cpu& cpu = enter();
  struct Case {
    uint32_t index;
    uint64_t good, bad;
  };
  constexpr uint64_t kNonCanonical = 0x800000000000;
  const Case cases[] = {
      {0x175, 0xffff800000000000, kNonCanonical},
      {0x176, 0xffff800000000000, kNonCanonical},
      {0x277, 0x0007040600070406, 0x0000000000000002},
      {0x200, 0x80000006, 0x80000002},          // MTRR base: reserved type
      {0x201, 0x3fff80000800, 0x400000000800},  // beyond MAXPHYADDR
      {0x20f, 0x800, 0x400},
      {0x250, 0x0606060606060606, 0x0606060606060607},
      {0x2ff, 0xc06, 0x100},
      {0x48, 1, 8},
      {0xc0000080, x86::kEferLme | x86::kEferLma | x86::kEferSce, 2},
      {0xc0000082, 0xffffffff81000000, kNonCanonical},
      {0xc0000084, 0xffffffff, uint64_t{1} << 32},
      {0xc0000100, 0x7fffffffffff, kNonCanonical},
      {0xc0000101, 0x7fffffffffff, kNonCanonical},
      {0xc0000102, 0x7fffffffffff, kNonCanonical},
      {0xc0000103, 0xffffffff, uint64_t{1} << 32},
  };
  for (const Case& test : cases) {
    EXPECT_TRUE(write_msr(cpu, test.index, test.good)) << std::hex << test.index;
    EXPECT_EQ(read_msr(cpu, test.index), test.good) << std::hex << test.index;
    EXPECT_FALSE(write_msr(cpu, test.index, test.bad)) << std::hex << test.index;
    expect_fault(cpu, x86::kGeneralProtection, 0);
    EXPECT_EQ(read_msr(cpu, test.index), test.good) << std::hex << test.index;
  }
  for (const uint32_t read_only : {0x10au, 0xfeu, 0xceu, 0x179u}) {
    EXPECT_FALSE(write_msr(cpu, read_only, 0)) << std::hex << read_only;
    expect_fault(cpu, x86::kGeneralProtection, 0);
  }
  EXPECT_EQ(read_msr(cpu, 0x10a), x86::kArchCapabilities);
  EXPECT_TRUE(write_msr(cpu, 0x49, 1));
  cpu.gpr[x86::kRcx] = 0x49;
  EXPECT_FALSE(rdmsr(cpu, nullptr));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_FALSE(write_msr(cpu, 0x12345678, 0));  // nobody's
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(SystemTest, TscAdjustFollowsTsc) {
  Cpu& cpu = enter();
  const uint64_t start = read_msr(cpu, 0x10);
  EXPECT_TRUE(write_msr(cpu, 0x10, start + 1000));
  EXPECT_EQ(read_msr(cpu, 0x3b), 1000u);
  EXPECT_TRUE(write_msr(cpu, 0x3b, 0));
  EXPECT_EQ(read_msr(cpu, 0x10), start);
}

// --- Descriptors.

TEST_F(SystemTest, SegmentLoads) {
  machine_.enter_32({});
  machine_.poke<uint64_t>(Machine::kGdt + 0x30, make_descriptor(0x1000, 0xfff, 0x4092));  // not accessed
  machine_.poke<uint64_t>(Machine::kGdt + 0x38, make_descriptor(0, 0xfffff, 0xc013));     // not present
  Cpu& cpu = prepare(machine_);
  const auto load = [&](unsigned segment, uint16_t selector) {
    cpu.gpr[x86::kRbx] = selector;
    const Step step = register_step(segment, x86::kRbx, 4);
    return mov_to_segment(cpu, &step);
  };
  EXPECT_TRUE(load(x86::kDs, 0x30));
  EXPECT_EQ(cpu.state.segments[x86::kDs].base, 0x1000u);
  EXPECT_EQ(machine_.peek<uint8_t>(Machine::kGdt + 0x35) & 1, 1);
  EXPECT_FALSE(load(x86::kDs, 0x38));
  expect_fault(cpu, x86::kSegmentNotPresent, 0x38);
  EXPECT_FALSE(load(x86::kSs, 0x38));
  expect_fault(cpu, x86::kStackFault, 0x38);
  EXPECT_FALSE(load(x86::kDs, 0x40));
  expect_fault(cpu, x86::kGeneralProtection, 0x40);
  EXPECT_FALSE(load(x86::kSs, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_FALSE(load(x86::kSs, 0x08));  // code
  expect_fault(cpu, x86::kGeneralProtection, 0x08);
  EXPECT_FALSE(load(x86::kSs, 0x11));  // RPL is not CPL
  expect_fault(cpu, x86::kGeneralProtection, 0x10);
  EXPECT_FALSE(load(x86::kCs, 0x08));
  expect_fault(cpu, x86::kInvalidOpcode);
  EXPECT_TRUE(load(x86::kEs, 3));
  EXPECT_TRUE(cpu.state.segments[x86::kEs].unusable());
  EXPECT_TRUE(load(x86::kSs, 0x10));
  EXPECT_EQ(cpu.shadow, Cpu::Shadow::kMovSs);
}

TEST_F(SystemTest, NullStackSegmentIn64BitModeOnly) {
  Cpu& cpu = enter();
  cpu.gpr[x86::kRbx] = 0;
  const Step step = register_step(x86::kSs, x86::kRbx);
  EXPECT_TRUE(mov_to_segment(cpu, &step));
  EXPECT_EQ(cpu.cpl, 0);
  cpu.gpr[x86::kRbx] = 3;
  EXPECT_FALSE(mov_to_segment(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

GUEST_CODE(descriptor_questions, "64", R"(
  mov ecx, 0x20
  lar eax, cx
  setz bl
  mov r8, rax
  lsl r9d, ecx
  mov ecx, 0x10
  verw cx
  setz r10b
  mov ecx, 0x28
  verw cx
  setz r11b
  verr cx
  setz r12b
  mov ecx, 0xfff8
  lar r13d, ecx
  setz r14b
  str r15d
)" DONE);

TEST(SystemProgram, LarLslVerrVerw) {
  Machine machine;
  machine.enter_64(descriptor_questions);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx) & 0xff, 1u);
  EXPECT_EQ(machine.gpr(x86::kR8), 0x00a0fb00u);
  EXPECT_EQ(machine.gpr(x86::kR9), 0xffffffffu);
  EXPECT_EQ(machine.gpr(x86::kR10) & 0xff, 1u);
  EXPECT_EQ(machine.gpr(x86::kR11) & 0xff, 0u);
  EXPECT_EQ(machine.gpr(x86::kR12) & 0xff, 1u);
  EXPECT_EQ(machine.gpr(x86::kR14) & 0xff, 0u);
  EXPECT_EQ(machine.gpr(x86::kR15), 0x30u);
}

TEST_F(SystemTest, LtrAndLldt) {
  machine_.enter_64({});
  machine_.poke<uint64_t>(Machine::kGdt + 0x30, make_descriptor(0x3000, 0x67, 0x0089));
  machine_.poke<uint64_t>(Machine::kGdt + 0x38, 0xfffffe12);  // base bits 63:32
  machine_.state.gdtr.limit = 0x4f;
  machine_.poke<uint64_t>(Machine::kGdt + 0x40, make_descriptor(0x7000, 0xf, 0x0082));
  machine_.poke<uint64_t>(Machine::kGdt + 0x48, 0);
  Cpu& cpu = prepare(machine_);
  cpu.gpr[x86::kRbx] = 0x30;
  const Step step = register_step(0, x86::kRbx);
  EXPECT_TRUE(ltr(cpu, &step));
  EXPECT_EQ(cpu.state.tr.base, 0xfffffe1200003000u);
  EXPECT_EQ(cpu.state.tr.type(), 11u);
  EXPECT_FALSE(ltr(cpu, &step));  // busy now
  expect_fault(cpu, x86::kGeneralProtection, 0x30);
  cpu.gpr[x86::kRbx] = 0x40;
  EXPECT_TRUE(lldt(cpu, &step));
  EXPECT_EQ(cpu.state.ldtr.base, 0x7000u);
  machine_.poke<uint64_t>(Machine::kGdt + 0x48, 0x8000);  // non-canonical base
  EXPECT_FALSE(lldt(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0x40);
  cpu.gpr[x86::kRbx] = 0;
  EXPECT_TRUE(lldt(cpu, &step));
  EXPECT_TRUE(cpu.state.ldtr.unusable());
  EXPECT_FALSE(ltr(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(SystemTest, UmipHidesTablesFromUsers) {
  Cpu& cpu = enter();
  cpu.state.cr4 |= x86::kCr4Umip;
  const Step step = register_step(0, x86::kRbx);
  EXPECT_TRUE(smsw(cpu, &step));
  cpu.state.segments[x86::kSs].attributes |= 0x60;
  cpu.update_mode();
  for (Body* body : {smsw, sldt, str}) {
    EXPECT_FALSE(body(cpu, &step));
    expect_fault(cpu, x86::kGeneralProtection, 0);
  }
}

TEST_F(SystemTest, InvpcidChecks) {
  Cpu& cpu = enter();
  Step step = register_step(x86::kRcx, 0);
  step.insn.is_memory = true;
  step.insn.base = Cpu::kZeroRegister;
  step.insn.index = Cpu::kZeroRegister;
  step.insn.displacement = 0x20000;
  step.insn.segment = x86::kDs;
  const auto run = [&](uint64_t type, uint64_t pcid, uint64_t address) {
    cpu.gpr[x86::kRcx] = type;
    machine_.poke<uint64_t>(0x20000, pcid);
    machine_.poke<uint64_t>(0x20008, address);
    const bool done = invpcid(cpu, &step);
    clear_fault(cpu);
    return done;
  };
  EXPECT_TRUE(run(0, 0, 0x1000));
  EXPECT_FALSE(run(0, 0, 0x800000000000));
  EXPECT_TRUE(run(1, 0, 0x800000000000));
  EXPECT_FALSE(run(1, 1, 0));  // without CR4.PCIDE
  EXPECT_TRUE(run(2, 1, 0));
  EXPECT_FALSE(run(2, 0x1000, 0));
  EXPECT_FALSE(run(4, 0, 0));
  cpu.state.cr4 |= x86::kCr4Pcide;
  EXPECT_TRUE(run(1, 0xfff, 0));
}

// --- CPUID, XCR0, time.

GUEST_CODE(cpuid_dynamic, "64", R"(
  mov eax, 1
  cpuid
  mov r8d, ecx
  mov rax, cr4
  or eax, 0x40000
  mov cr4, rax
  mov eax, 1
  cpuid
  mov r9d, ecx
  mov eax, 7
  xor edx, edx
  xor ecx, ecx
  xsetbv
  mov eax, 0xd
  xor ecx, ecx
  cpuid
  mov r10d, ebx
  xor ecx, ecx
  xgetbv
  mov r11d, eax
)" DONE);

TEST(SystemProgram, CpuidFollowsCr4AndXcr0) {
  Machine machine;
  machine.enter_64(cpuid_dynamic);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kR8) >> 27 & 1, 0u);
  EXPECT_EQ(machine.gpr(x86::kR9) >> 27 & 1, 1u);
  EXPECT_EQ(machine.gpr(x86::kR10), 832u);
  EXPECT_EQ(machine.gpr(x86::kR11), 7u);
}

TEST_F(SystemTest, XsetbvRules) {
  Cpu& cpu = enter();
  const auto write = [&](uint32_t index, uint64_t value) {
    cpu.gpr[x86::kRcx] = index;
    cpu.gpr[x86::kRax] = value;
    cpu.gpr[x86::kRdx] = 0;
    return xsetbv(cpu, nullptr);
  };
  EXPECT_FALSE(write(0, 3));
  expect_fault(cpu, x86::kInvalidOpcode);
  cpu.state.cr4 |= x86::kCr4Osxsave;
  for (const uint64_t value : {0u, 2u, 5u, 0x10u | 3}) {
    EXPECT_FALSE(write(0, value)) << value;
    expect_fault(cpu, x86::kGeneralProtection, 0);
  }
  EXPECT_FALSE(write(1, 3));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_TRUE(write(0, 3));
}

// --- Ports.

GUEST_CODE(port_strings, "64", R"(
  mov edx, 0x60
  mov edi, 0x20ffe
  mov ecx, 4
  cld
  rep insb
  mov esi, 0x20ffe
  mov ecx, 2
  mov edx, 0x70
  rep outsw
  in eax, dx
)" DONE);

TEST(SystemProgram, RepeatedPortStrings) {
  Machine machine;
  machine.enter_64(port_strings);
  machine.io.port_values[0x60] = 0x5a;
  machine.io.port_values[0x70] = 0x87654321;
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint32_t>(0x20ffe), 0x5a5a5a5au);
  ASSERT_EQ(machine.io.port_writes.size(), 2u);
  EXPECT_EQ(machine.io.port_writes[1], (TestIo::PortWrite{0x70, 0x5a5a}));
  EXPECT_EQ(machine.gpr(x86::kRcx), 0u);
  EXPECT_EQ(machine.gpr(x86::kRdi), 0x21002u);
  EXPECT_EQ(machine.gpr(x86::kRax), 0x87654321u);
}

GUEST_CODE(port_fault, "64", R"(
  mov edx, 0x60
  mov edi, 0x3ffffe
  mov ecx, 4
  rep insb
)" DONE);
GUEST_CODE(stop_handler, "64", DONE);

/// INS into an unmapped page faults before the port is read, with the registers of the last finished iteration.
TEST(SystemProgram, PortStringFaultIsRestartable) {
  Machine machine;
  machine.enter_64(port_fault);
  machine.set_gate_64(14, 0x5000);
  machine.load(0x5000, stop_handler);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRcx), 2u);
  EXPECT_EQ(machine.gpr(x86::kRdi), 0x400000u);
  EXPECT_EQ(machine.state.cr2, 0x400000u);
  EXPECT_EQ(machine.peek<uint64_t>(machine.gpr(x86::kRsp) + 8), Machine::kCode + port_fault.size() - 4 - 2);
}

TEST_F(SystemTest, PortsNeedIoplOrBitmap) {
  Cpu& cpu = enter();
  cpu.state.segments[x86::kSs].attributes |= 0x60;
  cpu.update_mode();
  Step step = register_step(0, 0);
  step.insn.opcode = 0xec;
  cpu.gpr[x86::kRdx] = 0x60;
  machine_.poke<uint16_t>(Machine::kTss + 0x66, 0x1000);  // the map is beyond the TSS's limit
  EXPECT_FALSE(in(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.set_rflags(cpu.rflags() | x86::kIopl);
  EXPECT_TRUE(in(cpu, &step));
}

GUEST_CODE(hypercall, "64", R"(
  mov eax, 7
  vmcall
)" DONE);

TEST(SystemProgram, HypercallWithoutHypervisorIsUndefined) {
  Machine machine;
  machine.enter_64(hypercall);
  machine.set_gate_64(6, 0x5000);
  machine.load(0x5000, stop_handler);
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint64_t>(machine.gpr(x86::kRsp)), Machine::kCode + 5);
}

GUEST_CODE(gs_swap, "64", R"(
  mov ecx, 0xc0000101
  mov eax, 0x20000
  xor edx, edx
  wrmsr
  mov ecx, 0xc0000102
  mov eax, 0x21000
  wrmsr
  mov qword ptr gs:[0], 1
  swapgs
  mov qword ptr gs:[0], 2
  swapgs
  mov rbx, gs:[0]
  mov rax, cr4
  or eax, 0x10000
  mov cr4, rax
  rdgsbase r8
  mov r9d, 0x22000
  wrgsbase r9
  mov qword ptr gs:[0], 3
)" DONE);

TEST(SystemProgram, GsBases) {
  Machine machine;
  machine.enter_64(gs_swap);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 1u);
  EXPECT_EQ(machine.peek<uint64_t>(0x21000), 2u);
  EXPECT_EQ(machine.gpr(x86::kR8), 0x20000u);
  EXPECT_EQ(machine.peek<uint64_t>(0x22000), 3u);
}

}  // namespace
}  // namespace tenon::interp
