#include "policy.h"

#include <gtest/gtest.h>

namespace leasehold {
namespace {

constexpr Message kMessages[] = {Message::kRequest, Message::kRelease, Message::kOther};
constexpr lh_unknown_clients kModes[] = {LH_REJECT, LH_DROP, LH_NAK, LH_ALLOW};

TEST(PolicyTest, TheReservedAreServedInEveryMode) {
    for (const auto mode : kModes) {
        for (const auto message : kMessages) {
            EXPECT_EQ(Verdict::kServe, judge(mode, Standing::kReserved, message));
        }
    }
}

TEST(PolicyTest, AllowServesEverybody) {
    for (const auto message : kMessages) {
        EXPECT_EQ(Verdict::kServe, judge(LH_ALLOW, Standing::kUnknown, message));
        EXPECT_EQ(Verdict::kServe, judge(LH_ALLOW, Standing::kWithdrawn, message));
    }
}

TEST(PolicyTest, TheUnknownGetNoAnswer) {
    for (const auto mode : {LH_REJECT, LH_DROP}) {
        for (const auto message : kMessages) {
            EXPECT_EQ(Verdict::kDrop, judge(mode, Standing::kUnknown, message));
        }
    }
}

TEST(PolicyTest, TheWithdrawnAreRefusedAtTheirRequest) {
    EXPECT_EQ(Verdict::kRefuse, judge(LH_REJECT, Standing::kWithdrawn, Message::kRequest));
    EXPECT_EQ(Verdict::kDrop, judge(LH_REJECT, Standing::kWithdrawn, Message::kOther));
}

TEST(PolicyTest, DropRefusesNobody) {
    EXPECT_EQ(Verdict::kDrop, judge(LH_DROP, Standing::kWithdrawn, Message::kRequest));
}

TEST(PolicyTest, NakRefusesTheRequestOfTheUnknownToo) {
    EXPECT_EQ(Verdict::kRefuse, judge(LH_NAK, Standing::kUnknown, Message::kRequest));
    EXPECT_EQ(Verdict::kRefuse, judge(LH_NAK, Standing::kWithdrawn, Message::kRequest));
    EXPECT_EQ(Verdict::kDrop, judge(LH_NAK, Standing::kUnknown, Message::kOther));
}

TEST(PolicyTest, TheWithdrawnMayGiveAnAddressBack) {
    EXPECT_EQ(Verdict::kServe, judge(LH_DROP, Standing::kWithdrawn, Message::kRelease));
    EXPECT_EQ(Verdict::kDrop, judge(LH_NAK, Standing::kUnknown, Message::kRelease));
}

}  // namespace
}  // namespace leasehold
