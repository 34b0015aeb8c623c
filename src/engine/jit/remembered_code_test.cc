#include "engine/jit/remembered_code.hh"

#include <gtest/gtest.h>

#include <memory>

#include "engine/jit/mode.hh"

namespace tenon::jit {
namespace {

constexpr unsigned kKernel = 0, kUser = 1;
constexpr uint64_t kMissKernel = 0x1111, kMissUser = 0x2222;
constexpr uint64_t kRip = 0x401230, kHost = 0x7000'0000;
constexpr uint64_t kKernelRip = 0xffff'ffff'8100'0040;
constexpr uint64_t kFarRip = 0x7f12'3456'7890, kNominal = 0x4000'0000;
constexpr unsigned kIndirectShift = 3;
constexpr uint64_t kContext = 4, kOther = 5;

class RememberedCodeTest : public testing::Test {
 protected:
  RememberedCodeTest() {
    remembered_->start({kMissKernel, kMissUser});
    remembered_->enter_context(kContext, false);
  }

  void remember(unsigned side, uint64_t rip, uint64_t host, bool global) {
    const interp::Translation translation{.gpa = Gpa(rip & 0xffff'f000), .global = global};
    const uint64_t shift = rip >= kShiftedFrom && side == kUser ? (rip & ~(kPageSize - 1)) - kNominal : 0;
    const RememberedCode::Line& line = remembered_->add_line(side, rip, translation, shift);
    remembered_->add(side, line, rip, host);
    remembered_->add_indirect(side, line, rip, host);
    remembered_->set_mapping(side, line, 7);
  }
  uint64_t find(unsigned side, uint64_t rip) const {
    const RememberedCode::Found* found = remembered_->find(side, rip);
    return found == nullptr ? 0 : found->host;
  }
  uint64_t indirect(unsigned side, uint64_t rip) const {
    return state_->indirect[side][(rip >> kIndirectShift) % interp::TranslatedState::kIndirectEntries];
  }
  uint32_t mapping(unsigned side, uint64_t rip) const {
    return state_->code_pages[side][rip / kPageSize % interp::TranslatedState::kCodePages];
  }

  std::unique_ptr<interp::TranslatedState> state_ = std::make_unique<interp::TranslatedState>();
  std::unique_ptr<RememberedCode> remembered_ = std::make_unique<RememberedCode>(*state_);
};

TEST_F(RememberedCodeTest, NothingIsKnownAtFirst) {
  EXPECT_EQ(find(kUser, kRip), 0u);
  EXPECT_EQ(remembered_->find_line(kUser, kRip), nullptr);
  EXPECT_EQ(indirect(kKernel, kRip), kMissKernel);
  EXPECT_EQ(indirect(kUser, kRip), kMissUser);
}

TEST_F(RememberedCodeTest, FindsWhatWasAddedOnItsSideOnly) {
  remember(kUser, kRip, kHost, false);
  EXPECT_EQ(find(kUser, kRip), kHost);
  EXPECT_EQ(find(kUser, kRip + 1), 0u);
  EXPECT_EQ(find(kKernel, kRip), 0u);
  EXPECT_EQ(remembered_->find_line(kUser, kRip)->gpa_page, kRip & 0xffff'f000);
  EXPECT_EQ(indirect(kUser, kRip), kHost);
  EXPECT_EQ(mapping(kUser, kRip), 7u);
}

/// Stubs compute the index by themselves.
TEST_F(RememberedCodeTest, IsWhereTheHeaderSays) {
  remember(kUser, kRip, kHost, false);
  const auto& found = remembered_->found(kUser)[kRip * RememberedCode::kFoundMultiplier >> RememberedCode::kFoundShift];
  EXPECT_EQ(found.rip, kRip);
  EXPECT_EQ(found.host, kHost);
  EXPECT_EQ(found.epoch, remembered_->epochs(kUser).local);
  EXPECT_EQ(found.shift, 0u);
}

TEST_F(RememberedCodeTest, AnotherContextKeepsWhatIsGlobalOnly) {
  remember(kUser, kRip, kHost, false);
  remember(kKernel, kKernelRip, kHost + 64, true);
  EXPECT_TRUE(remembered_->enter_context(kOther, true));
  EXPECT_EQ(find(kUser, kRip), 0u);
  EXPECT_EQ(indirect(kUser, kRip), kMissUser);
  EXPECT_EQ(mapping(kUser, kRip), 0u);
  EXPECT_EQ(find(kKernel, kKernelRip), kHost + 64);
  EXPECT_EQ(indirect(kKernel, kKernelRip), kHost + 64);
}

TEST_F(RememberedCodeTest, AContextThatWasKeptComesBack) {
  remember(kUser, kRip, kHost, false);
  remembered_->enter_context(kOther, true);
  remember(kUser, kRip, kHost + 128, false);
  remembered_->enter_context(kContext, true);
  EXPECT_EQ(find(kUser, kRip), 0u) << "one place for both, and the other context's is in it";
  EXPECT_EQ(indirect(kUser, kRip), kHost);
  EXPECT_EQ(mapping(kUser, kRip), 7u);
  EXPECT_TRUE(remembered_->local_sides()[kUser]);
}

TEST_F(RememberedCodeTest, AForgottenContextDoesNotComeBack) {
  remember(kUser, kRip, kHost, false);
  remembered_->enter_context(kOther, true);
  remembered_->forget_context(kContext);
  remembered_->enter_context(kContext, true);
  EXPECT_EQ(find(kUser, kRip), 0u);
  EXPECT_EQ(indirect(kUser, kRip), kMissUser);
}

TEST_F(RememberedCodeTest, AContextThatIsNotKeptDoesNotComeBack) {
  remember(kUser, kRip, kHost, false);
  remembered_->enter_context(kOther, false);
  remembered_->enter_context(kContext, false);
  EXPECT_EQ(find(kUser, kRip), 0u);
}

TEST_F(RememberedCodeTest, DroppingAPageForgetsByKind) {
  remember(kUser, kRip, kHost, false);
  remember(kKernel, kKernelRip, kHost + 64, true);
  EXPECT_EQ(remembered_->forget_range(0x9000, kPageSize), RememberedCode::Loss::kNothing);
  EXPECT_EQ(find(kUser, kRip), kHost);
  EXPECT_EQ(remembered_->forget_range(kRip & ~(kPageSize - 1), kPageSize), RememberedCode::Loss::kLocal);
  EXPECT_EQ(find(kUser, kRip), 0u);
  EXPECT_EQ(find(kKernel, kKernelRip), kHost + 64);
  EXPECT_EQ(remembered_->forget_range(kKernelRip & ~(kPageSize - 1), kPageSize), RememberedCode::Loss::kAll);
  EXPECT_EQ(find(kKernel, kKernelRip), 0u);
  EXPECT_EQ(indirect(kKernel, kKernelRip), kMissKernel);
}

TEST_F(RememberedCodeTest, RemovedCodeIsNotFoundByItsAddress) {
  remember(kUser, kRip, kHost, false);
  remember(kKernel, kKernelRip, kHost + 64, true);
  remembered_->forget_addresses(kUser);
  EXPECT_EQ(find(kUser, kRip), 0u);
  EXPECT_EQ(indirect(kUser, kRip), kMissUser);
  EXPECT_NE(remembered_->find_line(kUser, kRip), nullptr) << "where the page is has not changed";
  EXPECT_EQ(find(kKernel, kKernelRip), kHost + 64);
}

TEST_F(RememberedCodeTest, AddressesThatWentWrongMeanwhileDoNotComeBack) {
  remember(kUser, kRip, kHost, false);
  remembered_->enter_context(kOther, true);
  remembered_->forget_addresses();
  remembered_->enter_context(kContext, true);
  EXPECT_EQ(find(kUser, kRip), 0u);
  EXPECT_EQ(indirect(kUser, kRip), kMissUser);
  EXPECT_EQ(mapping(kUser, kRip), 7u) << "which page it is has not changed";
}

TEST_F(RememberedCodeTest, ShiftedPagesHaveTheirShiftWithTheirNumber) {
  const uint64_t shift = (kFarRip & ~(kPageSize - 1)) - kNominal;
  remember(kUser, kFarRip, kHost, false);
  ASSERT_NE(remembered_->find(kUser, kFarRip), nullptr);
  EXPECT_EQ(remembered_->find(kUser, kFarRip)->shift, shift);
  const uint64_t expected = uint64_t{0} - (7 + (shift << RememberedCode::kShiftBits));
  const auto& entry = state_->shifted_pages[kFarRip / kPageSize % interp::TranslatedState::kCodePages];
  EXPECT_EQ(entry, expected);
  EXPECT_EQ(mapping(kUser, kFarRip), 0u) << "that table is for code that is where it is";
  remembered_->enter_context(kOther, true);
  EXPECT_EQ(entry, 0u);
  remembered_->enter_context(kContext, true);
  EXPECT_EQ(entry, expected);
}

TEST_F(RememberedCodeTest, NearPagesSayWhatTheirShiftIs) {
  EXPECT_EQ(remembered_->shift_near(kUser, kFarRip), 0u);
  remember(kUser, kFarRip, kHost, false);
  const uint64_t shift = (kFarRip & ~(kPageSize - 1)) - kNominal;
  EXPECT_EQ(remembered_->shift_near(kUser, kFarRip + 5 * kPageSize), shift);
  EXPECT_EQ(remembered_->shift_near(kUser, kFarRip + (uint64_t{1} << 30)), 0u);
  remembered_->enter_context(kOther, true);
  EXPECT_EQ(remembered_->shift_near(kUser, kFarRip + 5 * kPageSize), 0u);
}

}  // namespace
}  // namespace tenon::jit
