#include "rejections.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "drained.h"

namespace leasehold {
namespace {

constexpr uint32_t kSubnet = 7;
constexpr uint64_t kAnn = 0x020000000001;
constexpr uint64_t kBob = 0x020000000002;
constexpr int64_t kNow = 1'700'000'000'000;

DrainedText drain(RejectionTable& table, uint64_t next_sequence = 1, size_t capacity = 1 << 20) {
    std::string out(capacity, '\0');
    const Drained drained = table.drain(out.data(), capacity, next_sequence);
    out.resize(drained.octets);
    return {out, drained.lines};
}

TEST(RejectionTableTest, CountsAClientOverItsWindow) {
    RejectionTable table(4);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow + 5);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow + 9);
    EXPECT_EQ(
        "{\"seq\":3,\"type\":\"client.rejected\",\"at\":1700000000009,\"subnet\":7,\"mac\":\"02:00:00:00:00:01\","
        "\"reason\":\"unknown\",\"count\":3,\"first\":1700000000000,\"last\":1700000000009}\n",
        drain(table, 3).text);
}

TEST(RejectionTableTest, KeepsClientsSubnetsAndReasonsApart) {
    RejectionTable table(8);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    table.count(kSubnet, kBob, Reason::kUnknown, kNow);
    table.count(kSubnet + 1, kAnn, Reason::kUnknown, kNow);
    table.count(kSubnet, kAnn, Reason::kWithdrawn, kNow);
    table.count(kSubnet, kAnn, Reason::kDoubt, kNow);
    const DrainedText drained = drain(table);
    EXPECT_EQ(5U, drained.lines);
    EXPECT_TRUE(drained.has("\"withdrawn\""));
    EXPECT_TRUE(drained.has("\"doubt\""));
}

TEST(RejectionTableTest, AReportTellsClientsOfOtherSubnetsApart) {
    RejectionTable table(4, [](uint32_t subnet_id, uint64_t mac) { return subnet_id == kSubnet && mac == kAnn; });
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    table.count(kSubnet, kBob, Reason::kUnknown, kNow);
    table.count(kSubnet, kAnn, Reason::kDoubt, kNow);
    const DrainedText drained = drain(table);
    EXPECT_TRUE(drained.has("\"mac\":\"02:00:00:00:00:01\",\"reason\":\"elsewhere\""));
    EXPECT_TRUE(drained.has("\"mac\":\"02:00:00:00:00:02\",\"reason\":\"unknown\""));
    EXPECT_TRUE(drained.has("\"mac\":\"02:00:00:00:00:01\",\"reason\":\"doubt\""));
    EXPECT_EQ(2U, table.totals()[static_cast<size_t>(Reason::kUnknown)]);
}

TEST(RejectionTableTest, RemembersAClientPastItsReport) {
    RejectionTable table(4);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow, 1);
    drain(table);
    drain(table);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow + 7, 3);
    table.count(kSubnet, kBob, Reason::kUnknown, kNow + 8, 1);
    const std::vector<Rejection> recent = table.recent(kAnn);
    ASSERT_EQ(1U, recent.size());
    EXPECT_EQ(2U, recent[0].count);
    EXPECT_EQ(kNow, recent[0].first_ms);
    EXPECT_EQ(kNow + 7, recent[0].last_ms);
    EXPECT_EQ(3, recent[0].message);
}

TEST(RejectionTableTest, RemembersAsManyClientsAsAWindowHasAndForgetsTheOldest) {
    RejectionTable table(4);
    for (uint64_t window = 0; window < 5; ++window) {
        table.count(kSubnet, kAnn + window, Reason::kUnknown, kNow);
        drain(table);
        drain(table);
    }
    EXPECT_TRUE(table.recent(kAnn).empty());
    for (uint64_t window = 1; window < 5; ++window) {
        EXPECT_EQ(1U, table.recent(kAnn + window).size());
    }
}

TEST(RejectionTableTest, AWindowBeginsEmpty) {
    RejectionTable table(4);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    drain(table);
    EXPECT_EQ(0U, drain(table).lines);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow + 1);
    EXPECT_EQ(1U, drain(table).sum("count"));
}

TEST(RejectionTableTest, AReportEndsHoweverFastTheNextWindowFills) {
    RejectionTable table(4);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    EXPECT_EQ(1U, drain(table).lines);
    table.count(kSubnet, kBob, Reason::kUnknown, kNow);
    EXPECT_EQ(0U, drain(table).lines);
    EXPECT_EQ(1U, drain(table).lines);
}

