// The control link between the host and the init of our own guests: frames on the second serial port (ttyS1), 8-bit
// clean.
//
// It starts a command in the guest, carries its stdin, stdout and stderr exactly, and brings its exit status back. The
// interactive console does not pass through here (it is the first serial port); only its window size does.
//
// Frame: FrameHeader, then `length` bytes (at most kFramePayloadMax). No checksum: an emulated serial port loses
// nothing as long as nobody sends more than the other side has room for, and that is what credit is for:
//   - The host may have kInputWindow bytes of kStartData and kInput under way; the guest returns credit (kInputCredit)
//   as
//     the command takes them. Start records count because the guest reads them through the same buffer.
//   - The guest may have kOutputWindow bytes of each output stream under way; the host returns credit (kOutputCredit)
//   as
//     its own stdout and stderr take them. So a slow reader stops the command, and nobody buffers without bound.
// Control frames are few and small; both ends always take them.
//
// Order: guest kReady; host kStartData*, kStart; guest kStarted; data both ways; guest kExit, after which the guest
// powers off. The host sends nothing before kReady: until the guest has set up its port, bytes would be lost. A second
// kReady means that the guest has restarted. Both sides include this file; a change of meaning changes
// kProtocolVersion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/byte_order.hh"

namespace tenon::console_protocol {

constexpr uint32_t kProtocolVersion = 1;
constexpr uint32_t kFrameMagic = 0x9C4E54C5;  // little endian: C5 54 4E 9C, no valid UTF-8 and no console text
constexpr uint32_t kFramePayloadMax = 4096;
// Less than the 64 KiB that Linux's tty layer buffers before it drops input (drivers/tty/tty_buffer.c).
constexpr uint32_t kInputWindow = 16 * 1024;
constexpr uint32_t kOutputWindow = 64 * 1024;
constexpr uint32_t kStartRecordMax = 256 * 1024;

// clang-format off
enum class FrameType : uint8_t {
  // Host to guest.
  kStartData    = 0x01,  // the next piece of the start record
  kStart        = 0x02,  // the start record is complete: run it
  kInput        = 0x03,  // bytes of stdin
  kInputEnd     = 0x04,  // stdin has ended
  kOutputClosed = 0x05,  // StreamId: nobody reads this stream any more; the command gets SIGPIPE when it writes there
  kWindowSize   = 0x06,  // WindowSize
  kSignal       = 0x07,  // SignalNumber for the command's process group
  kOutputCredit = 0x08,  // Credit
  // Guest to host.
  kReady        = 0x81,  // Ready
  kStarted      = 0x82,  // the command or the shell runs
  kOutput       = 0x83,  // bytes of stdout
  kErrorOutput  = 0x84,  // bytes of stderr
  kInputClosed  = 0x85,  // nobody reads stdin any more
  kInputCredit  = 0x86,  // Credit
  kExit         = 0x87,  // Exit
  kRestart      = 0x88,  // the guest is about to reboot because its user asked for it
};
// clang-format on

struct FrameHeader {
  le32 magic;      // 0x00 kFrameMagic
  uint8_t type;    // 0x04 FrameType
  uint8_t unused;  // 0x05 zero
  le16 length;     // 0x06 of the payload
};
static_assert(sizeof(FrameHeader) == 8 && alignof(FrameHeader) == 1);

enum class StreamId : uint8_t { kStdin = 0, kStdout = 1, kStderr = 2 };

struct Ready {
  le32 version;  // 0x00 kProtocolVersion
};

struct Credit {
  uint8_t stream;  // 0x00 StreamId
  le32 bytes;      // 0x01 that the receiver of this frame may send in addition
};
static_assert(sizeof(Credit) == 5);

struct WindowSize {
  le16 rows;     // 0x00
  le16 columns;  // 0x02
};
static_assert(sizeof(WindowSize) == 4);

struct SignalNumber {
  uint8_t number;  // 0x00 as Linux on x86-64 counts them, 1 to 64
};

enum class ExitKind : uint8_t {
  kExited = 0,     // value: exit status
  kSignalled = 1,  // value: signal number
  kNotRun = 2,     // value: errno of execve(2) or of what came before it
};

struct Exit {
  uint8_t kind;  // 0x00 ExitKind
  le32 value;    // 0x01
};
static_assert(sizeof(Exit) == 5);

enum class StartMode : uint8_t {
  kConsoleShell = 0,  // a login shell on the console; there are no arguments and no data streams
  kPipes = 1,         // the command on three pipes
  kTerminal = 2,      // the command on a pseudo-terminal that is its stdin, stdout and (see below) stderr
};

// The start record: this structure, then strings. Each string is one StartTag character, the text, and a NUL.
struct StartHeader {
  uint8_t mode;         // 0x00 StartMode
  uint8_t stderr_pipe;  // 0x01 with kTerminal: 1 where stderr is a pipe all the same
  WindowSize window;    // 0x02 zeros where not known
};
static_assert(sizeof(StartHeader) == 6);

// clang-format off
enum StartTag : char {
  kTagHostname    = 'h',
  kTagDirectory   = 'd',  // working directory of the command
  kTagEnvironment = 'e',  // NAME=VALUE
  kTagArgument    = 'a',  // argv, in order
};
// clang-format on

inline FrameHeader make_header(FrameType type, size_t payload_bytes) {
  return FrameHeader{.magic = kFrameMagic,
                     .type = static_cast<uint8_t>(type),
                     .unused = 0,
                     .length = static_cast<uint16_t>(payload_bytes)};
}

/// Cuts a byte stream into frames. The bytes come from the other side of the VM's border: any sequence is taken, bytes
/// that do not belong to a frame are skipped and counted. Allocates nothing, so that init can use it too.
class FrameParser {
 public:
  /// Calls `handle(FrameType, std::span<const uint8_t> payload)` for each frame that `bytes` completes. The type may be
  /// one that this version does not know; the payload may have any size up to kFramePayloadMax.
  template <typename Handler>
  void feed(std::span<const uint8_t> bytes, Handler&& handle) {
    while (!bytes.empty()) {
      bytes = bytes.subspan(take(bytes));
      resynchronise();
      if (frame_complete()) {
        const FrameHeader header = load_wire<FrameHeader>(buffer_);
        const size_t length = header.length;
        size_ = 0;
        handle(static_cast<FrameType>(header.type), std::span<const uint8_t>(buffer_ + sizeof(FrameHeader), length));
      }
    }
  }

