#include "host/child_process.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

TEST(ChildProcess, OutputIsComplete) {
  const Result<std::string> output = output_of_program({"seq", "1", "50000"});  // more than a pipe holds
  ASSERT_TRUE(output);
  EXPECT_EQ(output->size(), 288894u);
}

TEST(ChildProcess, FailureCarriesStatusAndLastErrorLine) {
  const Result<std::string> output = output_of_program({"sh", "-c", "echo one >&2; echo the reason >&2; exit 9"});
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().message(), "sh ended with status 9: the reason");
}

TEST(ChildProcess, MissingProgramIsNamed) {
  const Result<std::string> output = output_of_program({"no-such-program-here"});
  ASSERT_FALSE(output);
  EXPECT_NE(output.error().message().find("no-such-program-here"), std::string::npos);
}

TEST(ChildProcess, SignalIsStatusAbove128) {
  Result<ChildProcess> child = ChildProcess::spawn({.arguments = {"sh", "-c", "kill -9 $$"}});
  ASSERT_TRUE(child);
  EXPECT_EQ(child->wait(), 137);
}

}  // namespace
}  // namespace tenon
