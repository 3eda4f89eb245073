#include "store.h"

#include <algorithm>
#include <utility>

namespace leasehold {
namespace {

uint64_t packed(Sighting sighting) {
    return uint64_t{sighting.at_s} | uint64_t{sighting.message} << 32 | uint64_t{sighting.answer} << 40;
}

Sighting unpacked(uint64_t word) {
    return {static_cast<uint32_t>(word), static_cast<uint8_t>(word >> 32), static_cast<uint8_t>(word >> 40)};
}

}  // namespace

Standing SubnetSet::standing(uint64_t mac, int64_t now_ms) const {
    if (by_mac_.find(mac, mac_at()) != kNone) {
        return Standing::kReserved;
    }
    const uint32_t at = by_withdrawn_mac_.find(mac, withdrawn_mac_at());
    return at != kNone && withdrawn_[at].until_ms > now_ms ? Standing::kWithdrawn : Standing::kUnknown;
}

uint32_t SubnetSet::address_of(uint64_t mac) const {
    const uint32_t at = by_mac_.find(mac, mac_at());
    return at == kNone ? 0 : entries_[at].address;
}

Sighting SubnetSet::sighting(uint64_t mac) const {
    const uint32_t at = by_mac_.find(mac, mac_at());
    return at == kNone ? Sighting{} : unpacked(__atomic_load_n(&entries_[at].sighting, __ATOMIC_RELAXED));
}

bool SubnetSet::see(uint64_t mac, Sighting sighting) const {
    const uint32_t at = by_mac_.find(mac, mac_at());
    if (at == kNone) {
        return false;
    }
    __atomic_store_n(&entries_[at].sighting, packed(sighting), __ATOMIC_RELAXED);
    return true;
}

void SubnetSet::see_answer(uint64_t mac, uint8_t answer) const {
    const uint32_t at = by_mac_.find(mac, mac_at());
    if (at != kNone) {
        // One client's packets come one after the other (Kea holds the others back), so nothing is lost in between.
        Sighting seen = unpacked(__atomic_load_n(&entries_[at].sighting, __ATOMIC_RELAXED));
        seen.answer = answer;
        __atomic_store_n(&entries_[at].sighting, packed(seen), __ATOMIC_RELAXED);
    }
}

int64_t SubnetSet::withdrawn_until(uint64_t mac) const {
    const uint32_t at = by_withdrawn_mac_.find(mac, withdrawn_mac_at());
    return at != kNone ? withdrawn_[at].until_ms : 0;
}

std::optional<Reservation> SubnetSet::by_mac(uint64_t mac) const {
    const uint32_t at = by_mac_.find(mac, mac_at());
    return at == kNone ? std::nullopt : std::make_optional(this->at(at));
}

std::optional<Reservation> SubnetSet::by_address(uint32_t address) const {
    const uint32_t at = by_address_.find(address, address_at());
    return at == kNone ? std::nullopt : std::make_optional(this->at(at));
}

Reservation SubnetSet::at(size_t position) const {
    const Entry& entry = entries_[position];
    return {entry.mac, entry.address, std::string(name_at(entry.name))};
}

std::optional<uint64_t> SubnetSet::put(const NewReservation& reservation) {
    const uint32_t withdrawn = by_withdrawn_mac_.find(reservation.mac, withdrawn_mac_at());
    if (withdrawn != kNone) {
        forget_withdrawal_at(withdrawn);
    }

    const uint32_t own = by_mac_.find(reservation.mac, mac_at());
    if (own != kNone) {
        if (entries_[own].address == reservation.address) {
            if (name_at(entries_[own].name) != reservation.hostname) {
                drop_name(std::exchange(entries_[own].name, 0));
                entries_[own].name = add_name(reservation.hostname);
            }
            return std::nullopt;
        }
        remove_at(own);
    }

    std::optional<uint64_t> loser;
    const uint32_t holder = by_address_.find(reservation.address, address_at());
    if (holder != kNone) {
        loser = entries_[holder].mac;
        remove_at(holder);
    }

    const auto position = static_cast<uint32_t>(entries_.size());
    entries_.push_back({reservation.mac, reservation.address, 0, 0});
    entries_.back().name = add_name(reservation.hostname);
    by_mac_.insert(reservation.mac, position, mac_at());
    by_address_.insert(reservation.address, position, address_at());
    return loser;
}

bool SubnetSet::remove(uint64_t mac) {
    const uint32_t at = by_mac_.find(mac, mac_at());
    if (at == kNone) {
        return false;
    }
    remove_at(at);
    return true;
}

void SubnetSet::remove_at(uint32_t position) {
    by_mac_.erase(entries_[position].mac, mac_at());
    by_address_.erase(entries_[position].address, address_at());
    drop_name(std::exchange(entries_[position].name, 0));
    const auto last = static_cast<uint32_t>(entries_.size() - 1);
    if (position != last) {
        by_mac_.move(entries_[last].mac, position, mac_at());
        by_address_.move(entries_[last].address, position, address_at());
        entries_[position] = entries_[last];
    }
    entries_.pop_back();
}

void SubnetSet::withdraw(const Withdrawal& withdrawal, int64_t now_ms) {
    const uint32_t at = by_withdrawn_mac_.find(withdrawal.mac, withdrawn_mac_at());
    if (at != kNone) {
        withdrawn_[at].until_ms = std::max(withdrawn_[at].until_ms, withdrawal.until_ms);
        return;
    }
    if (withdrawn_.size() >= next_sweep_) {
        for (uint32_t i = 0; i < withdrawn_.size();) {
            if (withdrawn_[i].until_ms <= now_ms) {
                forget_withdrawal_at(i);
            } else {
                ++i;
            }
        }
        // Twice what is left: the sweeps' cost stays constant for each withdrawal.
        next_sweep_ = std::max<size_t>(64, withdrawn_.size() * 2);
    }
    withdrawn_.push_back(withdrawal);
    by_withdrawn_mac_.insert(withdrawal.mac, static_cast<uint32_t>(withdrawn_.size() - 1), withdrawn_mac_at());
}

void SubnetSet::forget_withdrawal_at(uint32_t position) {
    by_withdrawn_mac_.erase(withdrawn_[position].mac, withdrawn_mac_at());
    const auto last = static_cast<uint32_t>(withdrawn_.size() - 1);
    if (position != last) {
        by_withdrawn_mac_.move(withdrawn_[last].mac, position, withdrawn_mac_at());
        withdrawn_[position] = withdrawn_[last];
    }
    withdrawn_.pop_back();
}

std::string_view SubnetSet::name_at(uint32_t offset) const {
    return names_.c_str() + offset;
}

uint32_t SubnetSet::add_name(std::string_view name) {
    if (name.empty()) {
        return 0;
    }
    if (dead_names_ * 2 > names_.size()) {
        std::string living(1, '\0');
        for (Entry& entry : entries_) {
            if (entry.name != 0) {
                const std::string_view kept = name_at(entry.name);
                entry.name = static_cast<uint32_t>(living.size());
                living.append(kept).push_back('\0');
            }
        }
        names_ = std::move(living);
        dead_names_ = 0;
    }
    const auto offset = static_cast<uint32_t>(names_.size());
    names_.append(name).push_back('\0');
    return offset;
}

void SubnetSet::drop_name(uint32_t offset) {
    if (offset != 0) {
        dead_names_ += name_at(offset).size() + 1;
    }
}

Store::Change Store::apply(uint32_t subnet_id, const std::vector<NewReservation>& set,
                           const std::vector<Withdrawal>& unset, std::optional<int64_t> replaced_until_ms,
                           int64_t now_ms) {
    const std::lock_guard<std::mutex> alone(writer_);
    Change change{};
    if (replaced_until_ms) {
        // The new set grows beside the old one, which serves until the swap.
        SubnetSet next;
        for (const Withdrawal& withdrawal : unset) {
            next.withdraw(withdrawal, now_ms);
        }
        if (const SubnetSet* old = find(subnet_id)) {
            for (const Withdrawal& withdrawal : old->withdrawals()) {
                next.withdraw(withdrawal, now_ms);
            }
            for (size_t i = 0; i < old->size(); ++i) {
                next.withdraw({old->at(i).mac, *replaced_until_ms}, now_ms);
            }
        }
        for (const NewReservation& reservation : set) {
            next.put(reservation);
        }
        if (const SubnetSet* old = find(subnet_id)) {
            for (size_t i = 0; i < old->size(); ++i) {
                const Reservation was = old->at(i);
                if (next.address_of(was.mac) != was.address) {
                    change.freed.push_back(was.mac);
                }
                next.see(was.mac, old->sighting(was.mac));
            }
        }
        change.count = next.size();
        const std::unique_lock<std::shared_mutex> lock(access_);
        std::swap(sets_[subnet_id], next);
        return change;
    }

    const std::unique_lock<std::shared_mutex> lock(access_);
    SubnetSet& current = sets_[subnet_id];
    for (const Withdrawal& withdrawal : unset) {
        if (current.remove(withdrawal.mac)) {
            change.freed.push_back(withdrawal.mac);
        }
        current.withdraw(withdrawal, now_ms);
    }
    // All that move leave their addresses first, so that two may change places in one step.
    for (const NewReservation& reservation : set) {
        const uint32_t address = current.address_of(reservation.mac);
        if (address != 0 && address != reservation.address) {
            current.remove(reservation.mac);
            change.freed.push_back(reservation.mac);
        }
    }
    for (const NewReservation& reservation : set) {
        if (const auto loser = current.put(reservation)) {
            change.freed.push_back(*loser);
        }
    }
    change.count = current.size();
    return change;
}

void Store::forget(uint32_t subnet_id) {
    const std::lock_guard<std::mutex> alone(writer_);
    SubnetSet gone;  // gives its memory back when no reader waits for that any more
    const std::unique_lock<std::shared_mutex> lock(access_);
    const auto at = sets_.find(subnet_id);
    if (at != sets_.end()) {
        std::swap(gone, at->second);
        sets_.erase(at);
    }
}

const SubnetSet* Store::find(uint32_t subnet_id) const {
    const auto at = sets_.find(subnet_id);
    return at == sets_.end() ? nullptr : &at->second;
}

Standing Store::standing(uint32_t subnet_id, uint64_t mac, int64_t now_ms) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr ? set->standing(mac, now_ms) : Standing::kUnknown;
}

