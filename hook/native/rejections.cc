#include "rejections.h"

#include <algorithm>
#include <iterator>
#include <random>
#include <utility>

namespace leasehold {
namespace {

// Strangers choose the MACs, and must not be able to choose them all for one slot.
uint64_t unforeseeable() {
    std::random_device source;
    return (uint64_t{source()} << 32) ^ source();
}

}  // namespace

const char* name_of(Reason reason) {
    switch (reason) {
        case Reason::kUnknown:
            return "unknown";
        case Reason::kWithdrawn:
            return "withdrawn";
        case Reason::kElsewhere:
            return "elsewhere";
        case Reason::kDoubt:
            break;
    }
    return "doubt";
}

RejectionTable::RejectionTable(size_t capacity, ReservedElsewhere elsewhere)
    : capacity_(capacity),
      by_client_(unforeseeable()),
      elsewhere_(std::move(elsewhere)),
      by_told_client_(unforeseeable()) {
    clients_.reserve(capacity);
}

void RejectionTable::resize(size_t capacity) {
    const std::lock_guard<std::mutex> alone(reporter_);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (capacity == capacity_) {
        return;
    }
    told_ = {};
    by_told_client_.clear();
    next_told_ = 0;
    std::vector<Tally> kept = std::move(clients_);
    capacity_ = capacity;
    clients_ = {};
    clients_.reserve(capacity);
    by_client_.clear();
    for (const Tally& tally : kept) {
        add(tally);
    }
}

void RejectionTable::count(uint32_t subnet_id, uint64_t mac, Reason reason, int64_t now_ms, uint8_t message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++totals_[static_cast<size_t>(reason)];
    add({{mac, subnet_id, reason}, 1, now_ms, now_ms, message});
}

void RejectionTable::add(const Tally& tally) {
    if (tally.client.mac != kNoMac) {
        const uint32_t at = by_client_.find(tally.client, client_at());
        if (at != kNone) {
            merge(clients_[at], tally);
            return;
        }
        if (clients_.size() < capacity_) {
            clients_.push_back(tally);
            by_client_.insert(tally.client, static_cast<uint32_t>(clients_.size() - 1), client_at());
            return;
        }
    }
    const uint64_t key = (uint64_t{tally.client.subnet_id} << 2) | static_cast<uint64_t>(tally.client.reason);
    const auto [at, fresh] = sums_.try_emplace(key, tally);
    if (fresh) {
        at->second.client.mac = kNoMac;
    } else {
        merge(at->second, tally);
    }
}

void RejectionTable::merge(Tally& into, const Tally& tally) {
    into.count += tally.count;
    into.first_ms = std::min(into.first_ms, tally.first_ms);
    if (tally.last_ms >= into.last_ms) {
        into.last_ms = tally.last_ms;
        into.message = tally.message;
    }
}

RejectionTable::Tally RejectionTable::judged(Tally tally) const {
    if (tally.client.reason == Reason::kUnknown && tally.client.mac != kNoMac && elsewhere_ &&
        elsewhere_(tally.client.subnet_id, tally.client.mac)) {
        tally.client.reason = Reason::kElsewhere;
    }
    return tally;
}

void RejectionTable::remember(const Tally& tally) {
    if (tally.client.mac == kNoMac) {
        return;
    }
    const uint32_t at = by_told_client_.find(tally.client, told_client_at());
    if (at != kNone) {
        merge(told_[at], tally);
        return;
    }
    const auto position = static_cast<uint32_t>(next_told_);
    if (position < told_.size()) {
        by_told_client_.erase(told_[position].client, told_client_at());
        told_[position] = tally;
    } else {
        told_.push_back(tally);
    }
    by_told_client_.insert(tally.client, position, told_client_at());
    next_told_ = (next_told_ + 1) % capacity_;
}

std::vector<Rejection> RejectionTable::recent(uint64_t mac) {
    const std::lock_guard<std::mutex> alone(reporter_);
    std::map<std::pair<uint32_t, Reason>, Tally> by_reason;
    const auto take = [&](const Tally& tally) {
        const auto [at, fresh] = by_reason.try_emplace({tally.client.subnet_id, tally.client.reason}, tally);
        if (!fresh) {
            merge(at->second, tally);
        }
    };
    const auto is_wanted = [&](const Tally& tally) { return tally.client.mac == mac; };
    std::vector<Tally> found;
    std::copy_if(told_.begin(), told_.end(), std::back_inserter(found), is_wanted);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::copy_if(clients_.begin(), clients_.end(), std::back_inserter(found), is_wanted);
    }
    for (const Tally& tally : found) {
        take(judged(tally));
    }
    std::vector<Rejection> rejections;
    rejections.reserve(by_reason.size());
    for (const auto& [key, tally] : by_reason) {
        rejections.push_back({key.first, key.second, tally.message, tally.count, tally.first_ms, tally.last_ms});
    }
    return rejections;
}

Drained RejectionTable::drain(char* out, size_t capacity, uint64_t next_sequence) {
    const std::lock_guard<std::mutex> alone(reporter_);
    if (!reporting_) {
        // The two arrays change places, so that packets wait for no allocation after the first window.
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            report_.swap(clients_);
            clients_.reserve(capacity_);
            by_client_.clear();
            for (const auto& [key, tally] : sums_) {
                report_.push_back(tally);
            }
            sums_.clear();
        }
        std::reverse(report_.begin(), report_.end());
        for (Tally& tally : report_) {
            tally = judged(tally);
            remember(tally);
        }
    }
    Drained drained;
    while (!report_.empty() && capacity - drained.octets >= JsonLine::kLongest) {
        const Tally& tally = report_.back();
        JsonLine line(out + drained.octets, next_sequence + drained.lines, "client.rejected", tally.last_ms);
        drained.octets += line.field("subnet", tally.client.subnet_id)
                              .mac(tally.client.mac)
                              .word("reason", name_of(tally.client.reason))
                              .field("count", tally.count)
                              .field("first", tally.first_ms)
                              .field("last", tally.last_ms)
                              .end();
        ++drained.lines;
        report_.pop_back();
    }
    reporting_ = drained.lines > 0 || !report_.empty();
    return drained;
}

std::array<uint64_t, kReasons> RejectionTable::totals() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return totals_;
}

}  // namespace leasehold
