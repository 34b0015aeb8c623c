// Decompression of kernel payloads on the host, with a limit on the output.
//
// Formats are told apart by their magic, as Linux lib/decompress.c does. lz4 means the legacy frame that kernels use
// (`lz4 -l`), not the standard frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hh"

namespace tenon {

enum class Compression : uint8_t { kNone, kGzip, kXz, kLz4, kZstd, kLzma, kBzip2, kLzo };

std::string_view name(Compression compression);

/// By the first bytes; kNone where none is known.
Compression detect_compression(std::span<const std::byte> bytes);

/// The whole of `input`, which must be exactly one stream. kUnsupported for lzma, bzip2 and lzo, kCorrupt for a broken
/// or truncated stream (the message says at which byte), kOutOfRange where the output passes `size_bytes_max`.
Result<std::vector<std::byte>> decompress(Compression compression, std::span<const std::byte> input,
                                          uint64_t size_bytes_max);

}  // namespace tenon
