#include "base/fd.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace tenon {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Fd, ClosesOnceAndMoves) {
  Fd fd = MUST(Fd::open("/dev/null", O_RDONLY));
  const int number = fd.get();
  EXPECT_NE(::fcntl(number, F_GETFD) & FD_CLOEXEC, 0);
  Fd moved = std::move(fd);
  EXPECT_FALSE(fd.is_open());
  EXPECT_TRUE(is_open(number));
  moved = Fd();
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, ReleaseGivesItAway) {
  Fd fd = MUST(Fd::open("/dev/null", O_RDONLY));
  const int number = fd.release();
  fd.reset();
  EXPECT_TRUE(is_open(number));
  ::close(number);
}

TEST(Fd, OpenNamesThePath) {
  const Result<Fd> fd = Fd::open("/no/such/file", O_RDONLY);
  ASSERT_FALSE(fd.has_value());
  EXPECT_EQ(fd.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(fd.error().message().find("/no/such/file"), std::string::npos);
}

TEST(Eventfd, CountsSignals) {
  const Eventfd event = MUST(Eventfd::create());
  EXPECT_EQ(event.drain(), 0u);
  event.signal();
  event.signal();
  EXPECT_EQ(event.drain(), 2u);
  EXPECT_EQ(event.drain(), 0u);
}

TEST(Mapping, AnonymousIsAlignedAndZero) {
  for (const size_t alignment : {size_t{4096}, size_t{2} << 20}) {
    const Mapping mapping = MUST(Mapping::anonymous(12288, alignment, "tenon:test"));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(mapping.data()) % alignment, 0u);
    EXPECT_EQ(mapping.size_bytes(), 12288u);
    for (const std::byte byte : mapping.bytes()) ASSERT_EQ(byte, std::byte{0});
    mapping.data()[12287] = std::byte{1};
    mapping.prefer_huge_pages();
  }
}

TEST(Mapping, TooLargeIsAnError) {
  EXPECT_FALSE(Mapping::anonymous(~size_t{0} - 4095, 4096).has_value());
  const Result<Mapping> mapping = Mapping::anonymous(size_t{1} << 62, 4096);
  ASSERT_FALSE(mapping.has_value());
  EXPECT_EQ(mapping.error().code(), ErrorCode::kNoMemory);
}

TEST(Mapping, MoveAndReset) {
  Mapping mapping = MUST(Mapping::anonymous(4096, 4096));
  Mapping moved = std::move(mapping);
  EXPECT_EQ(mapping.data(), nullptr);
  moved.reset();
  EXPECT_EQ(moved.data(), nullptr);
  EXPECT_EQ(moved.size_bytes(), 0u);
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content) {
    ::close(::mkstemp(path_));
    std::ofstream(path_) << content;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const char* path() const { return path_; }

 private:
  char path_[32] = "/tmp/tenon_fd_test_XXXXXX";
};

TEST(Mapping, OfAFileSeesItsContent) {
  const TemporaryFile file("hello");
  const Fd fd = MUST(Fd::open(file.path(), O_RDONLY));
  const Mapping mapping = MUST(Mapping::of_fd(fd, 5, PROT_READ, MAP_PRIVATE));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapping.data()), 5), "hello");
}

TEST(ReadFile, WholeFileOrTheLimit) {
  const TemporaryFile file(std::string(100'000, 'x'));
  EXPECT_EQ(read_file(file.path(), 100'000)->size(), 100'000u);
  const Result<std::string> limited = read_file(file.path(), 99'999);
  ASSERT_FALSE(limited.has_value());
  EXPECT_EQ(limited.error().code(), ErrorCode::kOutOfRange);
  EXPECT_FALSE(read_file("/tmp", 10).has_value());
}

}  // namespace
}  // namespace tenon
