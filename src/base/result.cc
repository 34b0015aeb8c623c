#include "base/result.hh"

#include <cstring>

namespace tenon {

namespace {

ErrorCode code_of(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENODEV:
    case ENXIO: return ErrorCode::kNotFound;
    case ENOMEM: return ErrorCode::kNoMemory;
    case EBUSY:
    case EAGAIN: return ErrorCode::kBusy;
    case EINVAL: return ErrorCode::kInvalidArgument;
    default: return ErrorCode::kIo;
  }
}

}  // namespace

Error Error::from_errno(std::string_view operation, int error_number) {
  std::string message(operation);
  message += ": ";
  message += strerrordesc_np(error_number) != nullptr ? strerrordesc_np(error_number) : "unknown error";
  return Error(code_of(error_number), std::move(message));
}

}  // namespace tenon
