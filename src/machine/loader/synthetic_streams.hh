// Compressed streams made with the reference libraries, for the loaders' tests only.
#pragma once

#include <lz4hc.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "base/check.hh"
#include "machine/loader/decompress.hh"
#include "machine/loader/synthetic_kernel.hh"

namespace tenon::synthetic {

inline Buffer gzip(const Buffer& plain) {
  z_stream stream{};
  CHECK(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Buffer packed(deflateBound(&stream, plain.size()) + 64);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

inline Buffer xz(const Buffer& plain) {
  Buffer packed(lzma_stream_buffer_bound(plain.size()));
  size_t size = 0;
  CHECK(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const uint8_t*>(plain.data()),
                                plain.size(), reinterpret_cast<uint8_t*>(packed.data()), &size,
                                packed.size()) == LZMA_OK);
  packed.resize(size);
  return packed;
}

/// Legacy frame with blocks of `block_size`.
inline Buffer lz4(const Buffer& plain, size_t block_size = 8 << 20) {
  Buffer packed;
  put(packed, 0, le32(0x184c2102));
  for (size_t at = 0; at < plain.size(); at += block_size) {
    const int size = static_cast<int>(std::min(block_size, plain.size() - at));
    Buffer block(static_cast<size_t>(LZ4_compressBound(size)));
    const int count = LZ4_compress_HC(reinterpret_cast<const char*>(plain.data()) + at,
                                      reinterpret_cast<char*>(block.data()), size, static_cast<int>(block.size()), 9);
    CHECK(count > 0);
    put(packed, packed.size(), le32(static_cast<uint32_t>(count)));
    append(packed, Bytes(block).first(static_cast<size_t>(count)));
  }
  return packed;
}

inline Buffer zstd(const Buffer& plain) {
  Buffer packed(ZSTD_compressBound(plain.size()));
  const size_t size = ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3);
  CHECK(ZSTD_isError(size) == 0);
  packed.resize(size);
  return packed;
}

inline Buffer pack(Compression compression, const Buffer& plain) {
  switch (compression) {
    case Compression::kGzip: return gzip(plain);
    case Compression::kXz: return xz(plain);
    case Compression::kLz4: return lz4(plain);
    case Compression::kZstd: return zstd(plain);
    default: return plain;
  }
}

/// As Linux packs a payload: the unpacked size follows, but for gzip.
inline Buffer pack_payload(Compression compression, const Buffer& plain) {
  Buffer payload = pack(compression, plain);
  if (compression != Compression::kGzip) put(payload, payload.size(), le32(static_cast<uint32_t>(plain.size())));
  return payload;
}

}  // namespace tenon::synthetic