Standing Store::meet(uint32_t subnet_id, uint64_t mac, uint8_t message, int64_t now_ms) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    if (set == nullptr) {
        return Standing::kUnknown;
    }
    const Sighting sighting{static_cast<uint32_t>(now_ms / 1000), message, 0};
    return set->see(mac, sighting) ? Standing::kReserved : set->standing(mac, now_ms);
}

bool Store::answers(uint32_t subnet_id, uint64_t mac, uint32_t address, uint8_t answer) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    if (set == nullptr || (address != 0 && set->address_of(mac) != address)) {
        return false;
    }
    set->see_answer(mac, answer);
    return true;
}

bool Store::reserves_elsewhere(uint32_t subnet_id, uint64_t mac) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    return std::any_of(sets_.begin(), sets_.end(),
                       [&](const auto& each) { return each.first != subnet_id && each.second.address_of(mac) != 0; });
}

Sighting Store::sighting(uint32_t subnet_id, uint64_t mac) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr ? set->sighting(mac) : Sighting{};
}

int64_t Store::withdrawn_until(uint32_t subnet_id, uint64_t mac) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr ? set->withdrawn_until(mac) : 0;
}

bool Store::reserves(uint32_t subnet_id, uint64_t mac, uint32_t address) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr && address != 0 && set->address_of(mac) == address;
}

