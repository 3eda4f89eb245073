// Lease events on their way from Kea's packet threads to the reporter.
#ifndef LEASEHOLD_EVENT_QUEUE_H
#define LEASEHOLD_EVENT_QUEUE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "json_line.h"

namespace leasehold {

enum class LeaseEventType : uint32_t { kAssigned, kRenewed, kReleased, kDeclined, kExpired };

struct LeaseEvent {
    int64_t at_ms;
    int64_t cltt_s;  // client's last transaction time, seconds since the epoch
    uint64_t mac;    // kNoMac where the lease has no Ethernet address
    uint32_t subnet_id;
    uint32_t address;
    uint32_t valid_lft_s;
    LeaseEventType type;
};

/// A ring of fixed-size records. Full, it drops the newest and counts it. Thread-safe.
class EventQueue {
public:
    struct Counters {
        uint64_t queued;
        uint64_t enqueued;  // since the start
        uint64_t lost;      // since the start
    };

    explicit EventQueue(size_t capacity);

    /// Keeps what is held, but for the newest that no longer fit: they are lost.
    void resize(size_t capacity);

    /// Allocates nothing and never waits for a drain's formatting.
    void push(const LeaseEvent& event);

    /// Moves events out as lines of JSON, numbered from `next_sequence`: first, if any were lost since the last drain,
    /// one events.gap line with their number; then the oldest, as many as surely fit.
    Drained drain(char* out, size_t capacity, uint64_t next_sequence, int64_t now_ms);

    Counters counters() const;

private:
    size_t pop(LeaseEvent* out, size_t limit);

    mutable std::mutex mutex_;
    std::unique_ptr<LeaseEvent[]> ring_;  // not initialised: a page is touched when it is first used
    size_t capacity_;
    size_t first_ = 0;
    size_t size_ = 0;
    uint64_t enqueued_ = 0;
    uint64_t lost_ = 0;
    uint64_t announced_ = 0;  // how many of lost_ an events.gap line has told
};

}  // namespace leasehold

#endif
