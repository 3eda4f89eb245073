#include "event_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "drained.h"

namespace leasehold {
namespace {

constexpr int64_t kNow = 1'700'000'000'123;

LeaseEvent event(uint32_t address, LeaseEventType type = LeaseEventType::kAssigned) {
    return {kNow, 1'700'000'000, 0x020000000001, 7, address, 3600, type};
}

DrainedText drain(EventQueue& queue, uint64_t next_sequence = 1, size_t capacity = 1 << 20) {
    std::string out(capacity, '\0');
    const Drained drained = queue.drain(out.data(), capacity, next_sequence, kNow);
    out.resize(drained.octets);
    return {out, drained.lines};
}

TEST(EventQueueTest, WritesAnEventAsALineOfJson) {
    EventQueue queue(4);
    queue.push(event(0xC000020A));
    EXPECT_EQ(
        "{\"seq\":9,\"type\":\"lease.assigned\",\"at\":1700000000123,\"subnet\":7,\"ip\":\"192.0.2.10\","
        "\"mac\":\"02:00:00:00:00:01\",\"valid_lft\":3600,\"cltt\":1700000000}\n",
        drain(queue, 9).text);
}

TEST(EventQueueTest, NamesEachType) {
    EventQueue queue(8);
    for (const auto type : {LeaseEventType::kAssigned, LeaseEventType::kRenewed, LeaseEventType::kReleased,
                            LeaseEventType::kDeclined, LeaseEventType::kExpired}) {
        queue.push(event(1, type));
    }
    const std::string text = drain(queue).text;
    for (const char* name : {"assigned", "renewed", "released", "declined", "expired"}) {
        EXPECT_NE(std::string::npos, text.find(std::string("\"lease.") + name + "\"")) << name;
    }
}

TEST(EventQueueTest, AClientWithoutAnEthernetAddressIsNull) {
    EventQueue queue(4);
    LeaseEvent strange = event(1);
    strange.mac = kNoMac;
    queue.push(strange);
    EXPECT_TRUE(drain(queue).has("\"mac\":null"));
}

TEST(EventQueueTest, NumbersLinesInTheOrderOfTheEvents) {
    EventQueue queue(4);
    queue.push(event(1));
    queue.push(event(2));
    const DrainedText drained = drain(queue, 5);
    EXPECT_EQ(2U, drained.lines);
    EXPECT_LT(drained.text.find("\"seq\":5,"), drained.text.find("0.0.0.1"));
    EXPECT_LT(drained.text.find("\"seq\":6,"), drained.text.find("0.0.0.2"));
}

TEST(EventQueueTest, DrainedEventsDoNotComeAgain) {
    EventQueue queue(4);
    queue.push(event(1));
    drain(queue);
    EXPECT_EQ("", drain(queue).text);
}

TEST(EventQueueTest, FullItLosesTheNewestAndTellsOnce) {
    EventQueue queue(2);
    for (uint32_t i = 1; i <= 5; ++i) {
        queue.push(event(i));
    }
    const DrainedText drained = drain(queue);
    EXPECT_EQ(3U, drained.lines);
    EXPECT_EQ(0U, drained.text.find("{\"seq\":1,\"type\":\"events.gap\",\"at\":1700000000123,\"lost\":3,"
                                    "\"reason\":\"queue\"}\n"));
    EXPECT_TRUE(drained.has("0.0.0.2"));
    EXPECT_FALSE(drained.has("0.0.0.3"));
    EXPECT_EQ(0U, drain(queue).lines);
    EXPECT_EQ(3U, queue.counters().lost);
}

TEST(EventQueueTest, WritesWholeLinesThatFitAndKeepsTheRest) {
    EventQueue queue(100);
    for (uint32_t i = 0; i < 100; ++i) {
        queue.push(event(i));
    }
    const DrainedText first = drain(queue, 1, 3 * JsonLine::kLongest + 17);
    EXPECT_GE(first.lines, 3U);
    EXPECT_EQ('\n', first.text.back());
    EXPECT_EQ(100U, first.lines + drain(queue).lines);
}

TEST(EventQueueTest, ABufferTooSmallForALineTakesNothing) {
    EventQueue queue(1);
    queue.push(event(1));
    queue.push(event(2));
    EXPECT_EQ(0U, drain(queue, 1, JsonLine::kLongest - 1).lines);
    EXPECT_EQ(2U, drain(queue).lines);
}

TEST(EventQueueTest, TheLongestLineFits) {
    EventQueue queue(1);
    queue.push({std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::min(), 0xFFFFFFFFFFFF, UINT32_MAX,
                UINT32_MAX, UINT32_MAX, LeaseEventType::kAssigned});
    const DrainedText drained = drain(queue, UINT64_MAX);
    EXPECT_EQ(1U, drained.lines);
    EXPECT_LE(drained.text.size(), JsonLine::kLongest);
}

TEST(EventQueueTest, GrowingKeepsWhatIsHeldInOrder) {
    EventQueue queue(3);
    for (uint32_t i = 1; i <= 3; ++i) {
        queue.push(event(i));
    }
    drain(queue, 1, JsonLine::kLongest);
    queue.push(event(4));
    queue.resize(10);
    queue.push(event(5));
    const std::string text = drain(queue).text;
    EXPECT_LT(text.find("0.0.0.2"), text.find("0.0.0.3"));
    EXPECT_LT(text.find("0.0.0.3"), text.find("0.0.0.4"));
    EXPECT_LT(text.find("0.0.0.4"), text.find("0.0.0.5"));
}

TEST(EventQueueTest, ShrinkingCountsWhatNoLongerFitsAsLost) {
    EventQueue queue(10);
    for (uint32_t i = 1; i <= 5; ++i) {
        queue.push(event(i));
    }
    queue.resize(2);
    EXPECT_EQ(2U, queue.counters().queued);
    EXPECT_EQ(3U, queue.counters().lost);
    EXPECT_TRUE(drain(queue).has("0.0.0.1"));
}

TEST(EventQueueTest, ManyThreadsLoseNothingUncounted) {
    constexpr uint64_t kEach = 20'000;
    EventQueue queue(256);
    std::vector<std::thread> producers;
    for (int i = 0; i < 3; ++i) {
        producers.emplace_back([&] {
            for (uint64_t n = 0; n < kEach; ++n) {
                queue.push(event(1));
            }
        });
    }
    uint64_t written = 0;
    uint64_t gaps = 0;
    const auto take = [&] {
        const DrainedText drained = drain(queue, 1, 1 << 16);
        written += drained.lines;
        gaps += drained.has("events.gap") ? 1 : 0;
    };
    for (int i = 0; i < 200; ++i) {
        take();
        queue.resize(i % 2 == 0 ? 200 : 256);
    }
    for (auto& producer : producers) {
        producer.join();
    }
    while (queue.counters().queued > 0) {
        take();
    }
    EXPECT_EQ(3 * kEach, written - gaps + queue.counters().lost);
}

}  // namespace
}  // namespace leasehold
