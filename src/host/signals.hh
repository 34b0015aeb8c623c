// The signals that tenon handles, for callers that may not include the operating system's headers.
#pragma once

#include <signal.h>

namespace tenon::signals {

constexpr int kHangUp = SIGHUP;
constexpr int kInterrupt = SIGINT;
constexpr int kTerminate = SIGTERM;
constexpr int kStopFromTerminal = SIGTSTP;
constexpr int kWindowChanged = SIGWINCH;
constexpr int kReport = SIGUSR1;  // print the counters of the running machine

/// A write to a pipe that nobody reads is an error here, not the end of the process.
inline void ignore_broken_pipes() { ::signal(SIGPIPE, SIG_IGN); }

/// Stops this process as Ctrl-Z would; returns when it is continued.
inline void stop_this_process() { ::raise(SIGSTOP); }

/// "SIGTERM" and the like; "signal 42" for those without a name.
const char* name_of(int number);

}  // namespace tenon::signals
