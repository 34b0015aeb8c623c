#include "machine/loader/initrd.hh"

#include <fmt/format.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/bits.hh"
#include "machine/loader/decompress.hh"

namespace tenon {

namespace {

constexpr uint64_t kGzipCheckSizeMax = 64 * kMiB;

/// Size of the archive at the start of the bytes, or why it is broken. `offset` is its place in the initrd, for
/// messages.
using Measure = Result<uint64_t> (*)(Bytes archive, uint64_t offset);

std::unexpected<Error> broken(std::string_view format, uint64_t archive, uint64_t at, std::string_view why) {
  return fail(ErrorCode::kCorrupt,
              fmt::format("{} archive that starts at offset {:#x}: {} at offset {:#x}; the file is "
                          "truncated or corrupt",
                          format, archive, why, at));
}

// "newc" cpio: a 110-byte ASCII header, the name, padding to 4, the data, padding to 4 (buffer-format.rst).
constexpr size_t kCpioHeaderSize = 110;
constexpr size_t kCpioFileSizeField = 54;
constexpr size_t kCpioNameSizeField = 94;
constexpr uint64_t kCpioNameSizeMax = 4096;

bool is_cpio(Bytes bytes) {
  return bytes.size() >= 6 &&
         (std::memcmp(bytes.data(), "070701", 6) == 0 || std::memcmp(bytes.data(), "070702", 6) == 0);
}

std::optional<uint32_t> hex_field(Bytes header, size_t offset) {
  uint32_t value = 0;
  for (size_t i = offset; i < offset + 8; ++i) {
    const char c = static_cast<char>(header[i]);
    uint32_t digit = 0;
    if (c >= '0' && c <= '9')
      digit = static_cast<uint32_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<uint32_t>(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F')
      digit = static_cast<uint32_t>(c - 'A' + 10);
    else
      return std::nullopt;
    value = value << 4 | digit;
  }
  return value;
}

Result<uint64_t> measure_cpio(Bytes archive, uint64_t start) {
  uint64_t at = 0;
  for (;;) {
    const Bytes rest = archive.subspan(std::min<uint64_t>(at, archive.size()));
    if (rest.size() < kCpioHeaderSize)
      return broken("cpio", start, start + at, "no whole member header and no trailer");
    if (!is_cpio(rest)) return broken("cpio", start, start + at, "a member header without its magic 070701");
    const auto file_size = hex_field(rest, kCpioFileSizeField);
    const auto name_size = hex_field(rest, kCpioNameSizeField);
    if (!file_size || !name_size || *name_size == 0 || *name_size > kCpioNameSizeMax)
      return broken("cpio", start, start + at, "a member header with a bad size field");
    const uint64_t data = align_up(kCpioHeaderSize + *name_size, 4);
    const uint64_t end = align_up(data + *file_size, 4);
    if (kCpioHeaderSize + *name_size > rest.size()) return broken("cpio", start, start + at, "a member name cut off");
    const std::string_view name(reinterpret_cast<const char*>(rest.data()) + kCpioHeaderSize, *name_size - 1);
    if (name == "TRAILER!!!") return std::min<uint64_t>(at + end, archive.size());
    if (data + *file_size > rest.size())
      return broken("cpio", start, start + at, fmt::format("member \"{}\" of {} bytes cut off", name, *file_size));
    at += end;
  }
}

/// Unpacks into a buffer that is thrown away; gzip has no other way to find its end.
Result<uint64_t> measure_gzip(Bytes archive, uint64_t start) {
  if (archive.size() > kGzipCheckSizeMax) return archive.size();
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return fail(ErrorCode::kNoMemory, "no memory for zlib");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  std::array<Bytef, 64 * 1024> buffer;
  // SAFETY: zlib does not write through next_in.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(archive.data()));
  stream.avail_in = static_cast<uInt>(archive.size());
  int status = Z_OK;
  while (status == Z_OK) {
    stream.next_out = buffer.data();
    stream.avail_out = buffer.size();
    status = inflate(&stream, Z_NO_FLUSH);
  }
  const uint64_t consumed = archive.size() - stream.avail_in;
  if (status == Z_STREAM_END) return consumed;
  if (status == Z_BUF_ERROR) return broken("gzip", start, start + consumed, "the data ends early");
  return broken("gzip", start, start + consumed, stream.msg != nullptr ? stream.msg : "bad data");
}

/// Whether the archive ends with an xz footer and an index that is consistent with its length.
bool has_xz_tail(Bytes archive) {
  uint64_t size = archive.size();
  while (size > 0 && archive[size - 1] == std::byte{0}) --size;
  const auto* bytes = reinterpret_cast<const uint8_t*>(archive.data());
  lzma_stream_flags footer{};
  if (size < 2 * LZMA_STREAM_HEADER_SIZE ||
      lzma_stream_footer_decode(&footer, bytes + size - LZMA_STREAM_HEADER_SIZE) != LZMA_OK ||
      footer.backward_size > size - 2 * LZMA_STREAM_HEADER_SIZE)
    return false;
  size_t position = size - LZMA_STREAM_HEADER_SIZE - footer.backward_size;
  uint64_t memory_max = 64 * kMiB;
  lzma_index* index = nullptr;
  if (lzma_index_buffer_decode(&index, &memory_max, nullptr, bytes, &position, size) != LZMA_OK) return false;
  const uint64_t stream_size = lzma_index_stream_size(index);
  lzma_index_end(index, nullptr);
  return stream_size <= size;
}

/// A good tail is taken as a whole archive. Without one the archive is cut off, broken, or followed by another, and
/// only unpacking tells which and where.
Result<uint64_t> measure_xz(Bytes archive, uint64_t start) {
  if (has_xz_tail(archive)) return archive.size();
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, 256 * kMiB, 0) != LZMA_OK)
    return fail(ErrorCode::kNoMemory, "no memory for liblzma");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> guard(&stream, lzma_end);
  std::array<uint8_t, 64 * 1024> buffer;
  stream.next_in = reinterpret_cast<const uint8_t*>(archive.data());
  stream.avail_in = archive.size();
  lzma_ret status = LZMA_OK;
  while (status == LZMA_OK) {
    stream.next_out = buffer.data();
    stream.avail_out = buffer.size();
    status = lzma_code(&stream, LZMA_FINISH);
  }
  if (status == LZMA_STREAM_END) return stream.total_in;
  return broken("xz", start, start + stream.total_in, status == LZMA_BUF_ERROR ? "the data ends early" : "bad data");
}

/// Legacy frame: le32 block sizes until the end or something that is no block size.
Result<uint64_t> measure_lz4(Bytes archive, uint64_t start) {
  constexpr uint32_t kBlockSizeMax = (8 << 20) + (8 << 20) / 255 + 16;  // LZ4_COMPRESSBOUND of 8 MiB
  uint64_t at = sizeof(le32);
  while (archive.size() - at >= sizeof(le32)) {
    const uint32_t size = load_wire<le32>(archive.data() + at);
    if (size == 0 || size > kBlockSizeMax) return at;
    if (size > archive.size() - at - sizeof(le32))
      return broken("lz4", start, start + at, fmt::format("a block of {} bytes cut off", size));
    at += sizeof(le32) + size;
  }
  return at;
}

Result<uint64_t> measure_zstd(Bytes archive, uint64_t start) {
  const size_t size = ZSTD_findFrameCompressedSize(archive.data(), archive.size());
  if (ZSTD_isError(size) != 0)
    return broken("zstd", start, start + archive.size(),
                  fmt::format("{}, the frame does not end", ZSTD_getErrorName(size)));
  return size;
}

Measure measure_of(Bytes archive) {
  if (is_cpio(archive)) return measure_cpio;
  switch (detect_compression(archive)) {
    case Compression::kGzip: return measure_gzip;
    case Compression::kXz: return measure_xz;
    case Compression::kLz4: return measure_lz4;
    case Compression::kZstd: return measure_zstd;
    default: return nullptr;
  }
}

}  // namespace

Result<void> check_initrd(Bytes initrd) {
  uint64_t at = 0;
  while (at < initrd.size()) {
    if (initrd[at] == std::byte{0}) {
      ++at;
      continue;
    }
    const Measure measure = measure_of(initrd.subspan(at));
    if (measure == nullptr) return {};
    at += TRY(measure(initrd.subspan(at), at));
  }
  return {};
}

}  // namespace tenon
