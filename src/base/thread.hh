// What a thread says about itself to the host: its name in `top -H`, and how late it may wake up.
#pragma once

#include <string>

namespace tenon {

/// Names the calling thread ("vcpu0", "timer", "io:disk0"); the host keeps 15 characters.
void name_this_thread(const std::string& name);

/// Lets sleeps of the calling thread end within about a microsecond of their deadline, where the host would otherwise
/// round up by 50 us to save wake-ups. For threads that stand for guest timers.
void wake_this_thread_exactly();

}  // namespace tenon