TEST(RejectionTableTest, ClientsPastTheTableAreSummedBySubnet) {
    RejectionTable table(2);
    for (uint64_t i = 0; i < 10; ++i) {
        table.count(kSubnet, kAnn + i, Reason::kUnknown, kNow);
    }
    table.count(kSubnet + 1, kAnn, Reason::kUnknown, kNow);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    const DrainedText drained = drain(table);
    EXPECT_EQ(4U, drained.lines);
    EXPECT_TRUE(drained.has("\"subnet\":7,\"mac\":null,\"reason\":\"unknown\",\"count\":8,"));
    EXPECT_TRUE(drained.has("\"subnet\":8,\"mac\":null,\"reason\":\"unknown\",\"count\":1,"));
    EXPECT_EQ(12U, drained.sum("count"));
}

TEST(RejectionTableTest, AClientWithoutAnEthernetAddressGoesToTheSum) {
    RejectionTable table(2);
    table.count(kSubnet, kNoMac, Reason::kUnknown, kNow);
    EXPECT_TRUE(drain(table).has("\"mac\":null"));
}

TEST(RejectionTableTest, AReportThatDoesNotFitGoesOnBeforeTheNextWindow) {
    RejectionTable table(8);
    for (uint64_t i = 0; i < 5; ++i) {
        table.count(kSubnet, kAnn + i, Reason::kUnknown, kNow);
    }
    EXPECT_EQ(2U, drain(table, 1, 2 * JsonLine::kLongest).lines);
    table.count(kSubnet, kBob, Reason::kUnknown, kNow + 1);
    const DrainedText rest = drain(table, 3);
    EXPECT_EQ(3U, rest.lines);
    EXPECT_FALSE(rest.has("1700000000001"));
    EXPECT_EQ(0U, drain(table).lines);
    EXPECT_EQ(1U, drain(table).lines);
}

TEST(RejectionTableTest, TotalsGoOnOverWindows) {
    RejectionTable table(1);
    table.count(kSubnet, kAnn, Reason::kUnknown, kNow);
    table.count(kSubnet, kBob, Reason::kUnknown, kNow);
    drain(table);
    table.count(kSubnet, kBob, Reason::kDoubt, kNow);
    EXPECT_EQ((std::array<uint64_t, kReasons>{2, 0, 1}), table.totals());
}

TEST(RejectionTableTest, ShrinkingSumsWhatNoLongerFits) {
    RejectionTable table(8);
    for (uint64_t i = 0; i < 5; ++i) {
        table.count(kSubnet, kAnn + i, Reason::kUnknown, kNow);
    }
    table.resize(2);
    const DrainedText drained = drain(table);
    EXPECT_EQ(3U, drained.lines);
    EXPECT_EQ(5U, drained.sum("count"));
}

TEST(RejectionTableTest, TheLongestLineFits) {
    RejectionTable table(1);
    constexpr int64_t kLongestTime = std::numeric_limits<int64_t>::min();
    table.count(UINT32_MAX, 0xFFFFFFFFFFFF, Reason::kWithdrawn, kLongestTime);
    const DrainedText drained = drain(table, UINT64_MAX);
    EXPECT_EQ(1U, drained.lines);
    // A count of one has nineteen digits less than the longest.
    EXPECT_LE(drained.text.size() + 19, JsonLine::kLongest);
}

TEST(RejectionTableTest, AFloodOfManyThreadsIsCountedWhole) {
    constexpr uint64_t kEach = 20'000;
    RejectionTable table(64);
    std::vector<std::thread> packets;
    for (uint64_t thread = 0; thread < 3; ++thread) {
        packets.emplace_back([&table, thread] {
            for (uint64_t i = 0; i < kEach; ++i) {
                table.count(kSubnet, kAnn + (i * 7919 + thread) % 1000, Reason::kUnknown, kNow);
            }
        });
    }
    uint64_t sum = 0;
    for (int i = 0; i < 50; ++i) {
        sum += drain(table, 1, 10 * JsonLine::kLongest).sum("count");
    }
    for (auto& packet : packets) {
        packet.join();
    }
    for (int report = 0; report < 3; ++report) {  // the one begun, the last window, and none
        for (DrainedText rest = drain(table); rest.lines > 0; rest = drain(table)) {
            sum += rest.sum("count");
        }
    }
    EXPECT_EQ(3 * kEach, sum);
    EXPECT_EQ(3 * kEach, table.totals()[0]);
}

}  // namespace
}  // namespace leasehold
