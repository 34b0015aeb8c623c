#include "spec/console_protocol.hh"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace tenon::console_protocol {
namespace {

using Frames = std::vector<std::pair<FrameType, std::string>>;

std::string frame(FrameType type, const std::string& payload) {
  const FrameHeader header = make_header(type, payload.size());
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload;
}

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

Frames parse_in_pieces(FrameParser& parser, std::string_view stream, size_t piece_bytes) {
  Frames frames;
  while (!stream.empty()) {
    const std::string_view piece = stream.substr(0, piece_bytes);
    stream.remove_prefix(piece.size());
    parser.feed(bytes_of(piece), [&](FrameType type, std::span<const uint8_t> payload) {
      frames.emplace_back(type, std::string(payload.begin(), payload.end()));
    });
  }
  return frames;
}

TEST(ConsoleProtocol, AnyCutOfTheStreamGivesTheSameFrames) {
  const std::string stream = frame(FrameType::kReady, std::string(4, '\1')) + frame(FrameType::kStarted, "") +
                             frame(FrameType::kOutput, std::string(kFramePayloadMax, 'x')) +
                             frame(FrameType::kExit, "12345");
  for (const size_t piece_bytes : {size_t{1}, size_t{2}, size_t{7}, size_t{8}, size_t{9}, stream.size()}) {
    FrameParser parser;
    const Frames frames = parse_in_pieces(parser, stream, piece_bytes);
    ASSERT_EQ(frames.size(), 4u) << piece_bytes;
    EXPECT_EQ(frames[0].first, FrameType::kReady);
    EXPECT_EQ(frames[1], std::make_pair(FrameType::kStarted, std::string()));
    EXPECT_EQ(frames[2].second, std::string(kFramePayloadMax, 'x'));
    EXPECT_EQ(frames[3], std::make_pair(FrameType::kExit, std::string("12345")));
    EXPECT_EQ(parser.skipped_bytes(), 0u);
  }
}

TEST(ConsoleProtocol, PayloadMayContainTheMagic) {
  const std::string inner = frame(FrameType::kExit, "nope!");
  FrameParser parser;
  const Frames frames = parse_in_pieces(parser, frame(FrameType::kOutput, inner), 3);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].second, inner);
}

TEST(ConsoleProtocol, NoiseBetweenFramesIsSkippedAndCounted) {
  const std::string noise = "printk: \xC5\x54\x4E garbage\xC5";
  FrameParser parser;
  const Frames frames = parse_in_pieces(parser, noise + frame(FrameType::kStarted, "") + noise, 5);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].first, FrameType::kStarted);
  // The last byte of the trailing noise may still become a header.
  EXPECT_EQ(parser.skipped_bytes(), 2 * noise.size() - 1);
}

TEST(ConsoleProtocol, OversizeLengthIsNotAFrame) {
  FrameHeader header = make_header(FrameType::kOutput, 0);
  header.length = static_cast<uint16_t>(kFramePayloadMax + 1);
  const std::string stream =
      std::string(reinterpret_cast<const char*>(&header), sizeof header) + frame(FrameType::kExit, "12345");
  FrameParser parser;
  const Frames frames = parse_in_pieces(parser, stream, 64);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].first, FrameType::kExit);
  EXPECT_EQ(parser.skipped_bytes(), sizeof header);
}

TEST(ConsoleProtocol, RandomFramesSurviveRandomCuts) {
  std::mt19937 random(7);
  std::string stream;
  Frames sent;
  for (int i = 0; i < 300; ++i) {
    std::string payload(random() % (kFramePayloadMax + 1), '\0');
    for (char& byte : payload) byte = static_cast<char>(random());
    const FrameType type = static_cast<FrameType>(random());
    stream += frame(type, payload);
    sent.emplace_back(type, std::move(payload));
  }
  FrameParser parser;
  Frames received;
  for (size_t at = 0; at < stream.size();) {
    const std::string_view piece = std::string_view(stream).substr(at, 1 + random() % 5000);
    for (auto& one : parse_in_pieces(parser, piece, piece.size())) received.push_back(std::move(one));
    at += piece.size();
  }
  EXPECT_EQ(received, sent);
}

TEST(ConsoleProtocol, PayloadStructuresHaveExactSize) {
  Credit credit{};
  const uint8_t wire[] = {1, 0x34, 0x12, 0, 0, 9};
  EXPECT_FALSE(load_payload(std::span(wire), credit));
  EXPECT_TRUE(load_payload(std::span(wire).first(5), credit));
  EXPECT_EQ(credit.stream, 1);
  EXPECT_EQ(credit.bytes, 0x1234u);
}

}  // namespace
}  // namespace tenon::console_protocol
