#include "kea.h"

#include <dlfcn.h>

#include <dhcpsrv/cfg_subnets4.h>
#include <dhcpsrv/lease_mgr.h>
#include <dhcpsrv/lease_mgr_factory.h>
#include <hooks/hooks_manager.h>
#include <log/logger.h>
#include <log/macros.h>
#include <stats/stats_mgr.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "json_line.h"
#include "state.h"

using isc::asiolink::IOAddress;
using isc::data::ConstElementPtr;
using isc::dhcp::HWAddr;
using isc::dhcp::Lease4Ptr;
using isc::dhcp::LeaseMgrFactory;
using isc::stats::StatsMgr;

namespace leasehold {
namespace {

struct ManagedSubnet {
    uint32_t id;
    uint32_t first;  // addresses
    uint32_t last;
};

struct Configured {
    isc::asiolink::IOServicePtr io_service;
    std::vector<ManagedSubnet> managed;
    std::map<uint32_t, uint32_t> lifetimes_s;
    uint32_t longest_s = 0;
};

struct Side {
    std::shared_mutex mutex;
    bool open = false;
    Configured configured;
    std::vector<uint32_t> in_force;    // ids of managed subnets, in order
    std::optional<uint32_t> sequence;  // of the configuration that they are of; none if another was read since
};

Side& side() {
    static auto* const kept = new Side;
    return *kept;
}

template <typename ConfigPtr>
std::vector<ManagedSubnet> managed_in(const ConfigPtr& config) {
    std::vector<ManagedSubnet> managed;
    for (const auto& subnet : *config->getCfgSubnets4()->getAll()) {
        if (is_managed(subnet)) {
            const auto [prefix, length] = subnet->get();
            const uint32_t first = prefix.toUint32();
            managed.push_back({subnet->getID(), first, first | static_cast<uint32_t>(UINT64_C(0xFFFFFFFF) >> length)});
        }
    }
    return managed;
}

HWAddr hwaddr_of(uint64_t mac) {
    std::vector<uint8_t> octets(6);
    for (size_t i = 0; i < octets.size(); ++i) {
        octets[i] = static_cast<uint8_t>(mac >> (40 - 8 * i));
    }
    return {octets, isc::dhcp::HTYPE_ETHER};
}

// The longest of what one scope of the configuration says, or what it inherits.
uint32_t lifetime_of(const ConstElementPtr& scope, uint32_t inherited) {
    uint32_t longest = 0;
    for (const char* name : {"min-valid-lifetime", "valid-lifetime", "max-valid-lifetime"}) {
        if (const ConstElementPtr value = scope->get(name)) {
            longest = std::max(longest, static_cast<uint32_t>(value->intValue()));
        }
    }
    return longest > 0 ? longest : inherited;
}

const std::vector<isc::data::ElementPtr>& list_in(const ConstElementPtr& scope, const char* name) {
    static const std::vector<isc::data::ElementPtr> empty;
    const ConstElementPtr list = scope->get(name);
    return list ? list->listValue() : empty;
}

}  // namespace

void open_kea() {
    const std::unique_lock<std::shared_mutex> lock(side().mutex);
    side().open = true;
}

void close_kea() {
    const std::unique_lock<std::shared_mutex> lock(side().mutex);
    side().open = false;
    side().configured.io_service.reset();
}

void log(lh_log_level level, std::string_view id, std::string_view text) {
    static auto* const logger = new isc::log::Logger("leasehold-hooks");
    const std::shared_lock<std::shared_mutex> lock(side().mutex);
    if (!side().open) {
        return;
    }
    isc::log::Severity severity = isc::log::ERROR;
    bool enabled = true;
    switch (level) {
        case LH_DEBUG:
            severity = isc::log::DEBUG;
            enabled = logger->isDebugEnabled();
            break;
        case LH_INFO:
            severity = isc::log::INFO;
            enabled = logger->isInfoEnabled();
            break;
        case LH_WARN:
            severity = isc::log::WARN;
            enabled = logger->isWarnEnabled();
            break;
        case LH_ERROR:
            enabled = logger->isErrorEnabled();
            break;
    }
    if (enabled) {
        // Kea's dictionary of messages is not locked, so none can be added at run time: the line is made here instead.
        auto line = boost::make_shared<std::string>("LEASEHOLD_");
        line->append(id).append(" ").append(text);
        isc::log::Logger::Formatter(severity, line, logger);
    }
}

void set_statistic(const std::string& name, int64_t value) {
    const std::shared_lock<std::shared_mutex> lock(side().mutex);
    if (side().open && side().configured.io_service) {
        side().configured.io_service->post(
            [full_name = "leasehold." + name, value] { StatsMgr::instance().setValue(full_name, value); });
    }
}

void read_configuration(const isc::asiolink::IOServicePtr& io_service, const StagingConfig& config,
                        const ConstElementPtr& json) {
    Configured next;
    next.io_service = io_service;
    next.managed = managed_in(config);

    // Read from the configuration's text: Subnet4::getValid() would inherit from the configuration still in force.
    constexpr uint32_t kKeasDefault = 7200;
    const uint32_t global = lifetime_of(json, kKeasDefault);
    uint32_t of_a_class = 0;
    for (const auto& client_class : list_in(json, "client-classes")) {
        of_a_class = std::max(of_a_class, lifetime_of(client_class, 0));
    }
    next.longest_s = std::max(global, of_a_class);
    const auto read_subnets = [&](const ConstElementPtr& scope, uint32_t inherited) {
        for (const auto& subnet : list_in(scope, "subnet4")) {
            const uint32_t longest = std::max(lifetime_of(subnet, inherited), of_a_class);
            next.longest_s = std::max(next.longest_s, longest);
            if (const ConstElementPtr id = subnet->get("id")) {
                next.lifetimes_s[static_cast<uint32_t>(id->intValue())] = longest;
            }
        }
    };
    read_subnets(json, global);
    for (const auto& network : list_in(json, "shared-networks")) {
        read_subnets(network, lifetime_of(network, global));
    }

    const std::unique_lock<std::shared_mutex> lock(side().mutex);
    side().configured = std::move(next);
    side().sequence.reset();
}

std::vector<uint32_t> subnets_that_left() {
    const CurrentConfig config = isc::dhcp::CfgMgr::instance().getCurrentCfg();
    const uint32_t sequence = config->getSequence();  // a number that no other configuration of this process has
    if (side().sequence == sequence) {
        return {};
    }
    std::vector<ManagedSubnet> managed = managed_in(config);
    std::vector<uint32_t> now(managed.size());
    std::transform(managed.begin(), managed.end(), now.begin(), [](const auto& subnet) { return subnet.id; });
    std::sort(now.begin(), now.end());

    const std::unique_lock<std::shared_mutex> lock(side().mutex);
    std::vector<uint32_t> left;
    std::set_difference(side().in_force.begin(), side().in_force.end(), now.begin(), now.end(),
                        std::back_inserter(left));
    side().configured.managed = std::move(managed);
    side().in_force = std::move(now);
    side().sequence = sequence;
    return left;
}

std::vector<uint32_t> managed_subnets() {
    const std::shared_lock<std::shared_mutex> lock(side().mutex);
    std::vector<uint32_t> ids;
    for (const ManagedSubnet& subnet : side().configured.managed) {
        ids.push_back(subnet.id);
    }
    return ids;
}

bool is_last_library() {
    Dl_info own{};
    static const char anchor = 0;
    const std::vector<std::string> names = isc::hooks::HooksManager::getLibraryNames();
    return dladdr(&anchor, &own) != 0 && own.dli_fname != nullptr && !names.empty() && names.back() == own.dli_fname;
}

std::optional<uint32_t> managed_subnet_with(uint32_t address) {
    const std::shared_lock<std::shared_mutex> lock(side().mutex);
    for (const ManagedSubnet& subnet : side().configured.managed) {
        if (subnet.first <= address && address <= subnet.last) {
            return subnet.id;
        }
    }
    return std::nullopt;
}

uint32_t longest_lifetime_s(uint32_t subnet_id) {
    const std::shared_lock<std::shared_mutex> lock(side().mutex);
    const auto at = side().configured.lifetimes_s.find(subnet_id);
    return at != side().configured.lifetimes_s.end() ? at->second : side().configured.longest_s;
}

bool is_managed(uint32_t subnet_id) {
    const CurrentConfig config = isc::dhcp::CfgMgr::instance().getCurrentCfg();
    const auto subnet = config->getCfgSubnets4()->getBySubnetId(subnet_id);
    return subnet && is_managed(subnet);
}

uint64_t mac_of(const isc::dhcp::HWAddrPtr& hwaddr) {
    if (!hwaddr || hwaddr->htype_ != isc::dhcp::HTYPE_ETHER || hwaddr->hwaddr_.size() != 6) {
        return kNoMac;
    }
    uint64_t mac = 0;
    for (const uint8_t octet : hwaddr->hwaddr_) {
        mac = mac << 8 | octet;
    }
    return mac;
}

void delete_lease(const Lease4Ptr& lease, Counted counted) {
    const bool deleted = LeaseMgrFactory::instance().deleteLease(lease);
    if (!deleted || counted == Counted::kNo || lease->stateExpiredReclaimed()) {
        return;
    }
    // What Kea's lease_cmds library does on lease4-del.
    StatsMgr& statistics = StatsMgr::instance();
    const auto of_subnet = [&](const char* name) { return StatsMgr::generateName("subnet", lease->subnet_id_, name); };
    statistics.addValue(of_subnet("assigned-addresses"), int64_t{-1});
    if (lease->stateDeclined()) {
        statistics.addValue("declined-addresses", int64_t{-1});
        statistics.addValue(of_subnet("declined-addresses"), int64_t{-1});
    }
}

void delete_lease_of(uint32_t subnet_id, uint64_t mac, uint32_t address) {
    const Lease4Ptr lease = LeaseMgrFactory::instance().getLease4(IOAddress(address));
    if (lease && lease->subnet_id_ == subnet_id && mac_of(lease->hwaddr_) == mac) {
        delete_lease(lease);
    }
}

void delete_leases_of(const Store& store, uint32_t subnet_id, const std::vector<uint64_t>& macs) {
    auto& leases = LeaseMgrFactory::instance();
    for (const uint64_t mac : macs) {
        for (const Lease4Ptr& lease : leases.getLease4(hwaddr_of(mac))) {
            if (lease->subnet_id_ == subnet_id && !store.reserves(subnet_id, mac, lease->addr_.toUint32())) {
                delete_lease(lease);
            }
        }
    }
}

void delete_lease_in_the_way(uint32_t subnet_id, uint64_t mac, uint32_t address) {
    const Lease4Ptr lease = LeaseMgrFactory::instance().getLease4(IOAddress(address));
    if (lease && lease->subnet_id_ == subnet_id && !lease->stateDeclined() && mac_of(lease->hwaddr_) != mac) {
        delete_lease(lease);
    }
}

void delete_leases_ruled_out(const Store& store, std::set<uint32_t>& subnet_ids, Counted counted) {
    std::set<uint32_t> wanted;
    for (const uint32_t subnet_id : managed_subnets()) {
        if (subnet_ids.count(subnet_id) != 0) {
            wanted.insert(subnet_id);
        }
    }
    if (wanted.empty()) {
        return;
    }
    constexpr size_t kPage = 1024;
    isc::dhcp::Lease4Collection page;
    IOAddress last = IOAddress::IPV4_ZERO_ADDRESS();
    do {
        page = LeaseMgrFactory::instance().getLeases4(last, isc::dhcp::LeasePageSize(kPage));
        for (const Lease4Ptr& lease : page) {
            last = lease->addr_;
            if (wanted.count(lease->subnet_id_) != 0 && !lease->stateDeclined() &&
                store.rules_out(lease->subnet_id_, mac_of(lease->hwaddr_), last.toUint32(), now_ms())) {
                delete_lease(lease, counted);
            }
        }
    } while (page.size() == kPage);
    for (const uint32_t subnet_id : wanted) {
        subnet_ids.erase(subnet_id);
    }
}

std::vector<Lease4Ptr> leases_of(uint64_t mac) {
    return LeaseMgrFactory::instance().getLease4(hwaddr_of(mac));
}

Lease4Ptr lease_on(uint32_t address) {
    return LeaseMgrFactory::instance().getLease4(IOAddress(address));
}

bool has_lease_database() {
    return LeaseMgrFactory::haveInstance();
}

}  // namespace leasehold
