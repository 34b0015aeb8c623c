// Far JMP, CALL and RET, IRET, in every mode and privilege form.
//
// All are an instruction's last act. On entry cpu.rip is the instruction itself (so that a fault points there); on
// success it is the target. False: a fault is pending and cpu.rip is where it points, which after a task switch may be
// the new task. Source: Intel SDM Vol. 2 CALL, JMP, RET, IRET; Vol. 3 5.8, 6.12, 6.14, 21.2.
#pragma once

#include "engine/interp/segment.hh"

namespace tenon::interp {

bool far_jump(Cpu& cpu, uint16_t selector, uint64_t offset, uint64_t next_rip);
/// `operand_size` (2, 4, 8) is the width of the pushes where no gate decides it; `next_rip` is what is pushed.
bool far_call(Cpu& cpu, uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip);
/// `release` more bytes leave the stack (both stacks on a level change).
bool far_return(Cpu& cpu, unsigned operand_size, unsigned release);
bool interrupt_return(Cpu& cpu, unsigned operand_size, uint64_t next_rip);

}  // namespace tenon::interp
