// Task switches through TSS descriptors and task gates, and the parts of the TSS that other transfers read.
// Source: Intel SDM Vol. 3 chapter 8 ("Task Management"; chapter 9 in revisions after 080).
#pragma once

#include "engine/interp/segment.hh"

namespace tenon::interp {

enum class TaskSwitch : uint8_t { kJump, kCall, kInterrupt, kReturn };

/// Switches to the task of `tss`, whose type, presence and privilege the caller has checked. `saved_flags` is the
/// EFLAGS image for the old task (with RF for a fault); cpu.rip is saved with it. False: a fault is pending, either in
/// the old task with nothing changed, or, for faults found while loading the new task's segments, in the new task (SDM
/// Vol. 3 8.3).
bool switch_task(Cpu& cpu, Descriptor tss, TaskSwitch reason, uint64_t saved_flags);
/// The same through a task gate's or a far pointer's TSS selector, with the checks on it; faults are #GP and #NP.
bool switch_task_by_selector(Cpu& cpu, uint16_t selector, TaskSwitch reason, uint64_t saved_flags);
/// IRET with NT set: back along the link in the current TSS; faults are #TS and #NP.
bool return_to_previous_task(Cpu& cpu);

/// SS and ESP for `cpl` from the current 16- or 32-bit TSS, SS fully checked (#TS, #SS) and marked accessed.
bool read_inner_stack(Cpu& cpu, unsigned cpl, x86::Segment& stack, uint64_t& esp);
/// A stack pointer of the 64-bit TSS: `slot` is its byte offset (RSP0-2, IST1-7).
bool read_inner_rsp(Cpu& cpu, unsigned slot, uint64_t& rsp);
constexpr unsigned rsp_slot(unsigned cpl) { return 4 + 8 * cpl; }
constexpr unsigned ist_slot(unsigned stack_table) { return 36 + 8 * (stack_table - 1); }

/// Whether the TSS's I/O permission bitmap allows [port, port + size) (SDM Vol. 1 19.5.2). False: #GP(0) or #PF
/// pending.
bool io_bitmap_allows(Cpu& cpu, uint16_t port, unsigned size_bytes);
/// The VME interrupt redirection bitmap: whether INT `vector` goes to the virtual-8086 program's own handler (bit
/// clear) (SDM Vol. 3 21.3.3). False: a fault is pending.
bool read_redirection(Cpu& cpu, uint8_t vector, bool& to_program);

}  // namespace tenon::interp
