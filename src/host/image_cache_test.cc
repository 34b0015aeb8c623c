// The cache against stand-ins for apt and dpkg, so that the tests need no network.
#include "host/image_cache.hh"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "host/debian_archive.hh"

namespace tenon {
namespace {

namespace fs = std::filesystem;

TEST(DebianArchive, FirstDependencyOfARecord) {
  EXPECT_EQ(
      first_dependency("Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n"),
      "linux-image-6.1.0-56-cloud-amd64");
  EXPECT_EQ(first_dependency("Depends: a | b, c\n"), "a");
  EXPECT_EQ(first_dependency("Depends: only"), "only");
  EXPECT_EQ(first_dependency("Pre-Depends: x\nRecommends: y\n"), "");
}

TEST(DebianArchive, ProgressOfAStatusLine) {
  EXPECT_DOUBLE_EQ(download_progress("dlstatus:1:42.5:Retrieving file 1 of 1"), 0.425);
  EXPECT_DOUBLE_EQ(download_progress("dlstatus:2:100:done"), 1.0);
  for (const char* line : {"", "pmstatus:1:5:x", "dlstatus:", "dlstatus:1", "dlstatus:1:many:x", "dlstatus:1:900:x"})
    EXPECT_LT(download_progress(line), 0) << line;
}

class ImageCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tenon-cache-test-XXXXXX";
    root_ = ::mkdtemp(name);
    fs::create_directory(root_ + "/bin");
    old_path_ = std::getenv("PATH");
    ::setenv("PATH", (root_ + "/bin:" + old_path_).c_str(), 1);
    program("apt-cache", "echo 'Depends: linux-image-6.1.0-9-cloud-amd64 (= 1)'");
    program("apt-get",
            "for last; do :; done\n"
            "echo 'dlstatus:1:50:half' >&3\n"
            "echo deb >${last}_1_amd64.deb");
    // A tar archive with a kernel and a module.
    program("dpkg-deb", "mkdir -p " + root_ + "/t/boot " + root_ + "/t/lib\n" + "echo kernel >" + root_ +
                            "/t/boot/vmlinuz-6.1.0-9-cloud-amd64\n" + "echo module >" + root_ + "/t/lib/m.ko\n" +
                            "tar -c -C " + root_ + "/t .");
  }
  void TearDown() override {
    ::setenv("PATH", old_path_.c_str(), 1);
    fs::remove_all(root_);
  }
  void program(const std::string& name, const std::string& script) {
    const std::string path = root_ + "/bin/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
    ::chmod(path.c_str(), 0755);
  }
  Result<CachedKernel> fetch() {
    return cache().fetch(*MUST(find_kernel_flavour("cloud")),  // a flavour of the table
                         [this](std::string_view step, double done) { steps_.emplace_back(step, done); });
  }
  ImageCache cache() const { return ImageCache(root_ + "/cache"); }

  std::string root_;
  std::string old_path_;
  std::vector<std::pair<std::string, double>> steps_;
};

TEST_F(ImageCacheTest, FetchInstallsOnlyTheKernelAndTellsProgress) {
  EXPECT_FALSE(cache().kernel("cloud"));
  const Result<CachedKernel> kernel = fetch();
  ASSERT_TRUE(kernel) << kernel.error().message();
  EXPECT_EQ(kernel->release, "6.1.0-9-cloud-amd64");
  EXPECT_EQ(kernel->size_bytes, 7u);
  EXPECT_TRUE(fs::exists(kernel->path));
  EXPECT_FALSE(fs::exists(root_ + "/cache/partial"));
  ASSERT_EQ(cache().kernels().size(), 1u);
  EXPECT_EQ(cache().kernels()[0].path, kernel->path);
  const std::pair<std::string, double> half{"fetching linux-image-6.1.0-9-cloud-amd64", 0.5};
  EXPECT_NE(std::find(steps_.begin(), steps_.end(), half), steps_.end());
}

TEST_F(ImageCacheTest, NewerKernelReplacesTheOlder) {
  fs::create_directories(root_ + "/cache/kernels/cloud");
  std::ofstream(root_ + "/cache/kernels/cloud/vmlinuz-6.1.0-1-cloud-amd64") << "old";
  ASSERT_TRUE(fetch());
  ASSERT_TRUE(cache().kernel("cloud"));
  EXPECT_EQ(cache().kernel("cloud")->release, "6.1.0-9-cloud-amd64");
  EXPECT_FALSE(fs::exists(root_ + "/cache/kernels/cloud/vmlinuz-6.1.0-1-cloud-amd64"));
}

TEST_F(ImageCacheTest, InterruptedFetchLeavesTheOldKernelAndNoRubbish) {
  ASSERT_TRUE(fetch());
  fs::create_directories(root_ + "/cache/partial/boot");
  std::ofstream(root_ + "/cache/partial/boot/vmlinuz-half") << "half";
  program("dpkg-deb", "kill -9 $$");
  EXPECT_FALSE(fetch());
  ASSERT_TRUE(cache().kernel("cloud"));
  EXPECT_EQ(cache().kernel("cloud")->size_bytes, 7u);
  EXPECT_FALSE(fs::exists(root_ + "/cache/partial"));
}

TEST_F(ImageCacheTest, StaleListsAreFetchedAgain) {
  // The host's lists know nothing; our own, after an update, do.
  program("apt-cache", "case \"$*\" in *Dir::State=*) echo 'Depends: linux-image-new';; esac");
  program("apt-get",
          "for last; do :; done\n"
          "case $last in update) touch " +
              root_ + "/updated;; *) echo deb >${last}_1_amd64.deb;; esac");
  EXPECT_TRUE(fetch());
  EXPECT_TRUE(fs::exists(root_ + "/updated"));
}

TEST_F(ImageCacheTest, FailureCarriesTheReasonOfApt) {
  program("apt-get", "echo 'E: Temporary failure resolving deb.debian.org'; exit 100");
  const Result<CachedKernel> kernel = fetch();
  ASSERT_FALSE(kernel);
  EXPECT_NE(kernel.error().message().find("Temporary failure resolving"), std::string::npos);
  EXPECT_NE(kernel.error().message().find("--kernel"), std::string::npos);
}

TEST_F(ImageCacheTest, RemoveFreesAndThenFindsNothing) {
  ASSERT_TRUE(fetch());
  EXPECT_FALSE(cache().remove_kernel("generic"));
  const Result<uint64_t> freed = cache().remove_kernel("cloud");
  ASSERT_TRUE(freed);
  EXPECT_EQ(*freed, 7u);
  EXPECT_TRUE(cache().kernels().empty());
  EXPECT_TRUE(cache().remove_all());
}

TEST_F(ImageCacheTest, InitramfsIsWrittenOnceAndRepaired) {
  if (!fs::exists("/bin/busybox")) GTEST_SKIP() << "no /bin/busybox on this host";
  const Result<std::string> path = cache().initramfs();
  ASSERT_TRUE(path) << path.error().message();
  const auto size = fs::file_size(*path);
  const auto time = fs::last_write_time(*path);
  ASSERT_TRUE(cache().initramfs());
  EXPECT_EQ(fs::last_write_time(*path), time);
  fs::resize_file(*path, 100);
  ASSERT_TRUE(cache().initramfs());
  EXPECT_EQ(fs::file_size(*path), size);
}

TEST(ImageCache, UnknownFlavourNamesThoseThereAre) {
  const Result<const KernelFlavour*> flavour = find_kernel_flavour("clout");
  ASSERT_FALSE(flavour);
  EXPECT_NE(flavour.error().message().find("cloud, generic"), std::string::npos);
}

}  // namespace
}  // namespace tenon
