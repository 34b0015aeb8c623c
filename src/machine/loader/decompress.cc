#include "machine/loader/decompress.hh"

#include <fmt/format.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/byte_order.hh"

namespace tenon {

namespace {

using Input = std::span<const std::byte>;
using Output = std::vector<std::byte>;

constexpr uint64_t kFirstOutputSize = 1 << 20;
constexpr uint64_t kFirstOutputRatio = 8;      // few kernels compress better
constexpr uint64_t kXzMemoryMax = 256u << 20;  // Linux uses dictionaries of up to 32 MiB

std::unexpected<Error> broken(std::string_view format, uint64_t offset, std::string_view why) {
  return fail(
      ErrorCode::kCorrupt,
      fmt::format("{} stream is broken at its byte {}: {}; the file is truncated or corrupt", format, offset, why));
}

/// `capacity` is one more than the caller's limit: the decoders need room left to see the end of a stream.
std::unexpected<Error> too_large(std::string_view format, uint64_t capacity) {
  return fail(ErrorCode::kOutOfRange,
              fmt::format("{} stream unpacks to more than the limit of {} bytes", format, capacity - 1));
}

/// What to allocate first: a multiple of the input, so that a small hostile file that promises a large output costs
/// nothing before it delivers.
uint64_t first_output_size(Input input, uint64_t capacity) {
  return std::min(capacity, kFirstOutputSize + kFirstOutputRatio * input.size());
}

/// Makes room behind `used` bytes; false where the limit is reached.
bool grow(Output& output, uint64_t used, Input input, uint64_t capacity) {
  if (used < output.size()) return true;
  if (used >= capacity) return false;
  output.resize(std::min(capacity, std::max(first_output_size(input, capacity), used * 2)));
  return true;
}

Result<Output> gunzip(Input input, uint64_t capacity) {
  z_stream stream{};
  // 16: a gzip header and trailer are required and checked.
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return fail(ErrorCode::kNoMemory, "no memory for zlib");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  Output output;
  uint64_t consumed = 0;
  uint64_t produced = 0;
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    if (!grow(output, produced, input, capacity)) return too_large("gzip", capacity);
    const auto in_now = static_cast<uInt>(std::min<uint64_t>(input.size() - consumed, 1u << 30));
    const auto out_now = static_cast<uInt>(std::min<uint64_t>(output.size() - produced, 1u << 30));
    // SAFETY: zlib does not write through next_in.
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(input.data() + consumed));
    stream.avail_in = in_now;
    stream.next_out = reinterpret_cast<Bytef*>(output.data() + produced);
    stream.avail_out = out_now;
    status = inflate(&stream, Z_NO_FLUSH);
    consumed += in_now - stream.avail_in;
    produced += out_now - stream.avail_out;
    if (status == Z_BUF_ERROR && stream.avail_out != 0) return broken("gzip", consumed, "the data ends early");
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      return broken("gzip", consumed, stream.msg != nullptr ? stream.msg : "bad data");
  }
  if (consumed != input.size()) return broken("gzip", consumed, "data follows its end");
  output.resize(produced);
  return output;
}

std::string_view describe(lzma_ret status) {
  switch (status) {
    case LZMA_FORMAT_ERROR: return "not an xz header";
    case LZMA_OPTIONS_ERROR: return "options this liblzma does not know";
    case LZMA_MEMLIMIT_ERROR: return "needs a dictionary over 256 MiB";
    case LZMA_BUF_ERROR: return "the data ends early";
    case LZMA_MEM_ERROR: return "no host memory";
    default: return "bad data";
  }
}

Result<Output> unxz(Input input, uint64_t capacity) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kXzMemoryMax, 0) != LZMA_OK)
    return fail(ErrorCode::kNoMemory, "no memory for liblzma");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> guard(&stream, lzma_end);
  stream.next_in = reinterpret_cast<const uint8_t*>(input.data());
  stream.avail_in = input.size();
  Output output;
  lzma_ret status = LZMA_OK;
  while (status != LZMA_STREAM_END) {
    if (!grow(output, stream.total_out, input, capacity)) return too_large("xz", capacity);
    stream.next_out = reinterpret_cast<uint8_t*>(output.data()) + stream.total_out;
    stream.avail_out = output.size() - stream.total_out;
    status = lzma_code(&stream, LZMA_FINISH);
    if (status == LZMA_BUF_ERROR && stream.avail_out == 0) continue;
    if (status != LZMA_OK && status != LZMA_STREAM_END) return broken("xz", stream.total_in, describe(status));
  }
  if (stream.total_in != input.size()) return broken("xz", stream.total_in, "data follows its end");
  output.resize(stream.total_out);
  return output;
}

