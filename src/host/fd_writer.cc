#include "host/fd_writer.hh"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <vector>

#include "base/fd.hh"
#include "base/mutex.hh"
#include "base/thread.hh"
#include "host/byte_mailbox.hh"

namespace tenon {

namespace {
constexpr unsigned kDrainLimitMs = 2000;
constexpr size_t kWriteMax = 16 * 1024;  // a callback after each piece, so that credit flows
}  // namespace

struct FdWriter::State {
  State(Fd duplicate, Callbacks functions)
      : fd(std::move(duplicate)), callbacks(std::move(functions)), mailbox([this] { wake(); }) {}

  void wake() {
    const MutexLock lock(mutex);
    arrived = true;
    changed.notify_all();
  }
  void run();
  void write_all(std::span<const uint8_t> bytes);
  void fail(int error_number);
  void tell_written(size_t size_bytes);

  const Fd fd;
  const Callbacks callbacks;
  ByteMailbox mailbox;
  Mutex mutex;
  Condition changed;
  bool arrived TENON_GUARDED_BY(mutex) = false;   // the mailbox has something
  bool writing TENON_GUARDED_BY(mutex) = false;   // the thread has taken bytes and not finished with them
  bool stopping TENON_GUARDED_BY(mutex) = false;  // end when idle
  bool finished TENON_GUARDED_BY(mutex) = false;
  bool failed = false;   // writer's thread only
  Mutex callback_mutex;  // held over callbacks, so that none runs once the writer object is gone
  bool abandoned TENON_GUARDED_BY(callback_mutex) = false;
};

void FdWriter::State::run() {
  // A reader that has gone is EPIPE for fail(), not the end of the process.
  sigset_t pipe_signal;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
  std::vector<uint8_t> bytes;
  for (;;) {
    {
      const MutexLock lock(mutex);
      writing = false;
      changed.notify_all();
      while (!arrived && !stopping) changed.wait(mutex);
      if (!arrived) break;
      arrived = false;
      writing = true;
    }
    mailbox.take(bytes);
    write_all(bytes);
  }
  const MutexLock lock(mutex);
  finished = true;
  changed.notify_all();
}

void FdWriter::State::write_all(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    size_t done = bytes.size();
    if (!failed) {
      const ssize_t count = ::write(fd.get(), bytes.data(), std::min(bytes.size(), kWriteMax));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) {  // somebody else has made the shared descriptor non-blocking
        pollfd polled{fd.get(), POLLOUT, 0};
        ::poll(&polled, 1, -1);
        continue;
      }
      if (count < 0) fail(errno);
      if (count >= 0) done = static_cast<size_t>(count);
    }
    bytes = bytes.subspan(done);
    tell_written(done);
  }
}

void FdWriter::State::fail(int error_number) {
  failed = true;
  mailbox.close();
  const MutexLock lock(callback_mutex);
  if (!abandoned && callbacks.failed) callbacks.failed(error_number);
}

void FdWriter::State::tell_written(size_t size_bytes) {
  const MutexLock lock(callback_mutex);
  if (!abandoned && callbacks.written) callbacks.written(size_bytes);
}

Result<std::unique_ptr<FdWriter>> FdWriter::create(int fd, const std::string& thread_name, Callbacks callbacks) {
  Fd duplicate(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!duplicate.is_open()) return fail_errno("duplicate descriptor " + std::to_string(fd));
  auto state = std::make_shared<State>(std::move(duplicate), std::move(callbacks));
  std::thread([state, thread_name] {
    name_this_thread(thread_name);
    state->run();
  }).detach();
  return std::unique_ptr<FdWriter>(new FdWriter(std::move(state)));
}

FdWriter::~FdWriter() {
  {
    const MutexLock lock(state_->callback_mutex);
    state_->abandoned = true;
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kDrainLimitMs);
  const MutexLock lock(state_->mutex);
  state_->stopping = true;
  state_->changed.notify_all();
  // A thread stuck in write(2) on a stopped terminal is left behind; it owns what it touches.
  while (!state_->finished && std::chrono::steady_clock::now() < deadline)
    state_->changed.wait_until(state_->mutex, deadline);
}

void FdWriter::write(std::span<const uint8_t> bytes) { state_->mailbox.write(bytes); }

bool FdWriter::drain(unsigned timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  const MutexLock lock(state_->mutex);
  while ((state_->arrived || state_->writing) && std::chrono::steady_clock::now() < deadline)
    state_->changed.wait_until(state_->mutex, deadline);
  return !state_->arrived && !state_->writing;
}

}  // namespace tenon
