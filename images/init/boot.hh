// What PID 1 does before it runs anything, and the last thing it does: file systems, names, power.
#pragma once

namespace tenon::guest {

/// Mounts /proc, /sys, /dev and the rest, and brings the loopback interface up. Goes on where one of them fails: a
/// kernel without, say, devpts can still run most commands.
void set_up_system();

/// Whether `word` stands by itself on the kernel command line.
bool command_line_has(const char* word);

/// Path of the device behind /dev/console ("/dev/ttyS0"): the last console= of the command line.
const char* console_path();

void set_host_name(const char* name);

enum class Ending { kPowerOff, kRestart };
/// Ends the guest. Every other process should be dead.
[[noreturn]] void end_system(Ending ending);

}  // namespace tenon::guest
