#include "cli/run_plan.hh"

namespace tenon {

namespace {

// Shows what a newcomer would type. Each command is echoed as a shell with a prompt would.
constexpr const char* kTranscript = R"(
show() { echo "$(hostname):~# $*"; eval "$*"; echo; }
cd
show uname -a
show 'cat /proc/cpuinfo | head -n 8'
show free -m
show 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource'
show 'dmesg | grep -i -e "Booting paravirtualized" -e "smp: Brought up"'
show 'ps | head -n 4'
show 'echo $((6 * 7))'
)";

}  // namespace

RunPlan RunPlan::make(const RunOptions& options, const StandardStreams& streams) {
  if (!options.command.empty()) {
    const bool terminal = streams.stdin_is_terminal && streams.stdout_is_terminal;
    return {.kind = terminal ? Kind::kTerminalCommand : Kind::kPipes, .command = options.command};
  }
  // Without our init nobody could run the transcript: the console is all there is.
  if (!streams.stdin_is_terminal && options.has_our_init())
    return {.kind = Kind::kTranscript, .command = {"sh", "-c", kTranscript}};
  return {.kind = Kind::kConsole, .command = {}};
}

std::string kernel_command_line(const RunOptions& options) {
  // panic=-1: a kernel that panics restarts at once, which ends the run. earlyprintk: one that dies before its console
  // is up still says why. cryptomgr.notests: the kernel's self-tests of its ciphers are most of a boot's instructions
  // on a software engine, and test nothing about this machine; `--append cryptomgr.notests=0` brings them back.
  std::string line = "console=ttyS0 earlyprintk=ttyS0 panic=-1 cryptomgr.notests=1";
  line += options.verbose ? " ignore_loglevel" : " quiet loglevel=3";
  if (!options.append.empty()) line += " " + options.append;
  return line;
}

}  // namespace tenon
