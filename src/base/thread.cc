#include "base/thread.hh"

#include <pthread.h>
#include <sys/prctl.h>

namespace tenon {

namespace {

constexpr size_t kNameMax = 15;  // TASK_COMM_LEN less the final zero

}  // namespace

void name_this_thread(const std::string& name) {
  ::pthread_setname_np(::pthread_self(), name.substr(0, kNameMax).c_str());
}

void wake_this_thread_exactly() { ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); }

}  // namespace tenon
