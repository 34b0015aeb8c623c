// Feeds arbitrary bytes to the frame parser in two different cuts: both must see the same frames.
#include "spec/console_protocol.hh"

#include <utility>
#include <vector>

#include "base/check.hh"

using tenon::console_protocol::FrameParser;
using tenon::console_protocol::FrameType;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Frames = std::vector<std::pair<FrameType, std::vector<uint8_t>>>;
  // Random bytes rarely hold the magic, so each 0xC5 of the input stands for a whole one.
  std::vector<uint8_t> stream;
  for (size_t i = 0; i < size; ++i) {
    stream.push_back(data[i]);
    if (data[i] == 0xC5) stream.insert(stream.end(), {0x54, 0x4E, 0x9C});
  }
  const auto parse = [&stream](size_t piece_bytes) {
    FrameParser parser;
    Frames frames;
    std::span<const uint8_t> rest(stream);
    while (!rest.empty()) {
      const std::span<const uint8_t> piece = rest.first(rest.size() < piece_bytes ? rest.size() : piece_bytes);
      rest = rest.subspan(piece.size());
      parser.feed(piece, [&frames](FrameType type, std::span<const uint8_t> payload) {
        frames.emplace_back(type, std::vector<uint8_t>(payload.begin(), payload.end()));
      });
    }
    return std::make_pair(frames, parser.skipped_bytes());
  };
  CHECK(parse(stream.size() + 1) == parse(1 + size % 13));
  return 0;
}
