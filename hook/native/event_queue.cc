#include "event_queue.h"

#include <algorithm>
#include <array>
#include <utility>

namespace leasehold {
namespace {

const char* name_of(LeaseEventType type) {
    switch (type) {
        case LeaseEventType::kAssigned:
            return "lease.assigned";
        case LeaseEventType::kRenewed:
            return "lease.renewed";
        case LeaseEventType::kReleased:
            return "lease.released";
        case LeaseEventType::kDeclined:
            return "lease.declined";
        case LeaseEventType::kExpired:
            break;
    }
    return "lease.expired";
}

}  // namespace

EventQueue::EventQueue(size_t capacity) : ring_(new LeaseEvent[capacity]), capacity_(capacity) {
}

void EventQueue::resize(size_t capacity) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (capacity == capacity_) {
        return;
    }
    std::unique_ptr<LeaseEvent[]> ring(new LeaseEvent[capacity]);
    const size_t kept = std::min(size_, capacity);
    for (size_t i = 0; i < kept; ++i) {
        ring[i] = ring_[(first_ + i) % capacity_];
    }
    lost_ += size_ - kept;
    ring_ = std::move(ring);
    capacity_ = capacity;
    first_ = 0;
    size_ = kept;
}

void EventQueue::push(const LeaseEvent& event) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (size_ == capacity_) {
        ++lost_;
        return;
    }
    ring_[(first_ + size_) % capacity_] = event;
    ++size_;
    ++enqueued_;
}

size_t EventQueue::pop(LeaseEvent* out, size_t limit) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t taken = std::min(limit, size_);
    for (size_t i = 0; i < taken; ++i) {
        out[i] = ring_[first_];
        first_ = first_ + 1 == capacity_ ? 0 : first_ + 1;
    }
    size_ -= taken;
    return taken;
}

Drained EventQueue::drain(char* out, size_t capacity, uint64_t next_sequence, int64_t now_ms) {
    Drained drained;
    const auto room = [&] { return (capacity - drained.octets) / JsonLine::kLongest; };
    if (room() == 0) {
        return drained;
    }
    uint64_t lost = 0;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        lost = lost_ - announced_;
        announced_ = lost_;
    }
    if (lost > 0) {
        JsonLine line(out, next_sequence, "events.gap", now_ms);
        drained.octets += line.field("lost", lost).word("reason", "queue").end();
        ++drained.lines;
    }
    std::array<LeaseEvent, 256> chunk;
    while (const size_t taken = pop(chunk.data(), std::min(room(), chunk.size()))) {
        for (size_t i = 0; i < taken; ++i) {
            const LeaseEvent& event = chunk[i];
            JsonLine line(out + drained.octets, next_sequence + drained.lines, name_of(event.type), event.at_ms);
            drained.octets += line.field("subnet", event.subnet_id)
                                  .ip(event.address)
                                  .mac(event.mac)
                                  .field("valid_lft", event.valid_lft_s)
                                  .field("cltt", event.cltt_s)
                                  .end();
            ++drained.lines;
        }
    }
    return drained;
}

EventQueue::Counters EventQueue::counters() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {size_, enqueued_, lost_};
}

}  // namespace leasehold
