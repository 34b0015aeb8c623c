#include "host/initramfs.hh"

#include <gtest/gtest.h>

#include <fstream>

namespace tenon {
namespace {

TEST(Initramfs, EmbeddedInitIsAStaticElf) {
  const std::string_view init = embedded_guest_init();
  ASSERT_GT(init.size(), 64u);
  EXPECT_EQ(init.substr(0, 4),
            "\x7F"
            "ELF");
}

TEST(Initramfs, HoldsInitConsoleAndOneLinkPerApplet) {
  const std::string archive = make_initramfs(
      {.init = "INIT", .busybox = "BUSYBOX", .applet_paths = {"bin/sh", "bin/ls", "sbin/init", "bin/sh"}});
  for (const char* path : {"init", "dev/console", "bin/busybox", "etc/profile", "bin/sh", "bin/ls"})
    EXPECT_NE(archive.find(std::string(1, '\0').insert(0, path)), std::string::npos) << path;
  EXPECT_EQ(archive.find("sbin/init"), std::string::npos);
  const std::string link("bin/sh\0", 7);
  EXPECT_EQ(archive.find(link), archive.rfind(link));
}

TEST(Initramfs, DoesNotDependOnTheOrderOfApplets) {
  EXPECT_EQ(make_initramfs({.init = "i", .busybox = "b", .applet_paths = {"bin/a", "bin/b"}}),
            make_initramfs({.init = "i", .busybox = "b", .applet_paths = {"bin/b", "bin/a"}}));
}

TEST(Initramfs, SaysWhatToInstallWithoutBusybox) {
  const Result<std::string> archive = build_initramfs("/nonexistent/busybox");
  ASSERT_FALSE(archive);
  EXPECT_NE(archive.error().message().find("apt-get install busybox-static"), std::string::npos);
}

TEST(Initramfs, RefusesADynamicBusybox) {
  const Result<std::string> archive = build_initramfs("/usr/bin/env");  // dynamically linked on every Debian
  ASSERT_FALSE(archive);
  EXPECT_EQ(archive.error().code(), ErrorCode::kUnsupported);
}

TEST(Initramfs, IsTheSameEveryTime) {
  if (!std::ifstream("/bin/busybox")) GTEST_SKIP() << "no /bin/busybox on this host";
  const Result<std::string> first = build_initramfs();
  const Result<std::string> second = build_initramfs();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(*first, *second);
}

}  // namespace
}  // namespace tenon
