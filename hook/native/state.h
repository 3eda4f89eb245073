// What outlives a reload of the library. Every config-set unloads and loads Kea's hook libraries; this one stays mapped
// (linked with -z nodelete), and so does this state. It is never destroyed: threads may still look at it while the
// process ends.
#ifndef LEASEHOLD_STATE_H
#define LEASEHOLD_STATE_H

#include <atomic>
#include <chrono>
#include <cstdint>
#include <set>

#include "event_queue.h"
#include "leasehold.h"
#include "rejections.h"
#include "store.h"

namespace leasehold {

struct State {
    Store store;
    EventQueue events{65536};
    RejectionTable rejections{
        4096, [this](uint32_t subnet_id, uint64_t mac) { return store.reserves_elsewhere(subnet_id, mac); }};
    std::set<uint32_t> unsettled;  // subnets that may have leases which the store rules out; Kea's main thread only
    std::atomic<lh_unknown_clients> unknown_clients{LH_REJECT};
    std::atomic<bool> is_last_library{false};  // in the configuration in force, so that no other sees answers after us
};

inline State& state() {
    static auto* const kept = new State;
    return *kept;
}

/// Milliseconds since the Unix epoch, UTC.
inline int64_t now_ms() {
    using std::chrono::milliseconds;
    using std::chrono::system_clock;
    return std::chrono::duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace leasehold

#endif
