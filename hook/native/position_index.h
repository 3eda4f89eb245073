// Open addressing from a key to the position of its entry in an array that someone else owns: four octets a
// slot, so that a hundred thousand entries cost half a megabyte. The keys stay in the array; the index asks for them.
#ifndef LEASEHOLD_POSITION_INDEX_H
#define LEASEHOLD_POSITION_INDEX_H

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace leasehold {

/// Says that no entry was found.
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

struct Same {
    uint64_t operator()(uint64_t key) const {
        return key;
    }
};

/// `Fold` makes 64 bits of a key, all of it taking part.
template <typename Key = uint64_t, typename Fold = Same>
class PositionIndex {
public:
    /// `seed` makes the slots unforeseeable where strangers choose the keys.
    explicit PositionIndex(uint64_t seed = 0) : seed_(seed) {
    }

    /// The position of `key`, or kNone. `key_at(position)` is the key of the entry there.
    template <typename KeyAt>
    uint32_t find(const Key& key, const KeyAt& key_at) const {
        return slots_.empty() ? kNone : slots_[slot_of(key, key_at)];
    }

    /// Adds `key`, which must not be there, as the entry at `position`.
    template <typename KeyAt>
    void insert(const Key& key, uint32_t position, const KeyAt& key_at) {
        // At four fifths full, a search for what is not there looks at some thirteen neighbouring slots.
        if ((used_ + 1) * 5 > slots_.size() * 4) {
            grow(key_at);
        }
        slots_[slot_of(key, key_at)] = position;
        ++used_;
    }

    /// Records that the entry of `key`, which must be there, is now at `position`.
    template <typename KeyAt>
    void move(const Key& key, uint32_t position, const KeyAt& key_at) {
        slots_[slot_of(key, key_at)] = position;
    }

    /// Takes out `key`, which must be there and still be in the array.
    template <typename KeyAt>
    void erase(const Key& key, const KeyAt& key_at) {
        size_t hole = slot_of(key, key_at);
        // What follows in the run moves up, unless that would put it before its own first slot.
        for (size_t next = (hole + 1) & mask(); slots_[next] != kNone; next = (next + 1) & mask()) {
            const size_t wanted = first_slot(key_at(slots_[next]));
            if (((next - wanted) & mask()) >= ((next - hole) & mask())) {
                slots_[hole] = slots_[next];
                hole = next;
            }
        }
        slots_[hole] = kNone;
        --used_;
    }

    /// Forgets every key and keeps the room.
    void clear() {
        slots_.assign(slots_.size(), kNone);
        used_ = 0;
    }

private:
    static constexpr size_t kSmallest = 16;

    size_t mask() const {
        return slots_.size() - 1;
    }

    size_t first_slot(const Key& key) const {
        // Multiply and fold: MACs and addresses come in runs, and every bit must reach the low ones.
        uint64_t mixed = (Fold()(key) ^ seed_) * UINT64_C(0x9E3779B97F4A7C15);
        mixed = (mixed ^ (mixed >> 32)) * UINT64_C(0xD6E8FEB86659FD93);
        return static_cast<size_t>(mixed ^ (mixed >> 32)) & mask();
    }

    template <typename KeyAt>
    size_t slot_of(const Key& key, const KeyAt& key_at) const {
        size_t slot = first_slot(key);
        while (slots_[slot] != kNone && key_at(slots_[slot]) != key) {
            slot = (slot + 1) & mask();
        }
        return slot;
    }

    template <typename KeyAt>
    void grow(const KeyAt& key_at) {
        std::vector<uint32_t> old = std::move(slots_);
        slots_.assign(old.empty() ? kSmallest : old.size() * 2, kNone);
        for (const uint32_t position : old) {
            if (position != kNone) {
                slots_[slot_of(key_at(position), key_at)] = position;
            }
        }
    }

    std::vector<uint32_t> slots_;
    size_t used_ = 0;
    uint64_t seed_;
};

}  // namespace leasehold

#endif