  uint64_t skipped_bytes() const { return skipped_bytes_; }
  void reset() { size_ = 0; }

 private:
  bool header_complete() const { return size_ >= sizeof(FrameHeader); }
  size_t frame_bytes() const { return sizeof(FrameHeader) + load_wire<FrameHeader>(buffer_).length; }
  bool frame_complete() const { return header_complete() && size_ == frame_bytes(); }

  /// Moves bytes into buffer_ up to the end of the header, or of the frame once the header is known.
  size_t take(std::span<const uint8_t> bytes) {
    const size_t goal = header_complete() ? frame_bytes() : sizeof(FrameHeader);
    const size_t count = bytes.size() < goal - size_ ? bytes.size() : goal - size_;
    std::memcpy(buffer_ + size_, bytes.data(), count);
    size_ += count;
    return count;
  }

  /// Drops leading bytes until the buffer starts like a header. Only ever runs while the header is being collected.
  void resynchronise() {
    if (size_ > sizeof(FrameHeader)) return;
    while (size_ > 0 && !plausible()) {
      ++skipped_bytes_;
      --size_;
      std::memmove(buffer_, buffer_ + 1, size_);
    }
  }

  bool plausible() const {
    for (size_t i = 0; i < size_ && i < 4; ++i)
      if (buffer_[i] != static_cast<uint8_t>(kFrameMagic >> (8 * i))) return false;
    return !header_complete() || load_wire<FrameHeader>(buffer_).length <= kFramePayloadMax;
  }

  uint8_t buffer_[sizeof(FrameHeader) + kFramePayloadMax];
  size_t size_ = 0;
  uint64_t skipped_bytes_ = 0;
};

/// The payload as one fixed structure; false where the size is not exactly right.
template <typename Wire>
bool load_payload(std::span<const uint8_t> payload, Wire& out) {
  if (payload.size() != sizeof(Wire)) return false;
  out = load_wire<Wire>(payload.data());
  return true;
}

}  // namespace tenon::console_protocol
