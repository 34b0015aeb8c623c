// Result<T>: the value, or an Error that a person can act on. Tenon throws no exceptions.
//
// Legal use: a function that can fail returns Result<T>; its caller writes `T x = TRY(f());` to pass the error on, or
// `MUST(f())` with a comment that says why it cannot fail. A bad guest access is behaviour, not an Error.
// Wrap an error once at each border with `with_context("loading initrd /boot/i")`.
#pragma once

#include <cerrno>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.hh"

namespace tenon {

enum class ErrorCode : uint8_t {
  kInvalidArgument,  // the caller or the user asked for something that makes no sense
  kNotFound,         // a file, device or image that should be there is not
  kCorrupt,          // input (kernel, image, snapshot) breaks its format
  kUnsupported,      // well-formed, but this build, host or engine cannot do it
  kOutOfRange,       // a guest or host address range does not fit
  kNoMemory,         // the host refused memory
  kIo,               // a host system call failed
  kBusy,             // a resource is in use
};

/// What failed, on what, and what to do next, in one line for a person.
class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, std::string message) : message_(std::move(message)), code_(code) {}

  /// The failure of a host system call: `operation` names the call and its object ("open /dev/kvm").
  static Error from_errno(std::string_view operation, int error_number = errno);

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

  /// The same error seen from one border further out: "context: message".
  Error with_context(std::string_view context) && {
    message_.insert(0, ": ").insert(0, context);
    return std::move(*this);
  }

 private:
  std::string message_;
  ErrorCode code_;
};

template <typename T = void>
using Result = std::expected<T, Error>;

/// `return fail(ErrorCode::kCorrupt, "...")` from any function that returns a Result.
inline std::unexpected<Error> fail(ErrorCode code, std::string message) {
  return std::unexpected<Error>(Error(code, std::move(message)));
}

/// `return fail_errno("mmap 2 MiB of guest memory")` right after the failed call.
inline std::unexpected<Error> fail_errno(std::string_view operation) {
  return std::unexpected<Error>(Error::from_errno(operation));
}

}  // namespace tenon

// The value of a Result, or return its error from the enclosing function (which must return a Result too).
#define TRY(expression)                                                           \
  __extension__({                                                                 \
    auto try_result_ = (expression);                                              \
    if (!try_result_) [[unlikely]]                                                \
      return ::std::unexpected<::tenon::Error>(::std::move(try_result_).error()); \
    ::std::move(try_result_).value();                                             \
  })

// The value of a Result whose failure would be a bug of ours; the comment beside it says why.
#define MUST(expression)               \
  __extension__({                      \
    auto must_result_ = (expression);  \
    CHECK(must_result_.has_value());   \
    ::std::move(must_result_).value(); \
  })
