#include "store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>

namespace leasehold {
namespace {

constexpr uint32_t kSubnet = 7;
constexpr uint64_t kAnn = 0x020000000001;
constexpr uint64_t kBob = 0x020000000002;
constexpr uint32_t kTen = 0xC000020A;  // 192.0.2.10
constexpr uint32_t kEleven = 0xC000020B;
constexpr int64_t kNow = 1'700'000'000'000;
constexpr int64_t kLater = kNow + 3'600'000;

class StoreTest : public testing::Test {
protected:
    Store::Change set(const std::vector<NewReservation>& reservations) {
        return store.apply(kSubnet, reservations, {}, std::nullopt, kNow);
    }
    Store::Change unset(const std::vector<Withdrawal>& withdrawals) {
        return store.apply(kSubnet, {}, withdrawals, std::nullopt, kNow);
    }
    Store::Change replace(const std::vector<NewReservation>& reservations) {
        return store.apply(kSubnet, reservations, {}, kLater, kNow);
    }
    uint32_t address_of(uint64_t mac) {
        const auto found = store.by_mac(kSubnet, mac);
        return found ? found->address : 0;
    }

    Store store;
};

TEST_F(StoreTest, FindsAReservationByMac) {
    set({{kAnn, kTen, "ann"}});
    const auto found = store.by_mac(kSubnet, kAnn);
    ASSERT_TRUE(found);
    EXPECT_EQ(kTen, found->address);
    EXPECT_EQ("ann", found->hostname);
}

TEST_F(StoreTest, RemembersWhatWasHeardOfAClientAndAnsweredToIt) {
    set({{kAnn, kTen, ""}});
    EXPECT_EQ(0U, store.sighting(kSubnet, kAnn).at_s);
    EXPECT_EQ(Standing::kReserved, store.meet(kSubnet, kAnn, 1, kNow));
    EXPECT_EQ(1, store.sighting(kSubnet, kAnn).message);
    EXPECT_EQ(0, store.sighting(kSubnet, kAnn).answer);
    EXPECT_TRUE(store.answers(kSubnet, kAnn, kTen, 2));
    EXPECT_EQ(static_cast<uint32_t>(kNow / 1000), store.sighting(kSubnet, kAnn).at_s);
    EXPECT_EQ(2, store.sighting(kSubnet, kAnn).answer);
    store.meet(kSubnet, kAnn, 3, kNow + 5000);
    EXPECT_EQ(static_cast<uint32_t>(kNow / 1000) + 5, store.sighting(kSubnet, kAnn).at_s);
    EXPECT_EQ(0, store.sighting(kSubnet, kAnn).answer);
}

TEST_F(StoreTest, AnAnswerWithAnotherAddressIsNotTheClientsOwn) {
    set({{kAnn, kTen, ""}});
    store.meet(kSubnet, kAnn, 1, kNow);
    EXPECT_FALSE(store.answers(kSubnet, kAnn, kEleven, 2));
    EXPECT_FALSE(store.answers(kSubnet, kBob, kTen, 2));
    EXPECT_FALSE(store.answers(kSubnet + 1, kAnn, kTen, 2));
    EXPECT_EQ(0, store.sighting(kSubnet, kAnn).answer);
}

TEST_F(StoreTest, ANewSetKeepsWhatWasHeardOfItsClients) {
    set({{kAnn, kTen, ""}});
    store.meet(kSubnet, kAnn, 1, kNow);
    replace({{kBob, kEleven, ""}, {kAnn, kTen, ""}});
    EXPECT_EQ(1, store.sighting(kSubnet, kAnn).message);
    EXPECT_EQ(0, store.sighting(kSubnet, kBob).message);
}

TEST_F(StoreTest, MeetsStrangersAndTheWithdrawn) {
    set({{kAnn, kTen, ""}});
    unset({{kAnn, kLater}});
    EXPECT_EQ(Standing::kWithdrawn, store.meet(kSubnet, kAnn, 3, kNow));
    EXPECT_EQ(kLater, store.withdrawn_until(kSubnet, kAnn));
    EXPECT_EQ(Standing::kUnknown, store.meet(kSubnet, kBob, 3, kNow));
    EXPECT_EQ(Standing::kUnknown, store.meet(kSubnet + 1, kBob, 3, kNow));
}

TEST_F(StoreTest, KnowsClientsOfOtherSubnets) {
    set({{kAnn, kTen, ""}});
    EXPECT_TRUE(store.reserves_elsewhere(kSubnet + 1, kAnn));
    EXPECT_FALSE(store.reserves_elsewhere(kSubnet, kAnn));
    EXPECT_FALSE(store.reserves_elsewhere(kSubnet + 1, kBob));
}

TEST_F(StoreTest, FindsAReservationByAddress) {
    set({{kAnn, kTen, ""}});
    const auto found = store.by_address(kSubnet, kTen);
    ASSERT_TRUE(found);
    EXPECT_EQ(kAnn, found->mac);
    EXPECT_EQ("", found->hostname);
}

TEST_F(StoreTest, KeepsSubnetsApart) {
    set({{kAnn, kTen, ""}});
    EXPECT_EQ(Standing::kUnknown, store.standing(kSubnet + 1, kAnn, kNow));
    EXPECT_FALSE(store.by_address(kSubnet + 1, kTen));
}

TEST_F(StoreTest, NobodyIsKnownToAnEmptyStore) {
    EXPECT_EQ(Standing::kUnknown, store.standing(kSubnet, kAnn, kNow));
    EXPECT_FALSE(store.reserves(kSubnet, kAnn, 0));
}

TEST_F(StoreTest, ReservesExactlyTheAddress) {
    set({{kAnn, kTen, ""}});
    EXPECT_TRUE(store.reserves(kSubnet, kAnn, kTen));
    EXPECT_FALSE(store.reserves(kSubnet, kAnn, kEleven));
    EXPECT_FALSE(store.reserves(kSubnet, kBob, kTen));
}

TEST_F(StoreTest, WithdrawnUntilItsTimeEndsThenUnknown) {
    set({{kAnn, kTen, ""}});
    unset({{kAnn, kLater}});
    EXPECT_EQ(Standing::kWithdrawn, store.standing(kSubnet, kAnn, kLater - 1));
    EXPECT_EQ(Standing::kUnknown, store.standing(kSubnet, kAnn, kLater));
}

TEST_F(StoreTest, WithdrawingAStrangerMakesItWithdrawnToo) {
    unset({{kAnn, kLater}});
    EXPECT_EQ(Standing::kWithdrawn, store.standing(kSubnet, kAnn, kNow));
}

TEST_F(StoreTest, ReservedAgainIsNoLongerWithdrawn) {
    unset({{kAnn, kLater}, {kBob, kLater}});
    set({{kAnn, kTen, ""}});
    EXPECT_EQ(Standing::kReserved, store.standing(kSubnet, kAnn, kNow));
    store.apply(kSubnet, {}, {{kAnn, kNow - 1}}, std::nullopt, kNow);
    EXPECT_EQ(Standing::kUnknown, store.standing(kSubnet, kAnn, kNow));
    EXPECT_EQ(Standing::kWithdrawn, store.standing(kSubnet, kBob, kNow));
}

TEST_F(StoreTest, TwoClientsExchangeTheirAddressesInOneStep) {
    set({{kAnn, kTen, "ann"}, {kBob, kEleven, "bob"}});
    const auto change = set({{kAnn, kEleven, "ann"}, {kBob, kTen, "bob"}});
    EXPECT_EQ(2U, change.count);
    EXPECT_EQ(kEleven, address_of(kAnn));
    EXPECT_EQ(kTen, address_of(kBob));
    EXPECT_EQ((std::vector<uint64_t>{kAnn, kBob}), change.freed);
}

TEST_F(StoreTest, AnAddressHasOneOwner) {
    set({{kAnn, kTen, ""}});
    const auto change = set({{kBob, kTen, ""}});
    EXPECT_EQ(1U, change.count);
    EXPECT_EQ(0U, address_of(kAnn));
    EXPECT_EQ((std::vector<uint64_t>{kAnn}), change.freed);
}

TEST_F(StoreTest, UnsetAndSetInOneStepEndsSet) {
    set({{kAnn, kTen, ""}});
    store.apply(kSubnet, {{kAnn, kEleven, ""}}, {{kAnn, kLater}}, std::nullopt, kNow);
    EXPECT_EQ(kEleven, address_of(kAnn));
}

TEST_F(StoreTest, TheSameAgainFreesNobody) {
    set({{kAnn, kTen, "ann"}});
    EXPECT_TRUE(set({{kAnn, kTen, "anna"}}).freed.empty());
    EXPECT_EQ("anna", store.by_mac(kSubnet, kAnn)->hostname);
}

TEST_F(StoreTest, ReplacingWithdrawsWhoIsNotNamed) {
    set({{kAnn, kTen, "ann"}, {kBob, kEleven, "bob"}});
    const auto change = replace({{kBob, kEleven, "bob"}});
    EXPECT_EQ(1U, change.count);
    EXPECT_EQ((std::vector<uint64_t>{kAnn}), change.freed);
    EXPECT_EQ(Standing::kWithdrawn, store.standing(kSubnet, kAnn, kNow));
    EXPECT_EQ(Standing::kReserved, store.standing(kSubnet, kBob, kNow));
}

TEST_F(StoreTest, ReplacingKeepsEarlierWithdrawals) {
    unset({{kAnn, kLater}});
    replace({{kBob, kEleven, ""}});
    EXPECT_EQ(Standing::kWithdrawn, store.standing(kSubnet, kAnn, kNow));
}

TEST_F(StoreTest, AForgottenSubnetWasNeverHeardOf) {
    set({{kAnn, kTen, "ann"}, {kBob, kEleven, ""}});
    unset({{kBob, kLater}});
    store.apply(8, {{kAnn, kTen, ""}}, {}, std::nullopt, kNow);
    store.forget(kSubnet);
    store.forget(kSubnet);
    EXPECT_EQ(Standing::kUnknown, store.standing(kSubnet, kAnn, kNow));
    EXPECT_EQ(Standing::kUnknown, store.standing(kSubnet, kBob, kNow));
    EXPECT_FALSE(store.reserves(kSubnet, kAnn, kTen));
    EXPECT_EQ(std::vector<uint32_t>{8}, store.subnets());
}

TEST_F(StoreTest, RulesOutLeasesThatAReservationOrAWithdrawalContradicts) {
    constexpr uint32_t kTwelve = kEleven + 1;
    constexpr uint64_t kStranger = 0x020000000009;
    set({{kAnn, kTen, ""}, {kBob, kEleven, ""}});
    unset({{kBob, kLater}});
    EXPECT_FALSE(store.rules_out(kSubnet, kAnn, kTen, kNow));
    EXPECT_TRUE(store.rules_out(kSubnet, kAnn, kTwelve, kNow));
    EXPECT_TRUE(store.rules_out(kSubnet, kBob, kEleven, kNow));
    EXPECT_FALSE(store.rules_out(kSubnet, kBob, kEleven, kLater));
    EXPECT_TRUE(store.rules_out(kSubnet, kStranger, kTen, kNow));
    EXPECT_FALSE(store.rules_out(kSubnet, kStranger, kTwelve, kNow));
    EXPECT_FALSE(store.rules_out(8, kStranger, kTen, kNow));
}

TEST_F(StoreTest, PagesHoldEveryReservationOnce) {
    for (uint32_t i = 0; i < 25; ++i) {
        set({{kAnn + i, kTen + i, ""}});
    }
    std::set<uint64_t> seen;
    for (size_t position = 0; position < 30; position += 10) {
        for (const auto& reservation : store.page(kSubnet, position, 10)) {
            EXPECT_TRUE(seen.insert(reservation.mac).second);
        }
    }
    EXPECT_EQ(25U, seen.size());
}

TEST_F(StoreTest, EndedWithdrawalsAreForgotten) {
    SubnetSet subnet;
    for (int64_t i = 0; i < 10'000; ++i) {
        subnet.withdraw({kAnn + static_cast<uint64_t>(i), kNow + i + 10}, kNow + i);
    }
    EXPECT_LT(subnet.withdrawals().size(), 100U);
}

// Against std::map, over enough random changes to pass through growth, every kind of removal and the renewal of the
// hostnames' room.
TEST_F(StoreTest, AgreesWithAnOrdinaryMapAfterManyChanges) {
    std::mt19937 random(1);
    std::map<uint64_t, std::pair<uint32_t, std::string>> expected;
    for (int step = 0; step < 20'000; ++step) {
        const uint64_t mac = kAnn + random() % 500;
        if (random() % 3 == 0) {
            unset({{mac, kLater}});
            expected.erase(mac);
        } else {
            const uint32_t address = kTen + random() % 800;
            const std::string name(random() % 20, 'n');
            set({{mac, address, name}});
            for (auto it = expected.begin(); it != expected.end();) {
                it = it->second.first == address ? expected.erase(it) : std::next(it);
            }
            expected[mac] = {address, name};
        }
    }
    ASSERT_EQ(expected.size(), store.size(kSubnet));
    for (const auto& [mac, wanted] : expected) {
        const auto found = store.by_mac(kSubnet, mac);
        ASSERT_TRUE(found);
        EXPECT_EQ(wanted, std::make_pair(found->address, found->hostname));
        EXPECT_EQ(mac, store.by_address(kSubnet, wanted.first)->mac);
    }
}

TEST_F(StoreTest, ReadersNeverSeeHalfOfAChange) {
    set({{kAnn, kTen, "one"}, {kBob, kEleven, "one"}});
    std::atomic<bool> stop{false};
    std::atomic<int> torn{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 2; ++i) {
        readers.emplace_back([&] {
            while (!stop) {
                const auto page = store.page(kSubnet, 0, 3);
                if (page.size() != 2 || page[0].hostname != page[1].hostname ||
                    store.meet(kSubnet, kAnn, 1, kNow) != Standing::kReserved) {
                    ++torn;
                }
                store.answers(kSubnet, kBob, kTen, 2);
            }
        });
    }
    for (int i = 0; i < 500; ++i) {
        set({{kAnn, kEleven, "two"}, {kBob, kTen, "two"}});
        replace({{kAnn, kTen, "one"}, {kBob, kEleven, "one"}});
    }
    stop = true;
    for (auto& reader : readers) {
        reader.join();
    }
    EXPECT_EQ(0, torn);
}

}  // namespace
}  // namespace leasehold