bool Store::rules_out(uint32_t subnet_id, uint64_t mac, uint32_t address, int64_t now_ms) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    if (set == nullptr) {
        return false;
    }
    const uint32_t own = set->address_of(mac);
    if (own != 0) {
        return own != address;
    }
    return set->standing(mac, now_ms) == Standing::kWithdrawn || set->by_address(address).has_value();
}

std::optional<Reservation> Store::by_mac(uint32_t subnet_id, uint64_t mac) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr ? set->by_mac(mac) : std::nullopt;
}

std::optional<Reservation> Store::by_address(uint32_t subnet_id, uint32_t address) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr ? set->by_address(address) : std::nullopt;
}

std::vector<uint32_t> Store::subnets() const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    std::vector<uint32_t> ids;
    for (const auto& [id, set] : sets_) {
        ids.push_back(id);
    }
    return ids;
}

size_t Store::size(uint32_t subnet_id) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    const SubnetSet* set = find(subnet_id);
    return set != nullptr ? set->size() : 0;
}

std::vector<Reservation> Store::page(uint32_t subnet_id, size_t position, size_t limit) const {
    const std::shared_lock<std::shared_mutex> lock(access_);
    std::vector<Reservation> found;
    if (const SubnetSet* set = find(subnet_id)) {
        for (size_t i = position; i < set->size() && found.size() < limit; ++i) {
            found.push_back(set->at(i));
        }
    }
    return found;
}

}  // namespace leasehold
