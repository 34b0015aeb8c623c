#include "host/cpio_archive.hh"

#include <gtest/gtest.h>

#include <cstdlib>

namespace tenon {
namespace {

uint64_t field(const std::string& archive, size_t header_at, unsigned index) {
  return std::strtoull(archive.substr(header_at + 6 + 8 * index, 8).c_str(), nullptr, 16);
}

TEST(CpioArchive, FileHeaderHoldsWhatTheKernelReads) {
  CpioArchive writer;
  writer.add_file("init", 0755, "hello");
  const std::string archive = writer.finish();
  EXPECT_EQ(archive.substr(0, 6), "070701");
  EXPECT_EQ(field(archive, 0, 0), 1u);        // inode
  EXPECT_EQ(field(archive, 0, 1), 0100755u);  // mode
  EXPECT_EQ(field(archive, 0, 5), 0u);        // time
  EXPECT_EQ(field(archive, 0, 6), 5u);        // size
  EXPECT_EQ(field(archive, 0, 11), 5u);       // name with NUL
  EXPECT_EQ(archive.substr(110, 5), std::string("init\0", 5));
  EXPECT_EQ(archive.substr(116, 5), "hello");  // 110 + 5 aligned to 4
}

TEST(CpioArchive, EveryHeaderStartsOnFourBytesAndTheTrailerEndsIt) {
  CpioArchive writer;
  writer.add_directory("d");
  writer.add_symlink("d/abc", "/bin/busybox");
  writer.add_character_device("d/console", 0600, 5, 1);
  writer.add_file("d/odd", 0644, "123");
  const std::string archive = writer.finish();
  size_t at = 0;
  std::string names;
  while (archive.compare(at, 6, "070701") == 0) {
    EXPECT_EQ(at % 4, 0u);
    const std::string name = archive.c_str() + at + 110;
    names += name + " ";
    if (name == "d/console") {
      EXPECT_EQ(field(archive, at, 1), 0020600u);
      EXPECT_EQ(field(archive, at, 9), 5u);
      EXPECT_EQ(field(archive, at, 10), 1u);
    }
    const size_t data_at = (at + 110 + field(archive, at, 11) + 3) / 4 * 4;
    at = (data_at + field(archive, at, 6) + 3) / 4 * 4;
  }
  EXPECT_EQ(names, "d d/abc d/console d/odd TRAILER!!! ");
  EXPECT_EQ(at, archive.size());
}

TEST(CpioArchive, EqualCallsGiveEqualBytes) {
  const auto make = [] {
    CpioArchive writer;
    writer.add_directory("etc");
    writer.add_file("etc/hosts", 0644, "127.0.0.1 localhost\n");
    return writer.finish();
  };
  EXPECT_EQ(make(), make());
}

TEST(CpioArchive, FinishLeavesAnEmptyWriter) {
  CpioArchive writer;
  const std::string empty = writer.finish();
  writer.add_directory("x");
  EXPECT_NE(writer.finish(), empty);
  EXPECT_EQ(writer.finish(), empty);
}

}  // namespace
}  // namespace tenon
