// The functions of leasehold.h that Python calls.
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>
#include <csignal>

#include <hooks/hooks.h>

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>

#include "client.h"
#include "interfaces.h"
#include "kea.h"
#include "leasehold.h"
#include "state.h"

using leasehold::state;

// No exception passes into Python: cffi's C code is built without unwind tables, so that one ends the process there.
// That is for memory at its end; what Kea's lease database throws is caught and told in the log.

void lh_configure(const lh_options* options) {
    state().unknown_clients = static_cast<lh_unknown_clients>(options->unknown_clients);
    state().events.resize(options->event_queue);
    state().rejections.resize(options->rejection_table);
}

uint64_t lh_store_apply(uint32_t subnet_id, const lh_reservation* set, size_t set_count, const char* names,
                        size_t names_length, const lh_withdrawal* unset, size_t unset_count, int replace,
                        int64_t replaced_until_ms) {
    const std::string_view all_names(names, names_length);
    std::vector<leasehold::NewReservation> reservations;
    reservations.reserve(set_count);
    for (size_t i = 0; i < set_count; ++i) {
        reservations.push_back(
            {set[i].mac, set[i].address, all_names.substr(set[i].hostname_offset, set[i].hostname_length)});
    }
    std::vector<leasehold::Withdrawal> withdrawals;
    withdrawals.reserve(unset_count);
    for (size_t i = 0; i < unset_count; ++i) {
        withdrawals.push_back({unset[i].mac, unset[i].until_ms});
    }
    auto change =
        state().store.apply(subnet_id, reservations, withdrawals,
                            replace != 0 ? std::make_optional(replaced_until_ms) : std::nullopt, leasehold::now_ms());
    // A whole set that is put in the place of the same one frees nobody, so that what is left to do must be remembered.
    if (!leasehold::has_lease_database()) {
        state().unsettled.insert(subnet_id);
    } else {
        try {
            for (const auto& withdrawal : withdrawals) {
                change.freed.push_back(withdrawal.mac);
            }
            leasehold::delete_leases_of(state().store, subnet_id, change.freed);
            for (const auto& reservation : reservations) {
                leasehold::delete_lease_in_the_way(subnet_id, reservation.mac, reservation.address);
            }
        } catch (const std::exception& why) {
            state().unsettled.insert(subnet_id);
            leasehold::log(LH_ERROR, "LEASE_NOT_DELETED",
                           "subnet " + std::to_string(subnet_id) +
                               ": leases that no longer have a reservation could not all be deleted: " + why.what());
        }
    }
    return change.count;
}

int lh_leases_settled(uint32_t subnet_id) {
    auto& unsettled = state().unsettled;
    const std::vector<uint32_t> managed =
        unsettled.count(subnet_id) != 0 ? leasehold::managed_subnets() : std::vector<uint32_t>{};
    if (std::find(managed.begin(), managed.end(), subnet_id) == managed.end()) {
        return 1;
    }
    if (!leasehold::has_lease_database()) {
        return 0;
    }
    try {
        leasehold::delete_leases_ruled_out(state().store, unsettled, leasehold::Counted::kYes);
        return 1;
    } catch (const std::exception&) {
        return 0;  // told when it failed first
    }
}

uint32_t lh_longest_lifetime_s(uint32_t subnet_id) {
    return leasehold::longest_lifetime_s(subnet_id);
}

size_t lh_managed_subnets(uint32_t* ids, size_t capacity) {
    const std::vector<uint32_t> managed = leasehold::managed_subnets();
    std::copy_n(managed.begin(), std::min(capacity, managed.size()), ids);
    return managed.size();
}

size_t lh_events_drain(char* out, size_t capacity, uint64_t next_sequence, uint64_t* count) {
    const auto drained = state().events.drain(out, capacity, next_sequence, leasehold::now_ms());
    *count = drained.lines;
    return drained.octets;
}

size_t lh_rejections_drain(char* out, size_t capacity, uint64_t next_sequence, uint64_t* count) {
    const auto drained = state().rejections.drain(out, capacity, next_sequence);
    *count = drained.lines;
    return drained.octets;
}

void lh_counters_read(lh_counters* counters) {
    const auto events = state().events.counters();
    const auto rejected = state().rejections.totals();
    const auto of = [&](leasehold::Reason reason) { return rejected[static_cast<size_t>(reason)]; };
    *counters = {events.queued,
                 events.enqueued,
                 events.lost,
                 of(leasehold::Reason::kUnknown),
                 of(leasehold::Reason::kWithdrawn),
                 of(leasehold::Reason::kDoubt)};
}

const char* lh_client_get(uint64_t mac) {
    static auto* const text = new std::string;
    try {
        *text = leasehold::describe_client(mac);
        return text->c_str();
    } catch (const std::exception& why) {
        leasehold::log(LH_ERROR, "LEASES_UNREADABLE", why.what());
        return nullptr;
    }
}

const char* lh_interfaces(void) {
    static auto* const text = new std::string;
    try {
        *text = leasehold::describe_interfaces();
        return text->c_str();
    } catch (const std::exception&) {
        return nullptr;
    }
}

void lh_statistic_set(const char* name, int64_t value) {
    leasehold::set_statistic(name, value);
}

void lh_log(int level, const char* id, const char* text) {
    leasehold::log(static_cast<lh_log_level>(level), id, text);
}

void lh_lower_priority(void) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    // Linux gives each thread a nice value of its own. Not SCHED_IDLE: a thread that never runs on a busy machine would
    // keep the GIL from Kea's main thread for as long.
    constexpr int kNicest = 19;
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNicest);
}

const char* lh_kea_version(void) {
    // 20200 is 2.2.0.
    static const auto* const text =
        new std::string(std::to_string(KEA_HOOKS_VERSION / 10000) + "." +
                        std::to_string(KEA_HOOKS_VERSION / 100 % 100) + "." + std::to_string(KEA_HOOKS_VERSION % 100));
    return text->c_str();
}