/// Legacy frame: the magic, then blocks of {le32 size, data}, each unpacking to at most 8 MiB (lz4
/// doc/lz4_Frame_format.md, "Legacy frame").
Result<Output> unlz4(Input input, uint64_t capacity) {
  constexpr uint64_t kBlockSizeMax = 8 << 20;
  const int compressed_max = LZ4_compressBound(kBlockSizeMax);
  Output output;
  output.reserve(first_output_size(input, capacity));
  uint64_t offset = sizeof(le32);
  uint64_t produced = 0;
  while (offset < input.size()) {
    if (input.size() - offset < sizeof(le32)) return broken("lz4", offset, "half a block size");
    const uint32_t size = load_wire<le32>(input.data() + offset);
    offset += sizeof(le32);
    if (size == 0 || size > static_cast<uint32_t>(compressed_max))
      return broken("lz4", offset - sizeof(le32), fmt::format("block size {:#x}", size));
    if (size > input.size() - offset)
      return broken("lz4", input.size(), fmt::format("a block of {} bytes starts at {}", size, offset));
    const uint64_t room = std::min(kBlockSizeMax, capacity - produced);
    output.resize(produced + room);
    const int count = LZ4_decompress_safe(reinterpret_cast<const char*>(input.data() + offset),
                                          reinterpret_cast<char*>(output.data() + produced), static_cast<int>(size),
                                          static_cast<int>(room));
    if (count < 0 && room < kBlockSizeMax) return too_large("lz4", capacity);
    if (count < 0) return broken("lz4", offset, "bad data in the block");
    produced += static_cast<uint64_t>(count);
    offset += size;
  }
  output.resize(produced);
  return output;
}

Result<Output> unzstd(Input input, uint64_t capacity) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(), ZSTD_freeDStream);
  if (stream == nullptr) return fail(ErrorCode::kNoMemory, "no memory for libzstd");
  Output output;
  ZSTD_inBuffer in{input.data(), input.size(), 0};
  uint64_t produced = 0;
  for (;;) {
    if (!grow(output, produced, input, capacity)) return too_large("zstd", capacity);
    ZSTD_outBuffer out{output.data() + produced, output.size() - produced, 0};
    const size_t status = ZSTD_decompressStream(stream.get(), &out, &in);
    produced += out.pos;
    if (ZSTD_isError(status) != 0) return broken("zstd", in.pos, ZSTD_getErrorName(status));
    if (status == 0) break;
    if (in.pos == in.size && out.pos < out.size) return broken("zstd", in.pos, "the data ends early");
  }
  if (in.pos != in.size) return broken("zstd", in.pos, "data follows its end");
  output.resize(produced);
  return output;
}

struct Format {
  Compression compression;
  std::string_view name;
  std::array<uint8_t, 6> magic;
  size_t magic_size;
  Result<Output> (*unpack)(Input, uint64_t);  // nullptr: recognised but not unpacked
};

// clang-format off
constexpr Format kFormats[] = {
    {Compression::kGzip,  "gzip",  {0x1f, 0x8b},                         2, gunzip},
    {Compression::kXz,    "xz",    {0xfd, '7', 'z', 'X', 'Z', 0x00},     6, unxz},
    {Compression::kLz4,   "lz4",   {0x02, 0x21, 0x4c, 0x18},             4, unlz4},
    {Compression::kZstd,  "zstd",  {0x28, 0xb5, 0x2f, 0xfd},             4, unzstd},
    {Compression::kLzma,  "lzma",  {0x5d, 0x00, 0x00},                   3, nullptr},
    {Compression::kBzip2, "bzip2", {'B', 'Z', 'h'},                      3, nullptr},
    {Compression::kLzo,   "lzo",   {0x89, 'L', 'Z', 'O', 0x00, 0x0d},    6, nullptr},
};
// clang-format on

bool starts_with(Input bytes, const Format& format) {
  return bytes.size() >= format.magic_size &&
         std::equal(format.magic.begin(), format.magic.begin() + format.magic_size, bytes.begin(),
                    [](uint8_t a, std::byte b) { return std::byte{a} == b; });
}

}  // namespace

std::string_view name(Compression compression) {
  for (const Format& format : kFormats) {
    if (format.compression == compression) return format.name;
  }
  return "uncompressed";
}

Compression detect_compression(Input bytes) {
  for (const Format& format : kFormats) {
    if (starts_with(bytes, format)) return format.compression;
  }
  return Compression::kNone;
}

Result<Output> decompress(Compression compression, Input input, uint64_t size_bytes_max) {
  for (const Format& format : kFormats) {
    if (format.compression != compression) continue;
    if (format.unpack == nullptr)
      return fail(
          ErrorCode::kUnsupported,
          fmt::format("{} compression is not unpacked here (gzip, xz, lz4 and zstd are): rebuild the kernel with "
                      "one of those, or give the vmlinux that Linux's scripts/extract-vmlinux makes of it",
                      format.name));
    auto output = format.unpack(input, size_bytes_max + 1);
    if (output && output->size() > size_bytes_max) return too_large(format.name, size_bytes_max + 1);
    return output;
  }
  return fail(ErrorCode::kInvalidArgument, "the data is not compressed");
}

}  // namespace tenon
